# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The page itself: what is on it, and what its buttons do. What it knows is in the project that its address names."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any, cast

import gradio as gr

from anomalib_htdgm.inspection.exporting import StoppedError, save_files
from anomalib_htdgm.inspection.project import list_projects
from anomalib_htdgm.inspection.report import facts_of
from anomalib_htdgm.inspection.state import Decision, Place, State
from anomalib_htdgm.inspection.thresholds import USES_UNCHECKED
from anomalib_htdgm.models.htdgm.region import Outlines

from . import layout
from .inspectors import Inspectors
from .part import EXAMPLE, Part, advise, name_project
from .region_editor import editor_value, region_of
from .sentences import expect, offer_other_threshold, plural, shorten
from .views import show_good, show_projects, show_results

SECONDS_PER_SHOW = 0.5
"""Seconds between two results that are shown as they come: to draw each would slow others down."""
Shown = dict[Any, Any]
"""What components of the page become."""
NOTHING = "Nothing has been learnt yet."


class Page:
    """The page.

    Args:
        inspectors (Inspectors): The projects, and their models.
    """

    def __init__(self, inspectors: Inspectors) -> None:
        self.inspectors = inspectors
        self._stopped: dict[str, Event] = {}

    def build(self) -> gr.Blocks:
        """Build the page, to be mounted."""
        with gr.Blocks(title="Htdgm: a few good photographs", analytics_enabled=False) as blocks:
            self.on = layout.lay_out()
            self._connect(blocks)
        return blocks

    def _connect(self, blocks: gr.Blocks) -> None:
        """Say what happens when; what takes long waits for its turn, as trainings side by side are slow."""
        on = self.on
        every = [each for name, each in vars(on).items() if name not in layout.SOURCES]
        at_once: dict[str, Any] = {"api_visibility": "private", "outputs": every, "show_progress": "hidden"}
        in_turn = at_once | {"concurrency_id": "turn", "concurrency_limit": 1, "show_progress": "full"}
        left, right, below = (
            in_turn | {"show_progress_on": each} for each in (on.message, on.new_message, on.files_message)
        )
        learning = {"fn": self._learn, "inputs": [on.name, on.tiles, on.align], **left}
        here = [on.name, on.chosen]

        blocks.load(self._open, None, **at_once).then(self._go_on, on.name, **left)
        for note in (on.good_camera_note, on.new_camera_note):
            blocks.load(None, None, note, js=layout.CAMERA)
        on.begin.click(self._begin, on.new_name, **at_once).then(None, on.name, None, js=layout.GO_TO)
        on.new_name.submit(self._begin, on.new_name, **at_once).then(None, on.name, None, js=layout.GO_TO)
        for added, source, add in (
            (on.good_files.upload, on.good_files, self._add_good),
            (on.good_camera.input, on.good_camera, self._add_good),
            (on.new_files.upload, on.new_files, self._add_new),
            (on.new_camera.input, on.new_camera, self._add_new),
        ):
            where = left if add == self._add_good else right
            added(add, [on.name, source], **where).then(lambda: None, None, source, api_visibility="private")
        on.how.expand(self._show_editor, on.name, **at_once)
        on.look_here.click(self._look_here, [on.name, on.editor, on.kind], **at_once)
        on.look_everywhere.click(self._look_everywhere, on.name, **at_once)
        on.learn.click(**learning)
        on.stop.click(self._stop, on.name, None, queue=False, api_visibility="private")
        for shown in (on.good, on.results):
            shown.click(self._choose, on.name, **at_once)
        on.remove.click(self._remove, here, **at_once)
        for button, decision in ((on.say_good, "good"), (on.say_defective, "defective"), (on.skip, "skip")):
            button.click(self._decision(decision), here, **at_once)
        on.take_back.click(self._take_back, on.name, **at_once)
        on.accept.click(self._decision("good"), here, **at_once).then(**learning)
        # Not by `change`, which is of the server's making, too; the button to reset the slider is a `release` alone.
        for moved in (on.threshold.input, on.threshold.release):
            moved(self._move, [*here, on.threshold], trigger_mode="always_last", **at_once)
        on.other_threshold.click(self._use_other_threshold, on.name, **at_once)
        on.save.click(self._save, on.name, **below)

    def _part(self, name: str) -> Part:
        try:
            return Part(self.inspectors.find(name), self.inspectors)
        except KeyError as error:
            msg = f"There is no project of the name {name}."
            raise gr.Error(msg) from error

    def _open(self, request: gr.Request) -> Shown:
        name = request.query_params.get("project")
        projects = list_projects(self.inspectors.root)
        if name not in {project.folder.name for project in projects}:
            return {self.on.projects: show_projects(projects)}
        settings = self._part(name).project.read().settings
        opened = {self.on.start: gr.Column(visible=False), self.on.job: gr.Row(visible=True), self.on.name: name}
        tiles = settings.get("tiles") if settings.get("tiles") in layout.TILES.values() else 1
        as_learnt = {self.on.tiles: tiles, self.on.align: settings.get("align", False)}
        return self._show(name) | opened | as_learnt | {self.on.heading: layout.heading(name)}

    def _begin(self, wanted: str) -> Shown:
        try:
            return {self.on.name: name_project(self.inspectors.root, wanted), self.on.start_message: ""}
        except ValueError as error:
            return {self.on.name: "", self.on.start_message: f"{error}"}

    def _go_on(self, name: str, progress: gr.Progress = gr.Progress()) -> Iterator[Shown]:  # noqa: B008
        """Learn the example, or check what was waiting when the page was closed."""
        yield {self.on.name: name}  # Gradio would empty the page after nothing
        state = self._part(name).project.read() if name else State("", "")
        if name == EXAMPLE and state.model is None:
            yield from self._learn(name, 1, align=False, progress=progress)
        elif state.model is not None and state.waiting():
            yield from self._check(name)

    def _add_good(self, name: str, files: str | list[str] | None) -> Shown:
        said = self._add(name, files, "good")
        state = self._part(name).project.read()
        return self._show(name) | {
            self.on.message: f"{said} {plural(len(state.good()), 'good photograph')}. Press *Learn*."
        }

    def _add_new(self, name: str, files: str | list[str] | None) -> Iterator[Shown]:
        yield from self._check(name, self._add(name, files, "checked"))

    def _add(self, name: str, files: str | list[str] | None, place: Place) -> str:
        paths = [Path(each) for each in ([files] if isinstance(files, str) else files or [])]
        try:
            return " ".join(shorten(self._part(name).add(paths, place)))
        finally:
            for path in paths:  # the project has a copy
                path.unlink(missing_ok=True)

    def _check(self, name: str, said: str = "") -> Iterator[Shown]:
        """Check what waits, and show results as they come."""
        part, shown_at, stopped = self._part(name), monotonic(), self._begin_work(name)
        try:
            for number, of in part.check(stopped):
                if monotonic() - shown_at > SECONDS_PER_SHOW:
                    yield self._show(name) | {self.on.new_message: f"{said} Checking: {number} of {of}."}
                    shown_at = monotonic()
        except StoppedError:
            said += " Stopped."
        except ValueError as error:
            said += f" {error}"
        state = part.project.read()
        until = "press *Learn* to go on." if state.model else "drop good ones in 1. and press *Learn*."
        waits = f"{plural(len(state.waiting()), 'photograph')} kept and waiting: {until}" if state.waiting() else ""
        checked = len(state.checked()) - len(state.waiting())
        yield self._show(name) | {self.on.new_message: f"{said} {checked} checked. {waits}"}

    def _show_editor(self, name: str) -> Shown:
        return {self.on.editor: editor_value(self._part(name).project)}

    def _look_here(self, name: str, edited: dict[str, Any] | None, kind: str) -> Shown:
        try:
            return self._look_at(name, region_of(edited, kind), "Only the painted place counts")
        except ValueError as error:
            return {self.on.message: f"{error}"}

    def _look_everywhere(self, name: str) -> Shown:
        return self._look_at(name, None, "All of each photograph counts")

    def _look_at(self, name: str, region: Outlines | None, said: str) -> Shown:
        project = self._part(name).project
        with project.changing() as state:
            state.settings["region"] = region
        return self._show_editor(name) | {self.on.message: f"{said} from the next *Learn* on."}

    def _learn(
        self,
        name: str,
        tiles: int,
        align: bool,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[Shown]:
        part, begin, stopped = self._part(name), monotonic(), self._begin_work(name)
        yield {self.on.message: "Learning."}
        try:
            part.learn(tiles, lambda share: progress(share, desc="Learning"), stopped, align=align)
        except StoppedError:
            kept = "What had been learnt before is still there." if part.project.read().model else NOTHING
            yield self._show(name) | {self.on.message: f"Stopped. {kept}"}
            return
        except ValueError as error:
            yield self._show(name) | {self.on.message: f"{error}"}
            return
        state = part.project.read()
        number = plural(len(facts_of(state).good), "good photograph")
        said = {self.on.message: " ".join([f"Learnt {number} in {monotonic() - begin:.0f} seconds.", *advise(state)])}
        yield self._show(name) | said
        for checked in self._check(name):
            yield checked | said

    def _begin_work(self, name: str) -> Event:
        self._stopped[name] = Event()
        return self._stopped[name]

    def _stop(self, name: str) -> None:
        if name in self._stopped:
            self._stopped[name].set()

    def _choose(self, name: str, event: gr.EventData) -> Shown:
        return self._show(name, cast("str", event.key))

    def _remove(self, name: str, chosen: str) -> Shown:
        project = self._part(name).project
        if chosen not in project.read().photographs:
            return {self.on.message: "Click on a photograph first."}
        project.remove(chosen)
        return self._show(name) | {
            self.on.message: f"Removed {Path(chosen).name}. What was learnt stays until *Learn*."
        }

    def _decision(self, decision: str) -> Any:  # noqa: ANN401  # Gradio wants a function for each button
        def decide(name: str, chosen: str) -> Shown:
            part = self._part(name)
            state = part.project.read()
            if chosen not in state.checked():
                return {self.on.new_message: "Click on one of the photographs that were checked first."}
            part.project.decide(chosen, cast("Decision", decision))
            said = " Press *Learn* in 1. to learn it, too." if decision == "good" else ""
            return self._decided(part) | {self.on.new_message: f"{chosen.partition('/')[2]}: {decision}.{said}"}

        return decide

    def _take_back(self, name: str) -> Shown:
        part = self._part(name)
        key = part.project.take_back()
        said = f"Taken back: {key.partition('/')[2]}." if key else "There is no decision to take back."
        return self._decided(part, key or "") | {self.on.new_message: said}

    def _decided(self, part: Part, chosen: str = "") -> Shown:
        if part.project.read().model is not None:
            part.choose_threshold()
        return self._show(part.project.folder.name, chosen)

    def _move(self, name: str, chosen: str, threshold: float) -> Shown:
        self._part(name).project.move_threshold(threshold)
        shown = self._show(name, chosen)
        del shown[self.on.threshold]  # it is where the user has it
        return shown

    def _use_other_threshold(self, name: str) -> Shown:
        part = self._part(name)
        with part.project.changing() as state:
            state.settings[USES_UNCHECKED] = (state.model or {}).get("chosen_by") != "unlabelled images"
        return self._decided(part)

    def _save(self, name: str) -> Iterator[Shown]:
        on, paths = self.on, list[str]()
        project, stopped = self._part(name).project, self._begin_work(name)
        try:
            yield {on.files_message: "The ONNX file takes longest.", on.files: gr.File(None, visible=False)}
            for path in save_files(project, stopped):
                paths.append(str(path))
                yield {on.files_message: f"{len(paths)} of 5 files made.", on.files: gr.File(paths, visible=True)}
        except StoppedError:
            yield {on.files_message: f"Stopped. {len(paths)} of 5 files made."}
            return
        except (ValueError, RuntimeError) as error:
            yield {on.files_message: NOTHING if project.read().model is None else f"{error}"}
            return
        yield {on.files_message: f"All call anomalous what is above {project.read().threshold:.2f}."}

    def _show(self, name: str, chosen: str = "") -> Shown:
        """Show the project as it is at this moment, whoever has changed it."""
        on, state = self.on, self._part(name).project.read()
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
