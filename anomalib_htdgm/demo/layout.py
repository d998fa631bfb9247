# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Where everything is on the page."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio.data_classes import ListFiles

from .region_editor import PAINTED, RECTANGLE, lay_out_editor

TILES = {"The whole photograph at once": 1, "2 x 2 tiles": 2, "4 x 4 tiles": 4, "8 x 8 tiles": 8}
REMOVE = "Remove clicked"
STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
CAMERA = (
    "() => isSecureContext ? '' : 'Browsers give a page the camera only over https, or at http://localhost on the "
    "machine that serves it. This page came by plain http: drop photographs instead, or open it in one of these ways.'"
)
"""What is said where there is no camera: browsers say nothing."""
GO_TO = "(name) => {if (name) window.location.search = '?project=' + encodeURIComponent(name)}"
KEYS = """() => document.addEventListener('keydown', event => {
  const button = {g: 'say-good', d: 'say-defective', s: 'skip', z: 'take-back'}[event.key]
  const types = event.ctrlKey || event.metaKey || event.altKey || event.target.closest('input, textarea, select')
  if (button && !types) document.getElementById(button)?.click()
})"""
"""Keys press buttons, but not while something is typed."""
CLICKED = """element.addEventListener('click', event => {
  const clicked = event.target.closest('[data-key]')
  if (clicked) trigger('click', {key: clicked.dataset.key})
})"""
SOURCES = ("good_files", "new_files", "good_camera", "new_camera", "good_camera_note", "new_camera_note")
"""Components that are emptied once what they got is in the project."""


def heading(name: str = "") -> str:
    """Head the page."""
    if name:
        return f"# {name}\n[All projects](?)"
    return (
        "# What good looks like, learnt from a few photographs\n**No pretrained weights, no network: what you drop "
        "stays on this machine.** A project keeps the photographs of one part, and what was learnt and decided."
    )


def lay_out() -> SimpleNamespace:
    """Put everything on the page, and return it by name."""
    on = SimpleNamespace()
    on.name, on.chosen = (gr.Textbox(visible="hidden", elem_id=name) for name in ("name", "chosen"))
    on.heading = gr.Markdown(heading(), elem_id="heading")
    with gr.Column(elem_id="start") as on.start:
        on.projects = gr.HTML(elem_id="projects")
        with gr.Row(equal_height=True):
            on.new_name = gr.Textbox(label="A new project", placeholder="Name of the part", elem_id="new-name")
            on.begin = gr.Button("Begin", variant="primary", elem_id="begin")
        on.start_message = gr.Markdown(elem_id="start-message")
    with gr.Row(elem_id="job", visible=False) as on.job:
        with gr.Column(elem_id="one"):
            _lay_out_learning(on)
        with gr.Column(elem_id="two"):
            _lay_out_checking(on)
        with gr.Column(elem_id="three"):
            gr.Markdown("## 3. Take it with you")
            on.save = gr.Button("Make report, table, checkpoint and ONNX file", elem_id="save")
            on.files_message = gr.Markdown(elem_id="files-message")
            on.files = gr.File(label="Files", file_count="multiple", interactive=False, visible=False, elem_id="files")
    return on


def _lay_out_learning(on: SimpleNamespace) -> None:
    gr.Markdown(
        "## 1. Good photographs\nThe part lies alike in all of them, in the same light, and fills the picture.",
    )
    on.good = gr.HTML(elem_id="good", js_on_load=CLICKED)
    on.good_files, on.good_camera, on.good_camera_note = _lay_out_sources("good")
    with gr.Accordion("Where and how to look", open=False, elem_id="how") as on.how:
        on.tiles = gr.Dropdown(
            list(TILES.items()),
            value=1,
            label="Look at",
            info="Tiles find small defects, and take longer.",
            elem_id="tiles",
        )
        on.align = gr.Checkbox(
            label="Parts lie shifted: move each photograph to where the first good one lies", elem_id="align"
        )
        on.editor = lay_out_editor()
        on.kind = gr.Radio([RECTANGLE, PAINTED], value=PAINTED, show_label=False, elem_id="kind")
        with gr.Row():
            on.look_here = gr.Button("Look there alone", size="sm", elem_id="look-here", min_width=110)
            on.look_everywhere = gr.Button("Look everywhere", size="sm", elem_id="look-everywhere", min_width=110)
    with gr.Row():
        on.learn = gr.Button("Learn", variant="primary", elem_id="learn", min_width=90)
        on.stop = gr.Button("Stop", variant="stop", elem_id="stop", min_width=90)
        on.remove = gr.Button(REMOVE, elem_id="remove", size="sm", min_width=110)
    on.message = gr.Markdown(elem_id="message", min_height=50)


def _lay_out_checking(on: SimpleNamespace) -> None:
    gr.Markdown("## 2. Photographs to check")
    on.threshold = gr.Slider(0, 1, 0.5, step=0.01, label="Anomalous above", buttons=[], elem_id="threshold")
    on.expectation = gr.Markdown(elem_id="expectation")
    on.other_threshold = gr.Button(visible=False, size="sm", elem_id="other-threshold")
    on.detail = gr.HTML(elem_id="detail")
    with gr.Row():
        on.say_good = gr.Button("Good (g)", elem_id="say-good", size="sm", min_width=80)
        on.say_defective = gr.Button("Defective (d)", elem_id="say-defective", size="sm", min_width=80)
        on.skip = gr.Button("Skip (s)", elem_id="skip", size="sm", min_width=80)
        on.take_back = gr.Button("Take back (z)", elem_id="take-back", size="sm", min_width=80)
        on.accept = gr.Button("Good: learn it now", elem_id="accept", size="sm", min_width=80)
    on.results = gr.HTML(elem_id="results", js_on_load=CLICKED)
    on.new_message = gr.Markdown(elem_id="new-message")
    on.new_files, on.new_camera, on.new_camera_note = _lay_out_sources("new")


def _lay_out_sources(name: str) -> tuple[gr.File, gr.Image, gr.Markdown]:
    with gr.Tab("Drop photographs"):
        # Of any kind, since the page tells what is wrong with a file.
        files = gr.File(label="Add photographs", file_count="multiple", height=116, elem_id=f"{name}-files")
        # Gradio's own leaves an empty file behind for each that it gets.
        files.preprocess = _paths_of  # type: ignore[method-assign, assignment]
    with gr.Tab("Use the camera"):
        note = gr.Markdown(elem_id=f"{name}-camera-note")
        options: dict[str, Any] = {"type": "filepath", "format": "png", "show_label": False, "height": 260}
        camera = gr.Image(sources=["webcam"], image_mode=None, elem_id=f"{name}-camera", **options)
    return files, camera, note


def _paths_of(payload: ListFiles | None) -> list[str]:
    return [each.path for each in payload.root] if payload else []
