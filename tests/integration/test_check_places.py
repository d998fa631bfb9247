# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The command looks where it is told to, and moves photographs to where good ones lie."""

from pathlib import Path

import pytest
from PIL import Image, ImageChops

from .checked import do, read_table, write

pytestmark = pytest.mark.usefixtures("learnt")


def test_what_is_outside_the_region_does_not_count_and_a_project_keeps_it(
    parts: Path, new: Path, tmp_path: Path, learnt: list[int]
) -> None:
    wanted = {"new": new, "project": tmp_path / "project"}

    def scores() -> dict[str, float]:
        return {row["photograph"]: float(row["raw score"]) for row in read_table(tmp_path / "project")}

    do(**wanted, good=parts, region=[0.0, 0.0, 1.0, 0.3])  # defects lie below
    above = scores()
    assert len(set(above.values())) == 1
    assert "Where to look" in (tmp_path / "project" / "report.html").read_text(encoding="utf-8")
    do(**wanted)
    assert learnt == [3]
    do(**wanted, region=[0.0, 0.0, 1.0, 1.0])
    assert learnt == [3, 3]
    assert scores()["checkered 2.png"] > scores()["good 2.png"]
    assert "Where to look" not in (tmp_path / "project" / "report.html").read_text(encoding="utf-8")


def test_shifted_photographs_are_aligned(parts: Path, tmp_path: Path, learnt: list[int]) -> None:
    folder = tmp_path / "shifted"
    with Image.open(write(folder, "good", 0)) as image:
        shifted = ImageChops.offset(image, 8, 0)
    shifted.save(folder / "good 0.png")
    scores = []
    for align in (False, True):
        do(good=parts, new=folder, out=tmp_path / str(align), align=align)
        scores += [float(row["raw score"]) for row in read_table(tmp_path / str(align))]
    assert scores[1] < scores[0]
    do(model=tmp_path / "True" / "model.ckpt", new=folder, out=tmp_path / "elsewhere")
    assert float(read_table(tmp_path / "elsewhere")[0]["raw score"]) == scores[1]
    (tmp_path / "True" / "reference.png").unlink()
    do(good=parts, new=folder, out=tmp_path / "True", align=True)
    assert learnt == [3, 3, 3]  # anew, since nobody knows what the model's photographs were aligned with
    (tmp_path / "True" / "reference.png").write_text("damaged")
    with pytest.raises(ValueError, match=r"reference\.png is what photographs are aligned with"):
        do(good=parts, new=folder, out=tmp_path / "True", align=True)
