# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What the handlers of the page have in common: how a project is shown, and work that can be stopped."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from time import monotonic
from types import SimpleNamespace
from typing import Any

import gradio as gr

from anomalib_htdgm.inspection.sentences import expect
from anomalib_htdgm.inspection.state import Place, State
from anomalib_htdgm.inspection.thresholds import has_choice
from anomalib_htdgm.inspection.watching import StoppedError

from . import layout
from .inspectors import Inspectors
from .part import Part
from .views import show_good, show_results

SECONDS_PER_SHOW = 0.5
"""Seconds between two results that are shown as they come: to draw each would slow others down."""
MOST_SAID = 3
"""Files that were left out of which each is named; others are counted."""
Shown = dict[Any, Any]
"""What components of the page become."""


class Workbench:
    """Projects as the page shows them, and what is on the page, by name."""

    def __init__(self, inspectors: Inspectors, on: SimpleNamespace) -> None:
        self.inspectors, self.on = inspectors, on
        self._stopped: dict[str, Event] = {}

    def part(self, name: str) -> Part:
        """Find a project by its name.

        Raises:
            gr.Error: If there is none.
        """
        try:
            return Part(self.inspectors.find(name), self.inspectors)
        except KeyError as error:
            msg = f"There is no project of the name {name}."
            raise gr.Error(msg) from error

    def show(self, name: str, chosen: str = "") -> Shown:
        """Show the project as it is at this moment, whoever has changed it."""
        on, state = self.on, self.part(name).project.read()
        results, detail, row = show_results(name, state, chosen)
        is_good = chosen in state.good() and chosen not in state.checked()
        return {
            on.chosen: chosen if is_good else row.key if row else "",
            on.good: show_good(name, state, chosen),
            on.remove: gr.Button(f"Remove {Path(chosen).name}" if chosen else layout.REMOVE),
            on.results: results,
            on.detail: detail,
            on.threshold: state.threshold,
            on.expectation: expect(state),
            on.other_threshold: offer_other_threshold(state),
        }

    def add(self, name: str, files: str | list[str] | None, place: Place) -> str:
        """Add photographs to a project, and say which files were left out."""
        paths = [Path(each) for each in ([files] if isinstance(files, str) else files or [])]
        try:
            refused = self.part(name).add(paths, place)
            more = len(refused) - MOST_SAID
            return " ".join([*refused[:MOST_SAID], f"And {more} more files were left out."] if more > 1 else refused)
        finally:
            for path in paths:  # the project has a copy
                path.unlink(missing_ok=True)

    def check(self, name: str, said: str = "") -> Iterator[Shown]:
        """Check what waits, and show results as they come."""
        part, shown_at, stopped = self.part(name), monotonic(), self.begin_work(name)
        try:
            for number, of in part.check(stopped):
                if monotonic() - shown_at > SECONDS_PER_SHOW:
                    yield self.show(name) | {self.on.new_message: f"{said} Checking: {number} of {of}."}
                    shown_at = monotonic()
        except StoppedError:
            said += " Stopped."
        except ValueError as error:
            said += f" {error}"
        state = part.project.read()
        until = "press *Learn* to go on." if state.model else "drop good ones in 1. and press *Learn*."
        waits = f"{plural(len(state.waiting()), 'photograph')} kept and waiting: {until}" if state.waiting() else ""
        checked = len(state.checked()) - len(state.waiting())
        yield self.show(name) | {self.on.new_message: f"{said} {checked} checked. {waits}"}

    def begin_work(self, name: str) -> Event:
        """Begin what :meth:`stop` stops."""
        self._stopped[name] = Event()
        return self._stopped[name]

    def stop(self, name: str) -> None:
        """Stop what is being done with a project."""
        if name in self._stopped:
            self._stopped[name].set()


def offer_other_threshold(state: State) -> gr.Button:
    """Offer to undo the choice of the threshold, where there are two to choose from."""
    model = state.model
    if model and state.threshold != model.threshold:
        return gr.Button(f"Undo: the threshold of {model.threshold:.2f} that was chosen for you", visible=True)
    is_of_unchecked = model is not None and model.chosen_by == "unlabelled images"
    to = "Undo: the threshold of the good photographs" if is_of_unchecked else "The threshold of those to check instead"
    return gr.Button(to, visible=has_choice(state))


def plural(number: int, noun: str) -> str:
    """Count something."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
