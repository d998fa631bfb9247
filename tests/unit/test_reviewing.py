# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Reviews begin with what is unsure, and decisions choose the threshold."""

import pytest

from anomalib_htdgm.inspection.facts import Facts
from anomalib_htdgm.inspection.reviewing import threshold_of_decisions, to_review
from anomalib_htdgm.inspection.state import Photograph, State


def test_the_unsure_ones_come_first_and_none_that_is_decided() -> None:
    raws = {"far": 9.0, "near": 2.1, "low": 0.1, "nearest": 1.95, "decided": 2.0, "unread": None}
    photographs = {
        name: Photograph(
            name, name, "checked", "", decision="skip" if name == "decided" else None, finding={"raw": raw}
        )
        for name, raw in raws.items()
    }
    facts = Facts("", "", {}, {}, {}, "guess", threshold=0.5, raw_threshold=2.0, raw_range=4.0, pixel_threshold=1.0)
    state = State("part", "", photographs={**photographs, "good": Photograph("good", "good", "good", "")})
    assert to_review(state, facts) == ["nearest", "near", "far", "low"]
    state.threshold = 1.0  # a raw score of 4
    assert to_review(state, facts)[0] == "near"


@pytest.mark.parametrize(
    ("good", "defective", "threshold"),
    [
        ([1.0, 2.0], [4.0, 5.0], 3.0),
        ([1.0, 2.0, 4.5], [4.0, 5.0, 6.0], 4.75),  # what was called good stays good
        ([1.0, 3.0], [2.0], None),
        ([1.0, 2.0, 3.0], [0.5, 5.0, 6.0, 7.0], 4.0),
        ([], [4.0], 2.0),
        ([1.0], [], None),
    ],
)
def test_decisions_choose_what_tells_the_two_apart(good: list[float], defective: list[float], threshold: float) -> None:
    assert threshold_of_decisions(good, defective) == threshold
