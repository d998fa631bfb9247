# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The page itself: what is on it, and what its buttons do with a :class:`~anomalib_htdgm.demo.session.Session`."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from time import monotonic
from typing import Any

import gradio as gr

from .session import ENOUGH_UNCHECKED, MOST_SHOTS, THRESHOLD, Session, StoppedError

TILES = {"The whole photograph at once": 1, "2 x 2 tiles": 2, "4 x 4 tiles": 4, "8 x 8 tiles": 8}
NONE = -1
"""Index of a photograph that has not been clicked on."""
HEADING = f"""
# What good looks like, learnt from a few photographs

**No pretrained weights, no network: what you drop stays on this machine.** Drop one to {MOST_SHOTS} photographs of good
parts, let them be learnt, and drop others to see whether they are good, and where not. The bricks are an example; your
first photograph takes their place.
"""
STYLE = "#results {--ratio-square: 2 / 1}"
"""Frames of the checked photographs, each of which has its heat map to its right."""
SHOWN: dict[str, Any] = {
    "object_fit": "contain",
    "fit_columns": False,
    "buttons": ["download", "fullscreen"],
    "interactive": False,
}
EMPTY = "*No photograph has been checked yet.*"
GUESS = f"""<span style="color: gray">The threshold is a guess: so few good photographs do not tell how much good ones
differ. Look through the photographs from the first on. Two more good ones, or {ENOUGH_UNCHECKED} to check that nobody
has looked at, make it firm.</span>"""


class Page:
    """The page, and the sessions of those who have it open.

    Args:
        folder (Path): Folder for photographs and results.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sessions: dict[str | None, Session] = {}

    def build(self) -> gr.Blocks:
        """Build the page, to be launched."""
        with gr.Blocks(title="Htdgm: a few good photographs", analytics_enabled=False) as blocks:
            gr.Markdown(HEADING)
            with gr.Row():
                with gr.Column():
                    self._lay_out_learning()
                with gr.Column():
                    self._lay_out_checking()
            self._connect(blocks)
        return blocks

    def _lay_out_learning(self) -> None:
        gr.Markdown(
            "## 1. Good photographs\nThe part lies alike in all of them, in the same light, and fills the picture."
        )
        self.good = gr.Gallery(label="Good", columns=5, height=170, elem_id="good", **SHOWN)
        self.chosen_good = gr.State(NONE)
        self.good_files, self.good_camera = _lay_out_sources("good")
        self.tiles = gr.Dropdown(
            list(TILES.items()),
            value=1,
            label="Look at",
            info="Tiles find defects that are small in a large photograph. They take longer.",
            elem_id="tiles",
        )
        with gr.Row():
            self.learn = gr.Button("Learn", variant="primary", elem_id="learn")
            self.stop = gr.Button("Stop", variant="stop", elem_id="stop")
            self.remove = gr.Button("Remove clicked", elem_id="remove")
        self.message = gr.Markdown(elem_id="message", min_height=90)
        gr.Markdown("## 3. Take it with you")
        self.save = gr.Button("Make checkpoint, ONNX file and table of scores", elem_id="save")
        self.files = gr.File(label="Files", file_count="multiple", interactive=False, visible=False, elem_id="files")

    def _lay_out_checking(self) -> None:
        gr.Markdown("## 2. Photographs to check\nThe heat map shows where a photograph is not like the good ones.")
        self.results = gr.Gallery(label="Checked", columns=2, height=450, elem_id="results", **SHOWN)
        self.chosen_result = gr.State(NONE)
        self.threshold = gr.Slider(0, 1, THRESHOLD, step=0.01, label="Anomalous above", elem_id="threshold")
        self.verdicts = gr.Markdown(EMPTY, elem_id="verdicts")
        self.accept = gr.Button("The clicked one is good after all: learn it, too", elem_id="accept")
        self.new_files, self.new_camera = _lay_out_sources("new")
        self.table = gr.Dataframe(interactive=False, elem_id="table")

    def _connect(self, blocks: gr.Blocks) -> None:
        """Say what happens when.

        What changes a session waits for its turn, as trainings side by side would only slow one another down; to stop
        one, and to look at another threshold, does not.
        """
        findings = [self.results, self.verdicts, self.table]
        shown = [self.message, self.good, self.threshold, *findings]
        private: dict[str, Any] = {"api_visibility": "private"}
        at_once = private | {"queue": False, "show_progress": "hidden"}
        in_turn = private | {"concurrency_id": "session", "concurrency_limit": 1, "show_progress_on": self.message}
        learning = {"fn": self._learn, "inputs": [self.tiles, self.threshold], "outputs": shown, **in_turn}

        blocks.load(self._open, self.threshold, shown, **in_turn).then(**learning)
        blocks.unload(self._close)
        for added, source, add in (
            (self.good_files.upload, self.good_files, self._add_good),
            (self.good_camera.input, self.good_camera, self._add_good),
            (self.new_files.upload, self.new_files, self._add_new),
            (self.new_camera.input, self.new_camera, self._add_new),
        ):
            interrupted = added(self._interrupt_example, None, None, **at_once)
            interrupted.then(add, [source, self.threshold], [source, *shown], **in_turn)
        self.learn.click(**learning)
        self.stop.click(self._stop, None, None, **at_once)
        self.good.select(_index, None, self.chosen_good, **at_once)
        self.remove.click(self._remove, [self.chosen_good, self.threshold], [self.chosen_good, *shown], **in_turn)
        self.results.select(_index, None, self.chosen_result, **at_once)
        accepting = [self.chosen_result, self.tiles, self.threshold]
        self.accept.click(self._accept, accepting, [self.chosen_result, *shown], **in_turn)
        self.threshold.change(self._judge, self.threshold, findings, trigger_mode="always_last", **at_once)
        self.save.click(self._save, self.threshold, [self.message, self.files], **in_turn)

    def _session(self, request: gr.Request) -> Session:
        """Find the session of a visitor; there is none yet if the server was started anew meanwhile."""
        if request.session_hash not in self._sessions:
            self._sessions[request.session_hash] = Session(Path(mkdtemp(dir=self.folder)))
        return self._sessions[request.session_hash]

    def _open(self, threshold: float, request: gr.Request) -> Sequence[Any]:
        session = self._session(request)
        session.open_example()
        return _show(session, threshold, "The example is being learnt.")

    def _close(self, request: gr.Request) -> None:
        session = self._sessions.pop(request.session_hash, None)
        if session is not None:
            session.close()

    def _interrupt_example(self, request: gr.Request) -> None:
        session = self._session(request)
        if session.is_example:
            session.stop()

    def _add_good(self, files: str | list[str] | None, threshold: float, request: gr.Request) -> Sequence[Any]:
        session = self._session(request)
        refused = session.add_good(_paths(files))
        return None, *_show(session, threshold, " ".join([*refused, f"{_count(session)}. Press *Learn*."]))

    def _add_new(self, files: str | list[str] | None, threshold: float, request: gr.Request) -> Sequence[Any]:
        session = self._session(request)
        refused = session.add_new(_paths(files))
        before = session.threshold
        session.check()
        threshold = threshold if session.threshold == before else session.threshold
        checked = f"{len(session.findings)} checked." if session.has_learnt else "Nothing has been learnt yet."
        return None, *_show(session, threshold, " ".join([*refused, checked]))

    def _learn(
        self,
        tiles: int,
        threshold: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  # Gradio looks for it among the defaults
    ) -> Sequence[Any]:
        session = self._session(request)
        begin = monotonic()

        def report(share: float) -> None:
            progress(share, desc=f"Learning. {_count(session)}" if share < 1 else "Choosing the threshold")

        try:
            session.learn(tiles, report)
        except StoppedError:
            kept = "What had been learnt before is still there." if session.has_learnt else "Nothing has been learnt."
            return _show(session, threshold, f"Stopped. {kept}")
        except ValueError as error:
            return _show(session, threshold, f"{error}")
        seconds = monotonic() - begin
        progress(1, desc="Checking")
        session.check()
        return _show(session, session.threshold, f"Learnt in {seconds:.0f} seconds. {_count(session)}.")

    def _stop(self, request: gr.Request) -> None:
        self._session(request).stop()

    def _remove(self, chosen: int, threshold: float, request: gr.Request) -> Sequence[Any]:
        session = self._session(request)
        if not 0 <= chosen < len(session.good):
            return NONE, *_show(session, threshold, "Click on one of the good photographs first.")
        session.remove_good(chosen)
        message, good, *others = _show(session, threshold, f"{_count(session)}. Press *Learn*.")
        return NONE, message, gr.Gallery(good, selected_index=None), *others

    def _accept(
        self,
        chosen: int,
        tiles: int,
        threshold: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Sequence[Any]:
        session = self._session(request)
        if not 0 <= chosen < len(session.findings):
            return NONE, *_show(session, threshold, "Click on one of the photographs that were checked first.")
        try:
            session.accept(chosen)
        except ValueError as error:
            return chosen, *_show(session, threshold, f"{error}")
        message, good, threshold, results, *others = self._learn(tiles, threshold, request, progress)
        return NONE, message, good, threshold, gr.Gallery(results, selected_index=None), *others

    def _judge(self, threshold: float, request: gr.Request) -> Sequence[Any]:
        return _show_findings(self._session(request), threshold)

    def _save(self, threshold: float, request: gr.Request) -> Sequence[Any]:
        try:
            files = self._session(request).save(threshold)
        except ValueError as error:
            return f"{error}", None
        return (
            f"Checkpoint and ONNX file, too, call anomalous what is above {threshold:.2f}.",
            gr.File([str(path) for path in files], visible=True),
        )


def _lay_out_sources(name: str) -> tuple[gr.File, gr.Image]:
    with gr.Tab("Drop photographs"):
        # Of any kind, since the page tells what is wrong with a file.
        files = gr.File(label="Add photographs", file_count="multiple", height=130, elem_id=f"{name}-files")
    with gr.Tab("Use the camera"):
        options: dict[str, Any] = {"type": "filepath", "format": "png", "show_label": False, "height": 260}
        camera = gr.Image(sources=["webcam"], elem_id=f"{name}-camera", **options)
    return files, camera


def _show(session: Session, threshold: float, message: str) -> Sequence[Any]:
    good = [(str(photograph.path), photograph.name) for photograph in session.good]
    return message, good, threshold, *_show_findings(session, threshold)


def _show_findings(session: Session, threshold: float) -> Sequence[Any]:
    """Show heat maps, highest score first, what another threshold turns from one verdict to the other, and a table."""
    findings, doubt = session.findings, "?" if session.threshold_chosen_by == "guess" else ""
    pictures = [(str(each.picture), f"{each.score:.2f} {each.verdict(threshold)}{doubt}") for each in findings]
    rows = [[each.photograph.name, round(each.score, 3), f"{each.verdict(threshold)}{doubt}"] for each in findings]
    table = {"headers": ["photograph", "score", "verdict"], "data": rows}
    if not findings:
        return pictures, EMPTY, table
    anomalous = sum(each.is_anomalous(threshold) for each in findings)
    turned = [each for each in findings if each.verdict(threshold) != each.verdict(session.threshold)]
    names = ", ".join(f"{each.photograph.name} ({each.score:.2f})" for each in turned)
    now = (
        f" {turned[0].verdict(threshold).capitalize()} now, but not at {session.threshold}: {names}." if turned else ""
    )
    count = f"**{anomalous} of {len(findings)} anomalous{doubt or '.'}**"
    return pictures, f"{count}{now}\n\n{GUESS}" if doubt else f"{count}{now}", table


def _index(event: gr.SelectData) -> int:
    return event.index


def _paths(files: str | list[str] | None) -> list[Path]:
    return [Path(each) for each in ([files] if isinstance(files, str) else files or [])]


def _count(session: Session) -> str:
    return f"{len(session.good)} good photograph{'' if len(session.good) == 1 else 's'}"
