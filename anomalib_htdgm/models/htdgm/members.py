# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Members: discriminators that ask the same question, each of them trained on its share of the images."""

from collections.abc import Sequence

import torch


def share_of(member: int, members: int, images: torch.Tensor) -> torch.Tensor:
    """Choose the images that a member is trained on: every image is one member's, and none is left without.

    Members take turns where there are fewer images than members.
    """
    return images[member % len(images) :: members]  # of five images, member 0 of 2 has 0, 2 and 4


def members_without(shot: int, members: int, num_shots: int) -> Sequence[int]:
    """List the members that were not trained on an image; all of them if all were."""
    shots = torch.arange(num_shots)
    without = [member for member in range(members) if shot not in share_of(member, members, shots)]
    return without or range(members)
