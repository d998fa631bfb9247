# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The file of benchmark results loses no row and repeats none, whoever writes and whatever kills them."""

import csv
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from shared.rows import Results

SPAWN = multiprocessing.get_context("spawn")


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_come_back_and_their_runs_are_nobodys(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.csv")
    with results.claim("a") as ours:
        assert ours
        results.append({"key": "a", "training_images": 'good/1,"2".png', "shots": 1})
    results.append({"key": "b", "image_AUROC": 0.5})
    assert results.keys() == {"a", "b"}
    cells = [(row["key"], row["training_images"], row["shots"]) for row in read(results.path)]
    assert cells == [("a", 'good/1,"2".png', "1"), ("b", "", "")]
    with results.claim("a") as ours:
        assert not ours


@pytest.mark.parametrize("left", [0, 1, -40, -1])
def test_what_is_left_of_a_torn_row_is_cut_off(tmp_path: Path, left: int) -> None:
    results = Results(tmp_path / "results.csv")
    results.append({"key": "a"})
    complete = results.path.stat().st_size
    results.append({"key": "b", "configuration": "x" * 100})
    row = results.path.stat().st_size - complete
    os.truncate(results.path, complete + left % row)
    assert results.keys() == {"a"}
    results.append({"key": "c"})
    assert [row["key"] for row in read(results.path)] == ["a", "c"]


def test_a_file_of_other_columns_is_left_alone_and_no_run_of_it_begins(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("key,colour\na,blue\n")
    message = r"results: .* has the columns key, colour; needed are key, dataset"
    with pytest.raises(ValueError, match=message):
        Results(path).append({"key": "b"})
    with pytest.raises(ValueError, match=message), Results(path).claim("b"):
        pytest.fail("the run began")
    assert path.read_text() == "key,colour\na,blue\n"


def append_many(path: Path, writer: int) -> None:
    for index in range(10):
        Results(path).append({"key": f"{writer}-{index}", "configuration": "x" * 5000})


def test_several_processes_append(tmp_path: Path) -> None:
    writers = [SPAWN.Process(target=append_many, args=(tmp_path / "results.csv", index)) for index in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    rows = read(tmp_path / "results.csv")
    assert sorted(row["key"] for row in rows) == sorted(
        f"{writer}-{index}" for writer in range(3) for index in range(10)
    )
    assert {row["configuration"] for row in rows} == {"x" * 5000}


def claim_for_ever(path: Path, told: Connection) -> None:
    with Results(path).claim("a") as ours:
        told.send(ours)
        signal.pause()


def test_a_run_belongs_to_one_process_until_that_is_killed(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.csv")
    ours, theirs = SPAWN.Pipe()
    other = SPAWN.Process(target=claim_for_ever, args=(results.path, theirs))
    other.start()
    assert ours.recv()
    with results.claim("a") as mine, results.claim("b") as another:
        assert (mine, another) == (False, True)
    other.kill()
    other.join()
    with results.claim("a") as mine:
        assert mine
