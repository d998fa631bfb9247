# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Regions of photographs, as people give them: four numbers, or a painted mask."""

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalib_htdgm.data.reading import UnreadableImageError, read_image
from anomalib_htdgm.models.htdgm.region import Outlines, check_region, list_polygons
from anomalib_htdgm.validation import check_number

EVERYWHERE: Outlines = [0.0, 0.0, 1.0, 1.0]
SMOOTHED = 0.003
"""How far an outline may be from what was painted, as a share of the longer side."""
MOST_GREY = 0.05
"""Share of a mask's pixels that may be neither black nor white, as at its edges: of photographs most are."""
LEAST_AREA = 0.0005
"""Share of the picture below which a spot, or a hole, is a slip of the brush."""


def parse_region(text: str) -> Outlines:
    """Read a region that was given on the command line: left, top, right and bottom, or an image, white where to look.

    Raises:
        ValueError: If it is neither.
    """
    numbers = text.split(",")
    try:
        if len(numbers) == 4:  # noqa: PLR2004
            region: Outlines = [float(each) for each in numbers]
        else:
            painted = np.asarray(read_image(text)).max(axis=2)
            check_number("grey pixels", float(((painted > 0.2) & (painted < 0.8)).mean()), at_most=MOST_GREY)  # noqa: PLR2004
            region = outlines_of(painted > 0.5)  # noqa: PLR2004
        check_region(region)
    except (ValueError, UnreadableImageError) as error:
        allowed = "left,top,right,bottom from 0 to 1, or an image, white where to look, else black"
        msg = f"--region: got {text}; allowed are {allowed}"
        raise ValueError(msg) from error
    return region


def outlines_of(mask: NDArray[np.bool_]) -> Outlines:
    """Outline what was painted, true in a mask of shape ``(H, W)``: polygons, of which one within another is a hole.

    Raises:
        ValueError: If too little was painted.
    """
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    large = [each for each in found if cv2.contourArea(each) >= LEAST_AREA * mask.size]
    smooth = [cv2.approxPolyDP(each, SMOOTHED * max(mask.shape), closed=True)[:, 0] for each in large]
    shares = [((each + 0.5) / mask.shape[::-1]).round(4).tolist() for each in smooth if len(each) > 2]  # noqa: PLR2004
    check_region(shares)
    return shares


def box_of(region: Outlines) -> list[float]:
    """Give the rectangle around a region: left, top, right and bottom."""
    corners = np.concatenate(list_polygons(region))
    return [*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()]
