# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The page itself: what is on it, and what its buttons do with a :class:`~anomalib_htdgm.demo.session.Session`."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from time import monotonic
from typing import Any

import gradio as gr
from gradio.data_classes import ListFiles

from .photographs import Photograph
from .session import ENOUGH_UNCHECKED, MOST_SHOTS, THRESHOLD, Finding, Session, StoppedError, name_few

TILES = {"The whole photograph at once": 1, "2 x 2 tiles": 2, "4 x 4 tiles": 4, "8 x 8 tiles": 8}
SECONDS_PER_SHOW = 0.5
"""Seconds between two results that are shown as they come: to draw each would slow others down."""
Shown = dict[Any, Any]
"""What components of the page become."""
HEADING = f"""
# What good looks like, learnt from a few photographs

**No pretrained weights, no network: what you drop stays on this machine.** Drop one to {MOST_SHOTS} photographs of good
parts, let them be learnt, and drop others to see whether they are good, and where not. The bricks are an example; your
first photograph takes their place.
"""
REMOVE = "Remove clicked"
ACCEPT = "The clicked one is good after all: learn it, too"
CAMERA = (
    "() => isSecureContext ? '' : 'Browsers give a page the camera only over https, or at http://localhost on the "
    "machine that serves it. This page came by plain http: drop photographs instead, or open it in one of these ways.'"
)
"""What is said where there is no camera: browsers say nothing."""
STYLE = "#results {--ratio-square: 2 / 1}"
"""Frames of the checked photographs, each of which has its heat map to its right."""
SHOWN: dict[str, Any] = {
    "object_fit": "contain",
    "fit_columns": False,
    "buttons": ["download", "fullscreen"],
    "interactive": False,
}
NOTHING = "Nothing has been learnt yet."
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
        gr.set_static_paths(self.folder)  # else Gradio would copy each picture, to where none goes with its session
        upkeep = (3600, 3600)  # seconds; for what Gradio keeps all the same
        with gr.Blocks(title="Htdgm: a few good photographs", analytics_enabled=False, delete_cache=upkeep) as blocks:
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
        self.chosen_good = gr.State("")
        self.good_files, self.good_camera, self.good_camera_note = _lay_out_sources("good")
        self.good_message = gr.Markdown(elem_id="good-message")
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
            self.remove = gr.Button(REMOVE, elem_id="remove")
        self.message = gr.Markdown(elem_id="message", min_height=90)
        gr.Markdown("## 3. Take it with you")
        self.save = gr.Button("Make checkpoint, ONNX file and table of scores", elem_id="save")
        self.files_message = gr.Markdown(elem_id="files-message")
        self.files = gr.File(label="Files", file_count="multiple", interactive=False, visible=False, elem_id="files")

    def _lay_out_checking(self) -> None:
        gr.Markdown("## 2. Photographs to check\nThe heat map shows where a photograph is not like the good ones.")
        self.results = gr.Gallery(label="Checked", columns=2, height=450, elem_id="results", **SHOWN)
        self.chosen_result = gr.State("")
        self.threshold = gr.Slider(0, 1, THRESHOLD, step=0.01, label="Anomalous above", elem_id="threshold")
        self.verdicts = gr.Markdown(EMPTY, elem_id="verdicts")
        self.other_threshold = gr.Button(visible=False, size="sm", elem_id="other-threshold")
        self.accept = gr.Button(ACCEPT, elem_id="accept")
        self.new_files, self.new_camera, self.new_camera_note = _lay_out_sources("new")
        self.new_message = gr.Markdown(elem_id="new-message")
        self.table = gr.Dataframe(interactive=False, elem_id="table")

    def _connect(self, blocks: gr.Blocks) -> None:
        """Say what happens when.

        What changes a session waits for its turn, as trainings side by side would only slow one another down; to stop
        one, to take files, and to look at another threshold, does not.
        """
        judged = [self.results, self.verdicts, self.table, self.other_threshold]
        shown = [*judged, self.threshold, self.chosen_result, self.accept, self.good, self.chosen_good, self.remove]
        shown += [self.message, self.good_message, self.new_message]
        private: dict[str, Any] = {"api_visibility": "private"}
        at_once = private | {"queue": False, "show_progress": "hidden"}
        in_turn = private | {"outputs": shown, "concurrency_id": "session", "concurrency_limit": 1}
        left, right = ({"show_progress_on": each, **in_turn} for each in (self.message, self.new_message))
        learning = {"fn": self._learn, "inputs": self.tiles, **left}

        blocks.load(self._open, None, **left).then(**learning)
        for note in (self.good_camera_note, self.new_camera_note):
            blocks.load(None, None, note, js=CAMERA)
        blocks.unload(self._close)
        for added, source, receive, add, where in (
            (self.good_files.upload, self.good_files, self._receive_good, self._add_good, left),
            (self.good_camera.input, self.good_camera, self._receive_good, self._add_good, left),
            (self.new_files.upload, self.new_files, self._receive_new, self._add_new, right),
            (self.new_camera.input, self.new_camera, self._receive_new, self._add_new, right),
        ):
            added(receive, source, source, **at_once).then(add, None, **where)
        self.learn.click(**learning)
        self.stop.click(self._stop, None, None, **at_once)
        self.good.select(self._choose_good, None, [self.chosen_good, self.remove], **at_once)
        self.remove.click(self._remove, self.chosen_good, **left)
        self.results.select(self._choose_result, None, [self.chosen_result, self.accept], **at_once)
        self.accept.click(self._accept, [self.chosen_result, self.tiles], **left)
        # Not by `change`, which is of the server's making, too; the button to reset the slider is a `release` alone.
        for moved in (self.threshold.input, self.threshold.release):
            moved(self._judge, self.threshold, judged, trigger_mode="always_last", **at_once)
        self.other_threshold.click(self._use_other_threshold, None, **right)
        saving = {**in_turn, "outputs": [self.files_message, self.files], "show_progress_on": self.files_message}
        self.save.click(self._save, None, **saving)

    def _session(self, request: gr.Request) -> Session:
        """Find the session of a visitor; there is none yet if the server was started anew meanwhile."""
        if request.session_hash not in self._sessions:
            self._sessions[request.session_hash] = Session(Path(mkdtemp(dir=self.folder)))
        return self._sessions[request.session_hash]

    def _open(self, request: gr.Request) -> Shown:
        session = self._session(request)
        session.open_example()
        return self._show(session) | {self.message: "The example is being learnt."}

    def _close(self, request: gr.Request) -> None:
        session = self._sessions.pop(request.session_hash, None)
        if session is not None:
            session.close()

    def _receive_good(self, files: str | list[str] | None, request: gr.Request) -> None:
        self._receive("good", files, request)

    def _receive_new(self, files: str | list[str] | None, request: gr.Request) -> None:
        self._receive("new", files, request)

    def _receive(self, role: str, files: str | list[str] | None, request: gr.Request) -> None:
        """Take files from where Gradio would leave them, and break off the example, which they replace."""
        session = self._session(request)
        if session.is_example:
            session.stop()
        paths = [Path(each) for each in ([files] if isinstance(files, str) else files or [])]
        session.receive(role, paths, from_camera=isinstance(files, str))

    def _add_good(self, request: gr.Request) -> Shown:
        session = self._session(request)
        files = session.take("good")
        refused = session.add_good(files)
        _delete(files)
        said = [*_shorten(refused), f"{_count(session)}. Press *Learn*.", session.describe_copies()]
        nothing = {} if session.has_learnt else {self.message: NOTHING}
        return self._show(session) | {self.good_message: " ".join(said)} | nothing

    def _add_new(self, request: gr.Request) -> Iterator[Shown]:
        session = self._session(request)
        files = session.take("new")
        refused = " ".join(_shorten(session.add_new(files)))
        _delete(files)
        yield from self._check(session, refused)

    def _check(self, session: Session, refused: str = "") -> Iterator[Shown]:
        """Check what waits, and show results as they come."""
        shown_at = monotonic()
        try:
            for number, of in session.checking():
                if monotonic() - shown_at > SECONDS_PER_SHOW:
                    yield self._show_findings(session) | {self.new_message: f"{refused} Checking: {number} of {of}."}
                    shown_at = monotonic()
        except StoppedError:
            refused += " Stopped."
        until = "press *Learn* to go on." if session.has_learnt else "drop good ones in 1. and press *Learn*."
        kept = f"{_plural(len(session.waiting), 'photograph')} kept and waiting: {until}" if session.waiting else ""
        said = {self.new_message: f"{refused} {len(session.findings)} checked. {kept}"}
        yield self._show(session) | said | ({} if session.has_learnt else {self.message: NOTHING})

    def _learn(
        self,
        tiles: int,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  # Gradio looks for it among the defaults
    ) -> Iterator[Shown]:
        session = self._session(request)
        begin = monotonic()
        yield {self.message: f"Learning. {_count(session)}."}

        def report(share: float) -> None:
            progress(share, desc=f"Learning. {_count(session)}" if share < 1 else "Choosing the threshold")

        try:
            session.learn(tiles, report)
        except StoppedError:
            kept = "What had been learnt before is still there." if session.has_learnt else NOTHING
            yield self._show(session) | {self.message: f"Stopped. {kept}"}
            return
        except ValueError as error:
            yield self._show(session) | {self.message: f"{error}"}
            return
        basis = "a guess" if session.threshold_chosen_by == "guess" else f"chosen by {session.threshold_chosen_by}"
        said = f"Learnt in {monotonic() - begin:.0f} seconds. {_count(session)}. The threshold is {basis}."
        learnt = {self.message: said, self.good_message: session.describe_copies()}
        if session.waiting:
            yield self._show(session) | learnt | {self.new_message: f"Checking: 0 of {len(session.waiting)}."}
        for checked in self._check(session):
            yield checked | learnt

    def _stop(self, request: gr.Request) -> None:
        self._session(request).stop()

    def _choose_good(self, event: gr.SelectData, request: gr.Request) -> Shown:
        chosen = event.value["image"]["path"]
        photograph = _find_good(self._session(request), chosen)
        return {self.chosen_good: chosen, self.remove: f"Remove {photograph.name}" if photograph else REMOVE}

    def _choose_result(self, event: gr.SelectData, request: gr.Request) -> Shown:
        chosen = event.value["image"]["path"]
        finding = _find_result(self._session(request), chosen)
        text = f"{finding.photograph.name} is good after all: learn it, too" if finding else ACCEPT
        return {self.chosen_result: chosen, self.accept: text}

    def _remove(self, chosen: str, request: gr.Request) -> Shown:
        session = self._session(request)
        photograph = _find_good(session, chosen)
        if photograph is None:
            return {self.message: "Click on one of the good photographs first."}
        session.remove_good(photograph)
        said = f"Removed {photograph.name}. {_count(session)}. Press *Learn*."
        return self._show(session) | {self.message: said, self.good_message: session.describe_copies()}

    def _accept(
        self,
        chosen: str,
        tiles: int,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[Shown]:
        session = self._session(request)
        finding = _find_result(session, chosen)
        if finding is None:
            yield {self.message: "Click on one of the photographs that were checked first."}
            return
        try:
            session.accept(finding)
        except ValueError as error:
            yield {self.message: f"{error}"}
            return
        yield self._show(session) | {self.message: f"{finding.photograph.name} is being learnt, too."}
        yield from self._learn(tiles, request, progress)

    def _judge(self, threshold: float, request: gr.Request) -> Shown:
        session = self._session(request)
        session.move_threshold(threshold)
        return self._show_verdicts(session)

    def _use_other_threshold(self, request: gr.Request) -> Shown:
        session = self._session(request)
        session.use_unchecked(use=session.threshold_chosen_by != "unlabelled images")
        return self._show(session)

    def _save(self, request: gr.Request) -> Iterator[Shown]:
        session = self._session(request)
        paths: list[str] = []
        threshold = session.threshold
        try:
            yield {self.files_message: "0 of 3 files made.", self.files: gr.File(None, visible=False)}
            for path in session.saving(threshold):
                paths.append(str(path))
                made = f"{len(paths)} of 3 files made. The ONNX file takes longest."
                yield {self.files_message: made, self.files: gr.File(paths, visible=True)}
        except StoppedError:
            yield {self.files_message: f"Stopped. {len(paths)} of 3 files made."}
            return
        except (ValueError, RuntimeError) as error:
            yield {self.files_message: f"{error}"}
            return
        yield {self.files_message: f"Checkpoint and ONNX file, too, call anomalous what is above {threshold:.2f}."}

    def _show(self, session: Session) -> Shown:
        """Show all photographs; nothing is clicked on any more, as places may have changed."""
        good = [(str(photograph.path), photograph.name) for photograph in session.good]
        shown = {self.good: gr.Gallery(good, selected_index=None), self.chosen_good: "", self.remove: REMOVE}
        return shown | self._show_findings(session)

    def _show_findings(self, session: Session) -> Shown:
        """Show what has been checked; nothing of it is clicked on any more."""
        verdicts = self._show_verdicts(session)
        results = gr.Gallery(verdicts[self.results], selected_index=None)
        chosen = {self.chosen_result: "", self.accept: ACCEPT, self.threshold: session.threshold}
        return verdicts | chosen | {self.results: results}

    def _show_verdicts(self, session: Session) -> Shown:
        """Show heat maps, highest score first, what the user's threshold turns from one verdict to another, a table."""
        findings, threshold = session.findings, session.threshold
        doubt = "?" if session.threshold_chosen_by == "guess" else ""
        pictures = [(str(each.picture), f"{each.score:.2f} {each.verdict(threshold)}{doubt}") for each in findings]
        rows = [
            [each.photograph.name, round(each.score, 3), f"{each.verdict(threshold)}{doubt}", each.reason]
            for each in findings
        ]
        rows += [[photograph.name, None, "waits", ""] for photograph in session.waiting]
        return {
            self.results: pictures,
            self.verdicts: f"{_summarize(findings, threshold, doubt)}\n\n{session.note}",
            self.table: {"headers": ["photograph", "score", "verdict", "reason"], "data": rows},
            self.other_threshold: _offer_other_threshold(session),
        }


def _lay_out_sources(name: str) -> tuple[gr.File, gr.Image, gr.Markdown]:
    with gr.Tab("Drop photographs"):
        # Of any kind, since the page tells what is wrong with a file.
        files = gr.File(label="Add photographs", file_count="multiple", height=130, elem_id=f"{name}-files")
        # Gradio's own leaves an empty file behind for each that it gets.
        files.preprocess = _paths  # type: ignore[method-assign, assignment]
    with gr.Tab("Use the camera"):
        note = gr.Markdown(elem_id=f"{name}-camera-note")
        options: dict[str, Any] = {"type": "filepath", "format": "png", "show_label": False, "height": 260}
        camera = gr.Image(sources=["webcam"], image_mode=None, elem_id=f"{name}-camera", **options)
    return files, camera, note


def _paths(payload: ListFiles | None) -> list[str]:
    return [each.path for each in payload.root] if payload else []


def _summarize(findings: Sequence[Finding], threshold: float, doubt: str) -> str:
    if not findings:
        return EMPTY
    anomalous = sum(each.is_anomalous(threshold) for each in findings)
    turned = [each for each in findings if each.verdict(threshold) != each.verdict(THRESHOLD)]
    now = ""
    if turned:
        names = name_few([f"{each.photograph.name} ({each.score:.2f})" for each in turned])
        now = f" {turned[0].verdict(threshold).capitalize()} now, but not at {THRESHOLD}: {names}."
    count = f"**{anomalous} of {len(findings)} anomalous{doubt or '.'}**{now}"
    unlike = [f"{each.photograph.name}: {each.reason}" for each in findings if each.reason]
    if unlike:
        count = f"{count}\n\n**Look at {_plural(len(unlike), 'photograph')} yourself.** {name_few(unlike)}."
    return f"{count}\n\n{GUESS}" if doubt else count


def _offer_other_threshold(session: Session) -> Any:  # noqa: ANN401
    """Offer to undo the choice of the threshold, where there are two to choose from."""
    is_of_unchecked = session.threshold_chosen_by == "unlabelled images"
    to = "Undo: the threshold of the good photographs" if is_of_unchecked else "The threshold of those to check instead"
    return gr.Button(to, visible=session.has_choice)


def _find_good(session: Session, path: str) -> Photograph | None:
    return next((each for each in session.good if str(each.path) == path), None)


def _find_result(session: Session, path: str) -> Finding | None:
    return next((each for each in session.findings if str(each.picture) == path), None)


def _delete(paths: Sequence[Path]) -> None:
    for path in paths:
        with suppress(OSError):  # no reason to fail; it goes with the session
            path.unlink()


def _shorten(sentences: Sequence[str], most: int = 3) -> list[str]:
    """Keep the first of many refusals, and count the others."""
    more = len(sentences) - most
    return [*sentences[:most], f"And {more} more files were left out."] if more > 1 else [*sentences]


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _count(session: Session) -> str:
    return _plural(len(session.good), "good photograph")
