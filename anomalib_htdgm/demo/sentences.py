# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What the page says."""

from collections.abc import Sequence

import gradio as gr

from anomalib_htdgm.inspection.report import expectation_in_words, facts_of
from anomalib_htdgm.inspection.state import State
from anomalib_htdgm.inspection.thresholds import NOTE, has_choice

GUESS = (
    "The threshold is a guess: so few good photographs do not tell how much good ones differ. Two more good ones, or "
    "twenty to check that nobody has looked at, make it firm."
)


def expect(state: State) -> str:
    """Say what the threshold means for good photographs, and who has chosen it."""
    if state.model is None:
        return ""
    facts = facts_of(state)
    guess = [GUESS] if facts.chosen_by == "guess" else []
    note = state.settings.get(NOTE, "") if state.threshold == facts.threshold else "The threshold is your own."
    return " ".join([expectation_in_words(state, facts), note, *guess])


def offer_other_threshold(state: State) -> gr.Button:
    """Offer to undo the choice of the threshold, where there are two to choose from."""
    model = state.model or {}
    if model and state.threshold != model["threshold"]:
        return gr.Button(f"Undo: the threshold of {model['threshold']:.2f} that was chosen for you", visible=True)
    is_of_unchecked = model.get("chosen_by") == "unlabelled images"
    to = "Undo: the threshold of the good photographs" if is_of_unchecked else "The threshold of those to check instead"
    return gr.Button(to, visible=has_choice(state))


def shorten(sentences: Sequence[str], most: int = 3) -> list[str]:
    """Keep the first of many refusals, and count the others."""
    more = len(sentences) - most
    return [*sentences[:most], f"And {more} more files were left out."] if more > 1 else [*sentences]


def plural(number: int, noun: str) -> str:
    """Count something."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
