# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The endpoint, the script beside an exported model, and anomalib itself: they agree, and refuse what they should."""

import json
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from anomalib.engine import Engine
from PIL import Image, ImageChops

from anomalib_htdgm import Htdgm
from anomalib_htdgm.inspection.aligning import align, find_shift, reference_of
from anomalib_htdgm.inspection.exporting import save_files
from anomalib_htdgm.inspection.learning import learn, read, read_good
from anomalib_htdgm.inspection.pictures import REFERENCE, save_reference
from anomalib_htdgm.inspection.project import CHECKPOINT, Project
from anomalib_htdgm.inspection.watching import StoppedError

from .checked import SMALL, write

testclient = pytest.importorskip("fastapi.testclient", reason="pip install '.[demo]'")
pytest.importorskip("onnxruntime", reason="pip install '.[test]'")

from anomalib_htdgm.demo import serving  # noqa: E402
from anomalib_htdgm.demo.inspectors import Inspectors  # noqa: E402


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Learn three good photographs, aligned and of a region, and move the threshold."""
    root = tmp_path_factory.mktemp("projects")
    project = Project(root / "Jürgens Teil")
    paths = {f"good {index}.png": write(root / "photos", "good", index) for index in range(3)}
    for path in paths.values():
        project.add(path, "good")
    small = {"settings": SMALL | {"iterations": 2}, "precision": "float32", "region": [0.05, 0.1, 0.95, 1.0]}
    images = read_good(paths)
    reference = reference_of(images["good 0.png"].numpy())
    save_reference(project, reference)
    _, facts = learn(images, project.folder / CHECKPOINT, reference=reference, **small)
    project.note_model(facts)
    project.move_threshold(0.44)
    return project


@pytest.fixture
def client(project: Project) -> Iterator[object]:
    with testclient.TestClient(serving.build_app(Inspectors(project.folder.parent))) as client:
        yield client


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Write photographs: good and bad, one that EXIF turns, one in grey of 16 bits, a shifted one."""
    folder = tmp_path_factory.mktemp("new")
    paths = [write(folder, "good", 7), write(folder, "checkered", 2)]
    with Image.open(paths[0]) as image:  # noise, since a copy of a good one has distances of rounding's size
        noise = np.random.default_rng(0).integers(-2, 3, (*image.size, 3))
        pixels = np.asarray(image).astype(int) + noise
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[0])
    with Image.open(paths[0]) as image:
        lying = image.resize((60, 40))
        lying.getexif()[0x0112] = 6
        lying.save(folder / "lying.jpg", exif=lying.getexif())
        ImageChops.offset(image, 5, 2).save(folder / "shifted.png")
        deep = np.asarray(image.convert("L")).astype(np.uint16) * 257
        Image.fromarray(deep).save(folder / "deep.png")
    return [*paths, *(folder / name for name in ("lying.jpg", "deep.png", "shifted.png"))]


def post(client: object, path: Path, **query: object) -> dict[str, object]:
    answer = client.post("/score", params=query, files={"file": ("../../x", path.read_bytes())})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.thorough
def test_endpoint_script_and_anomalib_agree(
    client: object, project: Project, photographs: list[Path], tmp_path: Path
) -> None:
    files = {path.name: path for path in save_files(project, Event())}
    of_alignment = {"aligning.py", "reference.png"}
    assert set(files) == {"model.ckpt", "scores.csv", "report.html", "model.onnx", "score.py"} | of_alignment
    command = [sys.executable, files["score.py"], *photographs, __file__]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    *lines, refused = map(json.loads, done.stdout.splitlines())
    assert (done.returncode, refused["verdict"]) == (2, "cannot be read")
    reference = np.asarray(Image.open(project.folder / REFERENCE))
    assert find_shift(read(photographs[-1]).numpy(), reference) != (0, 0)
    model = Htdgm.load_from_checkpoint(files["model.ckpt"])
    engine = Engine(logger=False, default_root_dir=tmp_path, enable_progress_bar=False)
    verdicts = set()
    for path, line in zip(photographs, lines, strict=True):
        aligned = (align(read(path).numpy(), reference)[0] * 255).round().astype(np.uint8)
        Image.fromarray(aligned.transpose(1, 2, 0)).save(tmp_path / "aligned.png")  # anomalib does not align
        (batch,) = engine.predict(model, data_path=tmp_path / "aligned.png")
        answer = post(client, path)
        score = pytest.approx(float(batch.pred_score), abs=1e-4)
        assert (answer["score"], line["score"]) == (score, score)
        assert answer["threshold"] == line["threshold"] == 0.44
        assert answer["anomalous"] == line["anomalous"] == bool(batch.pred_label)
        if not model.inspection(read(path)):  # the script does not see what is wrong with a photograph itself
            assert answer["verdict"] == line["verdict"]
            verdicts.add(answer["verdict"])
    assert len(verdicts) > 1


def test_the_map_comes_on_request(client: object, photographs: list[Path]) -> None:
    assert post(client, photographs[1])["map"] is None
    with Image.open(BytesIO(b64decode(post(client, photographs[1], map=True)["map"]))) as picture:
        assert (picture.mode, picture.size) == ("L", (284, 284))  # so that the region has 256 x 256
        assert picture.getextrema()[1] > 127


def test_what_cannot_be_scored_is_refused(
    client: object, project: Project, photographs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = photographs[0].read_bytes()
    for status, params, file in (
        (404, {"project": "../Jürgens Teil"}, content),
        (404, {"project": str(project.folder)}, content),
        (422, {"project": project.folder.name}, b"no image"),
        (422, {}, b""),
    ):
        answer = client.post("/score", params=params, files={"file": ("a.png", file)})
        assert answer.status_code == status
        assert str(project.folder.parent) not in answer.text.replace(str(params.get("project")), "")
    assert "project" in client.get("/openapi.json").text
    monkeypatch.setattr(serving, "MOST_BYTES", 10)
    assert client.post("/score", files={"file": ("a.png", content)}).status_code == 413
    assert client.post("/score", content=iter([content])).status_code == 411


def test_others_need_the_token(project: Project, photographs: list[Path]) -> None:
    assert [serving.is_local(host) for host in ("127.0.0.1", "localhost", "::1")] == [True] * 3
    assert [serving.is_local(host) for host in ("0.0.0.0", "192.168.0.2", "example.org")] == [False] * 3  # noqa: S104
    app = serving.build_app(Inspectors(project.folder.parent), token="secret")  # noqa: S106
    with testclient.TestClient(app) as client:
        file = {"file": ("a.png", photographs[0].read_bytes())}
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "htdgm_token=wrong"}):
            assert client.post("/score", files=file, headers=headers).status_code == 401
        assert client.get("/docs?token=wrong").status_code == 401
        assert client.post("/score", files=file, headers={"Authorization": "Bearer secret"}).status_code == 200
        assert client.get("/docs?token=secret").status_code == 200  # and the browser has a cookie from then on
        assert client.get("/docs").status_code == 200


def test_an_export_stops(project: Project) -> None:
    stopped = Event()
    saving = save_files(project, stopped)
    assert [next(saving).name for _ in range(4)] == ["model.ckpt", "reference.png", "scores.csv", "report.html"]
    stopped.set()
    with pytest.raises(StoppedError):
        next(saving)
