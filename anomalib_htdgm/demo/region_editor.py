# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Where to look, painted on the first good photograph."""

from typing import Any

import gradio as gr
import numpy as np

from anomalib_htdgm.data.reading import UnreadableImageError
from anomalib_htdgm.inspection.learning import choose_shots, read
from anomalib_htdgm.inspection.pictures import to_picture
from anomalib_htdgm.inspection.preparing import ALIGNED_WITH
from anomalib_htdgm.inspection.project import Project
from anomalib_htdgm.inspection.regions import box_of, outlines_of
from anomalib_htdgm.inspection.state import name_of_good
from anomalib_htdgm.models.htdgm.region import Outlines, draw_region

RECTANGLE, PAINTED = "The rectangle around it", "What is painted"
COLOUR = (0, 158, 255, 140)
"""Of the brush, see-through."""


def lay_out_editor() -> gr.ImageEditor:
    """Make the editor: a brush, an eraser, and nothing else."""
    brush = gr.Brush(colors=["rgba(0, 158, 255, 0.55)"], default_size=40, color_mode="fixed")
    options: dict[str, Any] = {"sources": (), "transforms": (), "layers": False, "height": 300, "image_mode": "RGBA"}
    return gr.ImageEditor(label="Paint where to look", brush=brush, elem_id="region", **options)


def editor_value(project: Project) -> dict[str, Any] | None:
    """Give what the editor is to show: the first good photograph, and the present region; ``None`` if there is none.

    The first one is what others are aligned with.
    """
    state = project.read()
    good = {name_of_good(key): each for key, each in state.good().items()}
    for name in choose_shots(good, len(good), state.settings.get(ALIGNED_WITH)):
        try:
            picture = to_picture(read(project.path_of(good[name])))
        except UnreadableImageError:
            continue
        layer = np.zeros((*picture.shape[:2], 4), np.uint8)
        if region := state.settings.get("region"):
            layer[draw_region(region, picture.shape[:2])] = COLOUR
        return {"background": picture, "layers": [layer], "composite": None}
    return None


def region_of(edited: dict[str, Any] | None, kind: str) -> Outlines:
    """Make a region of what was painted.

    Raises:
        ValueError: If it is too little.
    """
    layers = (edited or {}).get("layers") or []
    painted = [np.asarray(each)[..., 3] > 0 for each in layers]
    if not painted or not np.any(painted):
        msg = "Nothing is painted: paint on the photograph where to look."
        raise ValueError(msg)
    try:
        region = outlines_of(np.any(painted, axis=0))
    except ValueError as error:
        msg = "Too little is painted: paint at least a tenth of the width, and of the height."
        raise ValueError(msg) from error
    return box_of(region) if kind == RECTANGLE else region
