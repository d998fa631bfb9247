# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The second column: photographs to check, and what a person decides about them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from anomalib_htdgm.inspection.thresholds import USES_UNCHECKED

from .part import Part
from .workbench import Shown, Workbench

if TYPE_CHECKING:
    from anomalib_htdgm.inspection.state import Decision


class Checking:
    """What the second column does."""

    def __init__(self, bench: Workbench) -> None:
        self.bench, self.on = bench, bench.on

    def add_new(self, name: str, files: str | list[str] | None) -> Iterator[Shown]:
        """Add photographs to check, and check them."""
        yield from self.bench.check(name, self.bench.add(name, files, "checked"))

    def decision(self, decision: str, said: str = "") -> Any:  # noqa: ANN401  # Gradio wants a function for each button
        """Make what a button does that decides about the clicked photograph."""

        def decide(name: str, chosen: str) -> Shown:
            part = self.bench.part(name)
            state = part.project.read()
            if chosen not in state.checked():
                return {self.on.new_message: "Click on one of the photographs that were checked first."}
            part.project.decide(chosen, cast("Decision", decision))
            return self._decided(part) | {self.on.new_message: f"{chosen.partition('/')[2]}: {decision}. {said}"}

        return decide

    def take_back(self, name: str) -> Shown:
        """Take the last decision back."""
        part = self.bench.part(name)
        key = part.project.take_back()
        said = f"Taken back: {key.partition('/')[2]}." if key else "There is no decision to take back."
        return self._decided(part, key or "") | {self.on.new_message: said}

    def _decided(self, part: Part, chosen: str = "") -> Shown:
        if part.project.read().model is not None:
            part.choose_threshold()
        return self.bench.show(part.project.folder.name, chosen)

    def move(self, name: str, chosen: str, threshold: float) -> Shown:
        """Take over the threshold of the slider."""
        self.bench.part(name).project.move_threshold(threshold)
        shown = self.bench.show(name, chosen)
        del shown[self.on.threshold]  # it is where the user has it
        return shown

    def use_other_threshold(self, name: str) -> Shown:
        """Give up the user's own threshold; or else let unchecked photographs choose it, or no longer."""
        part = self.bench.part(name)
        with part.project.changing() as state:
            if state.threshold != state.facts.threshold:
                state.threshold = state.facts.threshold
            else:
                state.settings[USES_UNCHECKED] = state.facts.chosen_by != "unlabelled images"
        return self._decided(part)
