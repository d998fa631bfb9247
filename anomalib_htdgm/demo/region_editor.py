# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Where to look, painted on the first good photograph."""

from typing import Any

import gradio as gr
import numpy as np
import torch

from anomalib_htdgm.data.reading import UnreadableImageError, read_image
from anomalib_htdgm.inspection.inspecting import to_picture
from anomalib_htdgm.inspection.learning import order_of
from anomalib_htdgm.inspection.project import Project
from anomalib_htdgm.inspection.regions import box_of, outlines_of
from anomalib_htdgm.models.htdgm.region import Outlines, draw_region

RECTANGLE, PAINTED = "The rectangle around it", "What is painted"
LONGEST = 512
"""Longest side in pixels of what is painted on."""
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
    for key in sorted(state.good(), key=order_of):
        photograph = state.photographs[key]
        try:
            image = torch.as_tensor(read_image(project.path_of(photograph), as_tensor=True))
        except UnreadableImageError:
            continue
        picture = to_picture(image.as_subclass(torch.Tensor), LONGEST)
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
