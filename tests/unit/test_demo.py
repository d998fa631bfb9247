# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What is behind the page: which files are taken, what is learnt, and what is shown of it."""

import os
import socket
import sys
from pathlib import Path
from threading import Event

import pytest
from PIL import Image

from anomalib_htdgm.demo.__main__ import main
from anomalib_htdgm.demo.inspectors import Inspectors
from anomalib_htdgm.demo.part import Part, name_project, write_example
from anomalib_htdgm.demo.region_editor import PAINTED, RECTANGLE, editor_value, region_of
from anomalib_htdgm.demo.views import draw, show_good, show_projects, show_results
from anomalib_htdgm.inspection.project import Project
from anomalib_htdgm.inspection.sentences import advise
from anomalib_htdgm.inspection.watching import StoppedError

from .parts import basis, check, learn, open_again


def test_a_file_is_left_out_in_one_sentence(part: Part, photographs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    Image.new("RGB", (200, 100), "red").save(tmp_path / "wide.png")
    Image.new("RGB", (200, 10)).save(tmp_path / "thin.png")
    bad = [tmp_path / name for name in ("notes.txt", "wide.png", "thin.png")]
    refused = part.add([photographs[0], *bad, photographs[1]], "good")
    assert [sentence.partition(" cannot")[0].partition(" has")[0] for sentence in refused] == [
        f"image {path.name}" for path in bad
    ]
    assert str(tmp_path) not in " ".join(refused)
    assert list(part.project.read().good()) == ["good/part 0.png", "good/part 1.png"]
    assert len(part.add([bad[0], bad[1]], "checked")) == 1  # what is to be checked may have any shape


@pytest.mark.parametrize("name", ["", "  ", "..", ".hidden", "a/b", "a\\b", "x" * 61, "nul\0"])
def test_a_project_is_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"^name: got "):
        name_project(tmp_path, name)
    with pytest.raises(KeyError):
        Inspectors(tmp_path).find(name)


def test_another_tab_and_another_server_know_all(part: Part, photographs: list[Path]) -> None:
    learn(part, *photographs[:3])
    scores = check(part, *photographs[3:5])
    other = open_again(part.project.folder.parent, part.project.folder.name)
    assert check(other, photographs[5]).items() > scores.items()
    part.project.decide("checked/part 3.png", "skip")
    other.project.decide("checked/part 4.png", "skip")
    state = part.project.read()
    assert [each.decision for each in state.checked().values()] == ["skip", "skip", None]
    _, detail, row = show_results("part", state, "")
    assert row.name == "part 5.png"
    assert "1 left to review" in detail
    assert show_results("part", state, "checked/part 3.png")[2].name == "part 3.png"


def test_names_do_not_become_html(part: Part, photographs: list[Path]) -> None:
    part.project.add(photographs[0], "good", "<b>'.png")
    part.project.add(photographs[1], "checked", '<b>".png')
    state = part.project.read()
    shown = show_good("<b>", state, "") + "".join(show_results("<b>", state, "")[:2])
    assert "<b>" not in shown + show_projects([part.project]).replace("<b>Jürgen", "")


def test_nothing_can_be_learnt_of_nothing(part: Part, photographs: list[Path]) -> None:
    with pytest.raises(ValueError, match="There is no good photograph to learn from"):
        part.learn(1, lambda _: None, Event())
    check(part, photographs[0])
    assert [row.verdict for row in part.project.read().rows()] == [""]


def test_what_was_stopped_goes_on(part: Part, photographs: list[Path]) -> None:
    learn(part, photographs[0])
    before = part.project.read().model
    part.add(photographs[1:2], "good")
    for when in (0, 1):  # at once, and while it chooses the threshold
        stopped = Event()
        with pytest.raises(StoppedError):
            part.learn(1, lambda share: stopped.set() if share >= when else None, stopped)  # noqa: B023
        assert part.project.read().model == before
    part.add(photographs[2:6], "checked")
    stopped = Event()
    checking = part.check(stopped)
    assert [next(checking), next(checking)] == [(1, 4), (2, 4)]
    stopped.set()
    with pytest.raises(StoppedError):
        next(checking)
    assert len(part.project.read().waiting()) == 2
    check(part)
    assert part.project.read().waiting() == {}


def test_copies_are_said_to_be_copies(part: Part, photographs: list[Path]) -> None:
    learn(part, photographs[0], photographs[0], photographs[1])
    assert advise(part.project.read()) == [
        "part 0 (2).png and part 0.png are copies of one photograph, and tell nothing of how much good ones differ."
    ]
    assert basis(part) == "guess"


def test_a_photograph_is_no_copy_of_itself(part: Part, photographs: list[Path]) -> None:
    learn(part, photographs[0])
    with part.inspectors.of(part.project) as inspector:
        found = [inspector.inspect(photographs[2], name).finding.copy for name in ("one", "one", "another")]
    assert found == ["", "", "It is a copy of one."]


def test_pictures_follow_the_threshold(part: Part, photographs: list[Path]) -> None:
    learn(part, *photographs[:2])
    check(part, photographs[2])
    drawn = []
    for threshold in (0.05, 0.2):
        part.project.move_threshold(threshold)
        drawn.append(draw(part.inspectors, part.project, "checked/part 2.png", "heat", large=True))
    assert drawn[0] != drawn[1]
    part.project.move_threshold(1.0)
    with pytest.raises(KeyError):  # of a good one there is no heat map
        draw(part.inspectors, part.project, "checked/part 2.png", "heat", large=True)
    assert advise(part.project.read()) == []
    part.project.decide("checked/part 2.png", "defective")
    assert advise(part.project.read()) == [
        "You called part 2.png defective; by the present threshold the verdict is good."
    ]


@pytest.mark.thorough
def test_all_broken_bricks_of_the_example_are_found(tmp_path: Path) -> None:
    inspectors = Inspectors(tmp_path)
    part = Part(write_example(tmp_path), inspectors)
    part.learn(1, lambda _: None, Event())
    list(part.check(Event()))
    verdicts = {row.name: row.verdict for row in Project(part.project.folder).read().rows()}
    assert sorted(verdicts) == [f"{kind} {index:03}.png" for kind in ("defect", "good") for index in (0, 7, 14)]
    assert {name for name, verdict in verdicts.items() if verdict == "anomalous"} == {
        name for name in verdicts if name.startswith("defect")
    }
    assert set(verdicts.values()) == {"anomalous", "good"}


def test_what_is_painted_is_looked_at(part: Part, photographs: list[Path]) -> None:
    assert editor_value(part.project) is None
    learn(part, *photographs[:2])
    shown = editor_value(part.project)
    assert not shown["layers"][0].any()
    for kind in (RECTANGLE, PAINTED):
        with pytest.raises(ValueError, match="Nothing is painted"):
            region_of(shown, kind)
    shown["layers"][0][10:40, 20:60] = 255
    assert region_of(shown, RECTANGLE) == pytest.approx([20 / 64, 10 / 64, 60 / 64, 40 / 64], abs=1 / 64)
    with part.project.changing() as state:
        state.settings["region"] = region_of(shown, PAINTED)
    learn(part)
    assert part.project.read().model.settings["region"] == region_of(shown, PAINTED)
    assert (editor_value(part.project)["layers"][0][..., 3] > 0).mean() == pytest.approx(30 * 40 / 64**2, abs=0.05)
    shown["layers"][0][:] = 0
    shown["layers"][0][:3, :3] = 255
    with pytest.raises(ValueError, match="Too little is painted"):
        region_of(shown, PAINTED)


def test_what_cannot_be_served_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for options, said in (
            (["--port", port], f"--host, --port: got 127.0.0.1 and {port}; allowed are an address of"),
            (["--projects", str(tmp_path / "file" / "below")], "--projects: got "),
        ):
            monkeypatch.setattr(sys, "argv", ["demo", "--no-browser", "--projects", str(tmp_path / "root"), *options])
            with pytest.raises(SystemExit, match=f"^{said}"):
                main()
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SystemExit, match=r"^The page needs Gradio: pip install"):
        main()
    assert "GRADIO_TEMP_DIR" not in os.environ
