# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The first column: good photographs, where to look, and learning."""

from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import gradio as gr

from anomalib_htdgm.inspection.sentences import advise
from anomalib_htdgm.inspection.watching import StoppedError
from anomalib_htdgm.models.htdgm.region import Outlines

from .region_editor import editor_value, region_of
from .workbench import Shown, Workbench, plural

NOTHING = "Nothing has been learnt yet."


class Learning:
    """What the first column does."""

    def __init__(self, bench: Workbench) -> None:
        self.bench, self.on = bench, bench.on

    def add_good(self, name: str, files: str | list[str] | None) -> Shown:
        """Add good photographs."""
        said = self.bench.add(name, files, "good")
        state = self.bench.part(name).project.read()
        return self.bench.show(name) | {
            self.on.message: f"{said} {plural(len(state.good()), 'good photograph')}. Press *Learn*."
        }

    def remove(self, name: str, chosen: str) -> Shown:
        """Remove the photograph that was clicked."""
        project = self.bench.part(name).project
        if chosen not in project.read().photographs:
            return {self.on.message: "Click on a photograph first."}
        project.remove(chosen)
        return self.bench.show(name) | {
            self.on.message: f"Removed {Path(chosen).name}. What was learnt stays until *Learn*."
        }

    def show_editor(self, name: str) -> Shown:
        """Show where the project looks."""
        return {self.on.editor: editor_value(self.bench.part(name).project)}

    def look_here(self, name: str, edited: dict[str, Any] | None, kind: str) -> Shown:
        """Look where it was painted."""
        try:
            return self._look_at(name, region_of(edited, kind), "Only the painted place counts")
        except ValueError as error:
            return {self.on.message: f"{error}"}

    def look_everywhere(self, name: str) -> Shown:
        """Look everywhere again."""
        return self._look_at(name, None, "All of each photograph counts")

    def _look_at(self, name: str, region: Outlines | None, said: str) -> Shown:
        project = self.bench.part(name).project
        with project.changing() as state:
            state.settings["region"] = region
        return self.show_editor(name) | {self.on.message: f"{said} from the next *Learn* on."}

    def learn(
        self,
        name: str,
        tiles: int,
        align: bool,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[Shown]:
        """Learn, and check again what was checked before."""
        part, begin, stopped = self.bench.part(name), monotonic(), self.bench.begin_work(name)
        yield {self.on.message: "Learning."}
        try:
            part.learn(tiles, lambda share: progress(share, desc="Learning"), stopped, align=align)
        except StoppedError:
            kept = "What had been learnt before is still there." if part.project.read().model else NOTHING
            yield self.bench.show(name) | {self.on.message: f"Stopped. {kept}"}
            return
        except ValueError as error:
            yield self.bench.show(name) | {self.on.message: f"{error}"}
            return
        state = part.project.read()
        number = plural(len(state.facts.good), "good photograph")
        own = [] if state.threshold == state.facts.threshold else [f"Your own threshold, {state.threshold:.2f}, stays."]
        learnt = f"Learnt {number} in {monotonic() - begin:.0f} seconds."
        said = {self.on.message: " ".join([learnt, *own, *advise(state)])}
        yield self.bench.show(name) | said
        for checked in self.bench.check(name):
            yield checked | said
