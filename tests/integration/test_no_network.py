# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Htdgm needs no network: not to train, nor to predict, nor to be exported."""

import socket
from pathlib import Path

import pytest
from anomalib.data import MVTecAD
from anomalib.engine import Engine

from anomalib_htdgm import Htdgm

pytestmark = pytest.mark.thorough


@pytest.mark.usefixtures("no_network")
def test_everything_works_offline(wall: MVTecAD, engine: Engine, mvtec_root: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match=r"a connection to \('192\.0\.2\.1', 80\) was tried"),
        socket.socket() as outer,
    ):
        outer.connect(("192.0.2.1", 80))
    with pytest.raises(AssertionError, match=r"the address of example\.org was asked for"):
        socket.create_connection(("example.org", 80), timeout=0.1)
    model = Htdgm(k_shot=1, settings={"iterations": 1, "image_size": 25, "coarsest_size": 25})
    engine.fit(model, datamodule=wall)
    (prediction,) = engine.predict(model, data_path=mvtec_root / "wall" / "test" / "gravel" / "000.png")
    assert prediction.pred_score is not None
    assert engine.export(model, "torch", export_root=tmp_path).exists()
    assert engine.export(model, "onnx", export_root=tmp_path).exists()
