# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A project is kept whatever ends a process, and whoever else changes it."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from anomalib_htdgm.inspection import writing
from anomalib_htdgm.inspection.facts import Facts, Finding
from anomalib_htdgm.inspection.project import FILE, Project, list_projects

FOUND = Finding(score=0.1, raw=0.2, verdict="good", faults=["It is blurred."])


def facts(digest: str) -> Facts:
    return Facts(digest, "", {}, {"region": [0.0, 0.0, 0.5, 0.5]}, {}, "guess", 0.5, 2.0, 4.0, 1.0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "Jürgen 1.png"
    path.write_bytes(b"pixels")
    return path


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "projects" / "bottle")


def test_photographs_and_decisions_are_there_after_a_restart(project: Project, source: Path) -> None:
    assert project.read().photographs == {}
    keys = [project.add(source, "checked") for _ in range(2)]
    project.decide(keys[0], "good")
    again = Project(project.folder)
    state = again.read()
    assert keys == ["checked/Jürgen 1.png", "checked/Jürgen 1 (2).png"]
    assert [each.name for each in state.photographs.values()] == ["Jürgen 1.png"] * 2
    assert [again.path_of(each).read_bytes() for each in state.photographs.values()] == [b"pixels"] * 2
    assert state.good().keys() == {keys[0]}
    assert "Jürgen" in (project.folder / FILE).read_text(encoding="utf-8")  # a person can read it
    assert [each.folder for each in list_projects(project.folder.parent)] == [project.folder]


def test_every_decision_can_be_taken_back(project: Project, source: Path) -> None:
    good, checked = project.add(source, "good"), project.add(source, "checked")
    for key, decision in ((checked, "good"), (good, "defective"), (checked, "skip")):
        project.decide(key, decision)
    assert project.read().good() == {}
    project.decide(good, None)
    assert project.read().good().keys() == {good}
    before = []
    while key := project.take_back():
        before.append((key, project.read().photographs[key].decision))
    assert before == [(good, "defective"), (checked, "good"), (good, None), (checked, None)]
    assert project.read().good().keys() == {good}


def test_two_that_change_one_project_do_not_undo_each_other(project: Project, source: Path) -> None:
    tabs = [Project(project.folder) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        keys = list(pool.map(lambda number: tabs[number % 4].add(source, "checked"), range(20)))
        list(pool.map(lambda key: tabs[len(key) % 4].decide(key, "good"), keys))
    assert len(set(keys)) == 20
    assert all(tab.read().good().keys() == set(keys) for tab in tabs)  # whoever has changed it last


def test_what_fails_half_way_leaves_all_as_it_was(
    project: Project, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = project.add(source, "good")
    before = {path: path.read_bytes() for path in project.folder.rglob("*") if path.is_file()}

    def fail(_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writing.os, "fsync", fail)
        with pytest.raises(OSError, match="No space"):
            project.decide(key, "defective")
    with pytest.raises(KeyError):
        project.decide("good/none.png", "good")
    with pytest.raises(ValueError, match=r"^decision: got 'bad'; allowed are"):
        project.decide(key, "bad")
    assert {path: path.read_bytes() for path in project.folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["../other.png", "/etc/passwd", "a/../../b.png", ""])
def test_no_name_leads_out_of_the_folder(project: Project, source: Path, name: str) -> None:
    if name:
        with pytest.raises(ValueError, match=r"^name: got "):
            project.add(source, "good", name)
    else:
        assert project.add(source, "good", name) == f"good/{source.name}"


def test_findings_of_another_model_do_not_count(project: Project, source: Path) -> None:
    key = project.add(source, "checked")
    assert not project.note_finding(key, FOUND, "one")
    project.note_model(facts("one"))
    assert project.note_finding(key, FOUND, "one")
    assert not project.read().waiting()
    project.move_threshold(0.7)
    project.note_model(facts("one"))
    assert project.read().threshold == 0.7  # it is the same model: all stays
    project.note_model(facts("two"))
    assert project.read().waiting().keys() == {key}
    assert not project.note_finding(key, FOUND, "one")
    project.remove(key)
    assert not project.note_finding(key, FOUND, "two")
    assert not project.read().photographs


@pytest.mark.parametrize("content", ["{", "[]", "{}", json.dumps({"format": 2, "photographs": {}})])
def test_a_file_of_another_make_is_refused_by_name(project: Project, content: str) -> None:
    project.folder.mkdir(parents=True)
    (project.folder / FILE).write_text(content)
    with pytest.raises(ValueError, match=rf"{FILE}: .*allowed is"):
        project.read()
