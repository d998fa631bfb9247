# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The page itself: what is on it, and what its buttons do. What it knows is in the project that its address names."""

from collections.abc import Iterator
from typing import Any, cast

import gradio as gr

from anomalib_htdgm.inspection.exporting import save_files
from anomalib_htdgm.inspection.project import list_projects
from anomalib_htdgm.inspection.state import State
from anomalib_htdgm.inspection.watching import StoppedError

from . import layout
from .checking_column import Checking
from .inspectors import Inspectors
from .learning_column import NOTHING, Learning
from .part import EXAMPLE, name_project
from .views import show_projects
from .workbench import Shown, Workbench

LONGEST = "The ONNX file takes longest, up to some minutes."


class Page:
    """The page."""

    def __init__(self, inspectors: Inspectors) -> None:
        self.inspectors = inspectors

    def build(self) -> gr.Blocks:
        """Build the page, to be mounted."""
        with gr.Blocks(title="Htdgm: a few good photographs", analytics_enabled=False) as blocks:
            self.bench = Workbench(self.inspectors, layout.lay_out())
            self.on, self.learning, self.checking = self.bench.on, Learning(self.bench), Checking(self.bench)
            self._connect(blocks)
        return blocks

    def _connect(self, blocks: gr.Blocks) -> None:
        """Say what happens when; what takes long waits for its turn, as trainings side by side are slow."""
        on, left_column, right_column = self.on, self.learning, self.checking
        every = [each for name, each in vars(on).items() if name not in layout.SOURCES]
        at_once: dict[str, Any] = {"api_visibility": "private", "outputs": every, "show_progress": "hidden"}
        in_turn = at_once | {"concurrency_id": "turn", "concurrency_limit": 1, "show_progress": "full"}
        left, right, below = (
            in_turn | {"show_progress_on": each} for each in (on.message, on.new_message, on.files_message)
        )
        learning = {"fn": left_column.learn, "inputs": [on.name, on.tiles, on.align], **left}
        here = [on.name, on.chosen]

        blocks.load(self._open, None, **at_once).then(self._go_on, on.name, **left)
        for note in (on.good_camera_note, on.new_camera_note):
            blocks.load(None, None, note, js=layout.CAMERA)
        on.begin.click(self._begin, on.new_name, **at_once).then(None, on.name, None, js=layout.GO_TO)
        on.new_name.submit(self._begin, on.new_name, **at_once).then(None, on.name, None, js=layout.GO_TO)
        for added, source, add in (
            (on.good_files.upload, on.good_files, left_column.add_good),
            (on.good_camera.input, on.good_camera, left_column.add_good),
            (on.new_files.upload, on.new_files, right_column.add_new),
            (on.new_camera.input, on.new_camera, right_column.add_new),
        ):
            where = left if add == left_column.add_good else right
            added(add, [on.name, source], **where).then(lambda: None, None, source, api_visibility="private")
        on.how.expand(left_column.show_editor, on.name, **at_once)
        on.look_here.click(left_column.look_here, [on.name, on.editor, on.kind], **at_once)
        on.look_everywhere.click(left_column.look_everywhere, on.name, **at_once)
        on.learn.click(**learning)
        on.stop.click(self.bench.stop, on.name, None, queue=False, api_visibility="private")
        for shown in (on.good, on.results):
            shown.click(self._choose, on.name, **at_once)
        on.remove.click(left_column.remove, here, **at_once)
        on.say_good.click(right_column.decision("good", "Press *Learn* in 1. to learn it, too."), here, **at_once)
        for button, decision in ((on.say_defective, "defective"), (on.skip, "skip")):
            button.click(right_column.decision(decision), here, **at_once)
        on.take_back.click(right_column.take_back, on.name, **at_once)
        on.accept.click(right_column.decision("good"), here, **at_once).then(**learning)
        # Not by `change`, which is of the server's making, too; the button to reset the slider is a `release` alone.
        for moved in (on.threshold.input, on.threshold.release):
            moved(right_column.move, [*here, on.threshold], trigger_mode="always_last", **at_once)
        on.other_threshold.click(right_column.use_other_threshold, on.name, **at_once)
        on.save.click(self._save, on.name, **below)

    def _open(self, request: gr.Request) -> Shown:
        name = request.query_params.get("project")
        projects = list_projects(self.inspectors.root)
        if name not in {project.folder.name for project in projects}:
            return {self.on.projects: show_projects(projects)}
        settings = self.bench.part(name).project.read().settings
        opened = {
            self.on.start: gr.Column(visible=False),
            self.on.job: gr.Row(visible=True),
            self.on.name: name,
        }
        tiles = settings.get("tiles") if settings.get("tiles") in layout.TILES.values() else 1
        as_learnt = {self.on.tiles: tiles, self.on.align: settings.get("align", False)}
        return self.bench.show(name) | opened | as_learnt | {self.on.heading: layout.heading(name)}

    def _begin(self, wanted: str) -> Shown:
        try:
            return {self.on.name: name_project(self.inspectors.root, wanted), self.on.start_message: ""}
        except ValueError as error:
            return {self.on.name: "", self.on.start_message: f"{error}"}

    def _go_on(self, name: str, progress: gr.Progress = gr.Progress()) -> Iterator[Shown]:  # noqa: B008
        """Learn the example, or check what was waiting when the page was closed."""
        yield {self.on.name: name}  # Gradio would empty the page after nothing
        state = self.bench.part(name).project.read() if name else State("")
        if name == EXAMPLE and state.model is None:
            yield from self.learning.learn(name, 1, align=False, progress=progress)
        elif state.model is not None and state.waiting():
            yield from self.bench.check(name)

    def _choose(self, name: str, event: gr.EventData) -> Shown:
        return self.bench.show(name, cast("str", event.key))

    def _save(self, name: str) -> Iterator[Shown]:
        on, paths = self.on, list[str]()
        project, stopped = self.bench.part(name).project, self.bench.begin_work(name)
        try:
            yield {on.files_message: LONGEST, on.files: gr.File(None, visible=False)}
            for path in save_files(project, stopped):
                paths.append(str(path))
                yield {on.files_message: f"{len(paths)} files made. {LONGEST}", on.files: gr.File(paths, visible=True)}
        except StoppedError:
            yield {on.files_message: f"Stopped. {len(paths)} files made."}
            return
        except (ValueError, RuntimeError) as error:
            yield {on.files_message: NOTHING if project.read().model is None else f"{error}"}
            return
        yield {on.files_message: f"Done. All call anomalous what is above {project.read().threshold:.2f}."}
