# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What is said of a project as a whole, in the command's last line, on the page and in the report alike."""

from collections import Counter

from .expectation import expect_by_count, spread_of_unseen
from .photograph_faults import find_odd
from .state import State

ENOUGH_COUNTED = 20
"""Photographs from which on the share of those above the threshold tells something."""
NOTE = "note"
"""Setting of a project: a sentence about who has chosen the threshold."""
GUESS = (
    "The threshold is a guess: so few good photographs do not tell how much good ones differ. Two more good ones, or "
    "twenty to check that nobody has looked at, make it firm."
)


def expect(state: State) -> str:
    """Say what the threshold means for good photographs, and who has chosen it; nothing before there is one."""
    if state.model is None:
        return ""
    guess = [GUESS] if state.model.chosen_by == "guess" else []
    note = state.settings.get(NOTE, "") if state.threshold == state.model.threshold else "The threshold is your own."
    return " ".join(each for each in (_expect_above(state), note, *guess) if each)


def _expect_above(state: State) -> str:
    """Say how many good photographs will be above the threshold, by what tells most about them."""
    facts, raw = state.facts, state.facts.raw_at(state.threshold)
    found = [(each.decision, each.finding.raw) for each in state.checked().values() if each.finding]
    known = [(decision, score) for decision, score in found if score is not None]
    good = [score for decision, score in known if decision == "good"]
    if len(good) >= ENOUGH_COUNTED:
        expected = expect_by_count(sum(score > raw for score in good), len(good))
        return f"{expected} So say {len(good)} that you called good."
    if spread := spread_of_unseen(list(facts.unseen.values())):
        few = " It is a wide range, as so few tell little." if spread.number < 5 else ""  # noqa: PLR2004
        return f"{spread.expect(raw)} So say {len(facts.unseen)} good ones, each compared with the others.{few}"
    if len(known) >= ENOUGH_COUNTED:
        expected = expect_by_count(sum(score > raw for _, score in known), len(known))
        counted = str(expected).replace("good ones", "photographs like these")
        return f"{counted} Of good ones it will be at most as many."
    cannot = "How many good ones will be called anomalous cannot be told"
    if facts.settings.get("k_shot", 1) > 1:
        return f"{cannot}: the checkpoint does not hold how the good photographs that it was learnt from scored."
    return f"{cannot}: it takes two good photographs to learn from."


def advise(state: State) -> list[str]:
    """Say which good ones are copies of one another or unlike the others, and which defective ones are called good."""
    good, unseen = state.facts.good, state.facts.unseen
    said = []
    for digest, number in Counter(good.values()).items():
        if number > 1:
            names = " and ".join(name for name, each in good.items() if each == digest)
            said.append(f"{names} are copies of one photograph, and tell nothing of how much good ones differ.")
    low = [row.name for row in state.rows() if row.photograph.decision == "defective" and row.verdict == "good"]
    if low:
        said.append(f"You called {' and '.join(low)} defective; by the present threshold the verdict is good.")
    odd = find_odd(list(unseen.values()))
    advice = "is unlike the other good photographs. If it is not good, take it away: it makes a bad model."
    return said + [f"{name} {advice}" for index, name in enumerate(unseen) if index in odd]
