# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What is behind the page: which files are taken in, and what is kept of them, of a model and of its scores."""

import csv
from dataclasses import replace
from functools import partial
from itertools import islice, product
from pathlib import Path

import numpy as np
import pytest
from anomalib.engine import Engine
from PIL import Image, ImageFilter

from anomalib_htdgm import Htdgm
from anomalib_htdgm.data.reading import UnreadableImageError
from anomalib_htdgm.demo import session as session_module
from anomalib_htdgm.demo.photographs import LONGEST_SIDE, take_in
from anomalib_htdgm.demo.session import MOST_SHOTS, Session, StoppedError, name_few
from anomalib_htdgm.models.htdgm import calibration
from tests.unit.textures import shingles

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install '.[test]'")


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    scales = {"coarsest_size": 18, "image_size": 25, "votes_from": 25}
    small = partial(Htdgm, iterations=2, **scales, memory_patches=50, energy_cells=50, precision="float32")
    monkeypatch.setattr(session_module, "Htdgm", small)
    (tmp_path / "session").mkdir()
    return Session(tmp_path / "session")


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"part {index}.png" for index in range(7)]
    for index, path in enumerate(paths):
        pixels = (shingles(seed=index)[0] * 0.5 + 0.5) * 255
        Image.fromarray(pixels.round().byte().permute(1, 2, 0).numpy()).save(path)
    return paths


def ignore(share: float) -> None:
    """Be told how far a training is."""


def test_photographs_of_one_name_are_told_apart(session: Session, photographs: list[Path], tmp_path: Path) -> None:
    alike = [tmp_path / f"camera {index}" / "000.png" for index in range(4)]
    for photograph, path in zip(photographs[:4], alike, strict=True):
        path.parent.mkdir()
        path.write_bytes(photograph.read_bytes())
    session.add_good(alike[:2])
    session.add_new(alike[2:])
    session.learn(1, ignore)
    session.check()
    assert [each.name for each in session.good] == ["000.png", "000.png (good, camera 1)"]
    names = {each.photograph.name for each in session.findings}
    assert names == {"000.png (to check, camera 2)", "000.png (to check, camera 3)"}
    accepted = session.findings[0]
    session.accept(accepted)
    assert session.good[2].name == accepted.photograph.name
    session.add_good(alike[:2])
    size = alike[0].stat().st_size
    assert session.good[3].name == "000.png (good, camera 0)"
    assert session.good[4].name == f"000.png (good, camera 1, {alike[1].stat().st_size} bytes)"
    session.add_good(alike[:1] * 2)
    assert [each.name for each in session.good[5:]] == [
        f"000.png (good, camera 0, {size} bytes)",
        f"000.png (good, camera 0, {size} bytes, copy 2)",
    ]


def test_a_folder_with_an_umlaut_does_as_well_as_another(
    session: Session, photographs: list[Path], tmp_path: Path
) -> None:
    scores = []
    for folder in (session.folder, tmp_path / "Jürgen 日"):
        folder.mkdir(exist_ok=True)
        other = Session(folder)
        other.open_example()
        other.add_good(photographs[:2])
        other.add_new(photographs[2:])
        other.learn(1, ignore)
        other.check()
        scores.append([finding.score for finding in other.findings])
    assert scores[0] == scores[1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    upright = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    turns = {  # how a sensor sees it, for each orientation in the standard of EXIF
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }
    image = Image.fromarray(np.ascontiguousarray(turns[orientation]))
    image.getexif()[0x0112] = orientation
    image.save(tmp_path / "stored.png", exif=image.getexif())
    taken = take_in(tmp_path / "stored.png", tmp_path / "taken.png")
    with Image.open(taken.path) as result:
        assert np.array_equal(np.asarray(result), upright)
        assert result.getexif().get(0x0112, 1) == 1
    assert (taken.name, taken.size) == ("stored.png", (60, 40))


def test_large_photographs_are_reduced(tmp_path: Path) -> None:
    Image.new("RGB", (4000, 1000)).save(tmp_path / "wide.jpg")
    assert take_in(tmp_path / "wide.jpg", tmp_path / "taken.png").size == (LONGEST_SIDE, LONGEST_SIDE // 4)


def test_what_is_no_photograph_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "empty.png").touch()
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    Image.new("RGB", (200, 10)).save(tmp_path / "thin.png")
    for name, reason in {
        "notes.txt": "cannot identify image file",
        "empty.png": "it is empty",
        "huge.png": r"400000000 pixels\) exceeds limit",
        "thin.png": "has 200x10 pixels; allowed are at least 11x11",
    }.items():
        with pytest.raises(UnreadableImageError, match=reason) as error:
            take_in(tmp_path / name, tmp_path / "taken.png")
        assert str(error.value).startswith(f"image {name} ")
        assert str(tmp_path) not in str(error.value)
        assert not (tmp_path / "taken.png").exists()


def test_good_files_are_taken_in_beside_bad_ones(session: Session, photographs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    (refused,) = session.add_good([photographs[0], tmp_path / "notes.txt", photographs[1]])
    assert refused.startswith("image notes.txt cannot be read")
    assert [each.name for each in session.good] == ["part 0.png", "part 1.png"]


def test_no_more_good_photographs_than_are_trained_on(session: Session, photographs: list[Path]) -> None:
    refused = session.add_good(photographs[:1] * (MOST_SHOTS + 2))
    assert refused == [f"part 0.png was left out: {MOST_SHOTS} good photographs are there already."] * 2
    assert len(session.good) == MOST_SHOTS


def test_good_photographs_get_the_size_of_the_first_but_not_its_shape(
    session: Session, photographs: list[Path], tmp_path: Path
) -> None:
    Image.new("RGB", (200, 190), "red").save(tmp_path / "large.png")
    Image.new("RGB", (200, 100), "red").save(tmp_path / "wide.png")
    refused = session.add_good([photographs[0], tmp_path / "large.png", tmp_path / "wide.png"])
    assert refused == [
        "image wide.png has 200x100 pixels; allowed beside the first one are photographs of its shape, 64x64."
    ]
    session.add_new([tmp_path / "wide.png"])
    assert [each.size for each in session.good + session.new] == [(64, 64), (64, 64), (200, 100)]


def test_a_photograph_unlike_all_good_ones_is_never_plainly_good(
    session: Session, photographs: list[Path], tmp_path: Path
) -> None:
    with Image.open(photographs[4]) as part:
        unlike = {
            "wide": part.resize((128, 64)),
            "strip": part.resize((2000, 12)),
            "black": Image.new("RGB", part.size),
            "blurred": part.filter(ImageFilter.GaussianBlur(6)),
        }
    for name, image in unlike.items():
        image.save(tmp_path / f"{name}.png")
    session.add_good(photographs[:3])
    session.add_new([photographs[3], *(tmp_path / f"{name}.png" for name in unlike)])
    session.learn(1, ignore)
    session.check()
    findings = {finding.photograph.name.removesuffix(".png"): finding for finding in session.findings}
    like = findings.pop(photographs[3].stem)
    assert like.reason == ""
    assert like.verdict(1.0) == "good"
    assert findings.keys() == unlike.keys()
    reasons = {"wide": "squashed", "strip": "2000x12", "black": "darker", "blurred": "blurred"}
    for name, finding in findings.items():
        assert reasons[name] in finding.reason
        assert (finding.verdict(1.0), finding.verdict(-1.0)) == ("look at it", "anomalous")
    _, table = islice(session.saving(1.0), 2)  # without the ONNX file, which takes longest
    with table.open(newline="", encoding="utf-8") as file:
        told = {row["photograph"] for row in csv.DictReader(file) if row["reason"]}
    assert told == {f"{name}.png" for name in unlike}


def test_the_example_goes_when_a_photograph_comes(session: Session, photographs: list[Path], tmp_path: Path) -> None:
    session.open_example()
    session.learn(1, ignore)
    session.check()
    bricks = [each.name for each in session.good]
    assert (len(bricks), len(session.findings), session.is_example) == (3, 6, True)
    (tmp_path / "notes.txt").write_text("no image")
    session.add_good([tmp_path / "notes.txt"])
    session.add_new([tmp_path / "notes.txt"])
    assert [each.name for each in session.good] == bricks
    assert len(session.findings) == 6
    session.add_good(photographs[:1])
    assert [each.name for each in session.good] == ["part 0.png"]
    assert (session.new, session.findings, session.is_example, session.has_learnt) == ([], [], False, False)


@pytest.mark.parametrize(
    "tiles", [1, pytest.param(2, marks=pytest.mark.thorough)], ids=["checkpoint", "tiles, and the exported model"]
)
def test_scores_are_those_of_the_checkpoint_and_of_the_exported_model(
    session: Session, photographs: list[Path], tmp_path: Path, tiles: int
) -> None:
    session.add_good(photographs[:2])
    shares: list[float] = []
    session.learn(tiles, shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    session.add_new(photographs[2:4])
    session.check()
    scores = [finding.score for finding in session.findings]
    threshold = (scores[0] + scores[1]) / 2
    assert scores[0] != scores[1]
    checkpoint, table, *exported = islice(session.saving(threshold), 3 if tiles > 1 else 2)  # an export takes longest

    model = Htdgm.load_from_checkpoint(checkpoint)
    assert model.hparams["tiles"] == tiles
    engine = Engine(logger=False, default_root_dir=tmp_path / "elsewhere", enable_progress_bar=False)
    for finding in session.findings:
        (batch,) = engine.predict(model, data_path=finding.photograph.path)
        assert float(batch.pred_score) == finding.score
        assert bool(batch.pred_label) == finding.is_anomalous(threshold) == (finding.score > threshold)

    for finding, path in product(session.findings, exported):
        run = onnxruntime.InferenceSession(path)
        pixels = np.asarray(Image.open(finding.photograph.path)).transpose(2, 0, 1)[None].astype(np.float32) / 255
        outputs = dict(zip((each.name for each in run.get_outputs()), run.run(None, {"input": pixels}), strict=True))
        assert outputs["pred_score"].item() == pytest.approx(finding.score, abs=1e-4)
        assert outputs["pred_label"].item() == finding.is_anomalous(threshold)

    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["photograph"] for row in rows} == {"part 2.png", "part 3.png"}
    assert [float(row["score"]) for row in rows] == scores == sorted(scores, reverse=True)
    assert [row["verdict"] for row in rows] == ["anomalous", "good"]
    assert {row["threshold chosen by"] for row in rows} == {"guess"} == {model.threshold_chosen_by}


def test_the_threshold_is_firm_with_a_third_good_photograph_or_many_unchecked_ones(
    session: Session, photographs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "ENOUGH_UNCHECKED", 5)
    session.add_good(photographs[:2])
    session.learn(1, ignore)
    assert session.threshold_chosen_by == "guess"
    session.add_new([*photographs[:3], photographs[2]])
    session.check()
    # Copies of what was learnt, and of one another, tell nothing.
    assert (session.threshold_chosen_by, session.note) == ("guess", "")
    session.add_new(photographs[3:7])
    session.check()
    assert session.threshold_chosen_by == "unlabelled images"
    assert session.threshold == 0.5
    assert "that of 5 photographs that nobody has looked at" in session.note
    checkpoint = next(session.saving(session.threshold))
    assert Htdgm.load_from_checkpoint(checkpoint).threshold_chosen_by == "unlabelled images"
    session.add_good(photographs[2:3])
    session.learn(1, ignore)
    assert (session.threshold, session.threshold_chosen_by) == (0.5, "training images")


def scores_of(session: Session, raw: list[float]) -> None:
    """Let photographs have scores; thresholds do not ask whose."""
    pairs = zip(session.findings, raw, strict=True)
    session.findings = [replace(finding, raw=value, peak=value) for finding, value in pairs]


def learn_and_check(session: Session, good: list[Path], new: list[Path], enough: pytest.MonkeyPatch) -> None:
    enough.setattr(session_module, "ENOUGH_UNCHECKED", len(new))
    session.add_good(good)
    session.learn(1, ignore)
    session.add_new(new)
    session.check()


def test_what_is_far_from_all_others_is_anomalous_on_the_page_and_in_its_checkpoint(
    session: Session, photographs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off at 1, many would score alike, and the threshold would be above them."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    # A guess far too low, as one photograph gives it at times: all scores are above twice the threshold.
    monkeypatch.setattr(calibration, "GUESSED_RATIO", 0.1)
    learn_and_check(session, photographs[:1], [*photographs[1:6], tmp_path / "noise.png"], monkeypatch)
    assert session.threshold_chosen_by == "unlabelled images"
    verdicts = {each.photograph.name: each.verdict(session.threshold) for each in session.findings}
    assert [name for name, verdict in verdicts.items() if verdict == "anomalous"] == ["noise.png"]
    assert "% higher now" in session.note
    checkpoint = next(session.saving(session.threshold))
    engine = Engine(logger=False, default_root_dir=tmp_path / "elsewhere", enable_progress_bar=False)
    for finding in session.findings:
        (batch,) = engine.predict(Htdgm.load_from_checkpoint(checkpoint), data_path=finding.photograph.path)
        assert float(batch.pred_score) == finding.score
        assert bool(batch.pred_label) == (finding.photograph.name == "noise.png")


def test_a_threshold_of_the_users_own_stays(
    session: Session, photographs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "ENOUGH_UNCHECKED", 4)
    session.add_good(photographs[:1])
    session.learn(1, ignore)
    session.move_threshold(0.62)
    session.add_new(photographs[1:5])
    session.check()
    assert session.note == "Your own threshold, 0.62, stays."
    assert (session.threshold, session.threshold_chosen_by) == (0.62, "guess")
    raw = {each.photograph.name: each.raw for each in session.findings if each.score < 1}
    assert {each.photograph.name: each.raw / each.score for each in session.findings if each.score < 1} == {
        name: pytest.approx(2 * float(session._of_shots["_image_threshold"]), rel=1e-5)  # noqa: SLF001
        for name in raw
    }
    session.learn(1, ignore)
    session.check()
    assert (session.threshold, session.threshold_chosen_by) == (0.62, "guess")
    session.move_threshold(0.5)  # as chosen for the user, again
    session.check()
    assert session.threshold_chosen_by == "unlabelled images"
    session.move_threshold(0.7)
    before = [each.score for each in session.findings]
    session.add_new(photographs[5:])
    session.check()
    assert set(before) <= {each.score for each in session.findings}
    session.learn(1, ignore)
    session.check()
    assert (session.threshold, session.threshold_chosen_by) == (0.7, "unlabelled images")  # and its scale is of a kind


def test_a_changed_threshold_is_told_and_undone(
    session: Session, photographs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    learn_and_check(session, photographs[:2], photographs[2:6], monkeypatch)
    assert session.has_choice
    assert session.note.startswith("The threshold is ")
    assert "now (raw score " in session.note
    assert "4 photographs that nobody has looked at" in session.note
    chosen = [each.score for each in session.findings]
    pictures = [each.picture.read_bytes() for each in session.findings]
    session.use_unchecked(use=False)
    assert session.threshold_chosen_by == "guess"
    assert [each.score for each in session.findings] != chosen
    assert [each.picture.read_bytes() for each in session.findings] != pictures  # maps follow their threshold, too
    session.check()
    assert session.threshold_chosen_by == "guess"
    session.use_unchecked(use=True)
    assert session.threshold_chosen_by == "unlabelled images"
    assert [each.score for each in session.findings] == pytest.approx(chosen)


def test_a_box_of_defects_does_not_raise_the_threshold(
    session: Session, photographs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    learn_and_check(session, photographs[:3], photographs[3:], monkeypatch)
    session.use_unchecked(use=False)
    session.uses_unchecked = None
    limit = float(session._of_shots["_image_threshold"])  # noqa: SLF001
    scores_of(session, [2 * limit, 1.9 * limit, 0.8 * limit, 0.7 * limit])
    session.check()
    assert session.threshold_chosen_by == "training images"
    assert "2 of 4 unlabelled images, more than a fifth, look unlike the good ones" in session.note
    assert [each.is_anomalous(session.threshold) for each in map(session._scale, session.findings)] == [  # noqa: SLF001
        True,
        True,
        False,
        False,
    ]


def test_copies_are_said_to_be_copies(session: Session, photographs: list[Path], tmp_path: Path) -> None:
    session.add_good(photographs[:2])
    assert session.describe_copies() == ""
    with Image.open(photographs[0]) as image:
        image.save(tmp_path / "again.bmp")  # the same pixels in another file
    session.add_good([tmp_path / "again.bmp", photographs[0]])
    said = session.describe_copies()
    assert said.startswith(
        f"part 0.png, again.bmp and part 0.png (good, {tmp_path.name}) are copies of one photograph."
    )
    assert "1 of 4 good photographs tell something" in said
    session.learn(1, ignore)
    assert session.threshold_chosen_by == "guess"


def test_checking_stops_and_goes_on(session: Session, photographs: list[Path]) -> None:
    session.add_new(photographs[1:5])
    session.check()
    assert [each.name for each in session.waiting] == [path.name for path in photographs[1:5]]  # for a model
    session.add_good(photographs[:1])
    session.learn(1, ignore)
    checking = session.checking()
    steps = [next(checking), next(checking)]
    session.stop()
    with pytest.raises(StoppedError):
        next(checking)
    assert steps == [(1, 4), (2, 4)]
    assert (len(session.findings), len(session.waiting)) == (2, 2)
    session.check()
    assert (len(session.findings), session.waiting) == (4, [])


def test_an_export_stops(session: Session, photographs: list[Path]) -> None:
    session.add_good(photographs[:1])
    session.learn(1, ignore)
    saving = session.saving(0.5)
    assert [next(saving).name, next(saving).name] == ["model.ckpt", "scores.csv"]
    session.stop()
    with pytest.raises(StoppedError):
        next(saving)


def test_what_arrives_goes_with_the_session(session: Session, photographs: list[Path]) -> None:
    contents = [path.read_bytes() for path in photographs[:3]]
    session.receive("new", photographs[:1])
    session.receive("new", photographs[1:2])
    session.receive("good", photographs[2:3] * 2, from_camera=True)
    assert not any(path.exists() for path in photographs[:3])
    arrived = session.take("new")
    assert [(path.name, path.read_bytes()) for path in arrived] == [
        ("part 0.png", contents[0]),
        ("part 1.png", contents[1]),
    ]
    assert session.take("new") == []
    assert [path.name.split()[0] for path in session.take("good")] == ["camera", "camera"]
    session.close()
    assert not any(path.exists() for path in arrived)


def test_many_names_become_a_number() -> None:
    assert name_few(["a"]) == "a"
    assert name_few(["a", "b", "c"]) == "a, b and c"
    assert name_few([f"{number}.png" for number in range(128)]) == "0.png, 1.png, 2.png and 125 more"


def test_a_stopped_training_leaves_the_model_before(session: Session, photographs: list[Path]) -> None:
    session.add_good(photographs[:1])
    session.learn(1, ignore)
    session.add_new(photographs[1:2])
    session.check()
    before = session.findings
    steps = []

    def stop_soon(share: float) -> None:
        steps.append(share)
        session.stop()

    with pytest.raises(StoppedError):
        session.learn(1, stop_soon)
    assert len(steps) == 1
    assert session.findings == before
    session.add_new(photographs[1:2])
    session.check()
    assert session.findings[1].score == before[0].score
    session.learn(1, ignore)  # and the next is not stopped


def test_a_training_is_stopped_while_it_chooses_its_threshold(session: Session, photographs: list[Path]) -> None:
    session.add_good(photographs[:1])
    with pytest.raises(StoppedError):
        session.learn(1, lambda share: session.stop() if share == 1 else None)
    assert not session.has_learnt


def test_an_accepted_photograph_is_learnt(session: Session, photographs: list[Path]) -> None:
    session.add_good(photographs[:1])
    session.learn(1, ignore)
    session.add_new(photographs[1:3])
    session.check()
    accepted, other = (finding.photograph.name for finding in session.findings)
    session.accept(session.findings[0])
    session.learn(1, ignore)
    session.check()
    assert [each.name for each in session.good] == ["part 0.png", accepted]
    assert [each.photograph.name for each in session.findings] == [other]
    session.add_good(photographs[:1] * (MOST_SHOTS - 2))
    with pytest.raises(ValueError, match=f"{other} was left out: {MOST_SHOTS} good photographs are there already"):
        session.accept(session.findings[0])
    assert len(session.findings) == 1


def test_nothing_can_be_learnt_or_saved_of_nothing(session: Session) -> None:
    with pytest.raises(ValueError, match="There is no good photograph to learn from: add one to 10"):
        session.learn(1, ignore)
    with pytest.raises(ValueError, match="Nothing has been learnt yet that could be saved"):
        session.save(0.5)


def test_pictures_show_the_photograph_and_its_heat_map(session: Session, photographs: list[Path]) -> None:
    session.add_good(photographs[:1])
    session.learn(1, ignore)
    session.add_new(photographs[1:2])
    session.check()
    with Image.open(session.findings[0].picture) as picture, Image.open(photographs[1]) as photograph:
        assert picture.size == (128, 64)
        assert np.array_equal(picture.crop((0, 0, 64, 64)), photograph)
        over = np.asarray(picture.crop((64, 0, 128, 64))).astype(float)
        assert np.abs(over - np.asarray(photograph)).mean() > 20


def test_closing_deletes_the_photographs(session: Session, photographs: list[Path]) -> None:
    session.add_good(photographs[:1])
    session.close()
    assert not session.folder.exists()
    assert photographs[0].exists()
