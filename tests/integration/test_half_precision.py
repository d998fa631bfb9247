# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""An exported graph whose every number is rounded to half precision, as GPUs compute it, scores as in float32."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from anomalib_htdgm import Htdgm
from anomalib_htdgm.models.htdgm.training import train

from .small import unscaled

pytestmark = pytest.mark.thorough

MOST = float(np.finfo(np.float16).max)
DEFECTS: dict[str, Any] = {
    "image_size": 32,
    "coarsest_size": 32,
    "votes_from": 32,
    "num_members": 1,
    "memory_patches": 300,
    "energy_cells": 300,
}
WHOLE: dict[str, Any] = {
    "image_size": 25,
    "coarsest_size": 25,
    "transformations": "symmetries",
    "vote": "probability",
    "patch_fraction": 1.0,
    "gist": True,
    "num_members": 1,
    "memory_patches": 0,
    "energy_cells": 0,
}


def round_every_number(path: Path) -> onnx.ModelProto:
    """Round a graph's input, weights and what each of its operations gives; within an operation sums are float32."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    graph = model.graph
    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(weight)
            rounded = np.where(np.isfinite(values), values.clip(-MOST, MOST), values).astype(np.float16)
            weight.CopyFrom(numpy_helper.from_array(rounded.astype(np.float32).reshape(values.shape), weight.name))
    known = (*graph.value_info, *graph.output)
    numbers = {each.name for each in known if each.type.tensor_type.elem_type == TensorProto.FLOAT}
    (image,) = (each.name for each in graph.input)
    nodes = [*_casts(image, f"{image}.rounded")]
    for node in graph.node:
        node.input[:] = [f"{image}.rounded" if name == image else name for name in node.input]
        for index, name in enumerate(node.output):
            if name in numbers:
                node.output[index] = f"{name}.exact"
                nodes += _casts(f"{name}.exact", name)
        nodes.insert(len(nodes) - 2 * sum(name.endswith(".exact") for name in node.output), node)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return model


def _casts(name: str, rounded: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", [name], [f"{rounded}.half"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", [f"{rounded}.half"], [rounded], to=TensorProto.FLOAT),
    ]


def photograph(seed: int, height: int = 256, width: int = 256, spot: float = 0.0) -> torch.Tensor:
    """Make a sheet of paper, all but blank, perhaps with a dark spot, whose side is a share of the sheet's."""
    source = torch.Generator().manual_seed(seed)
    image = 0.8 + 0.008 * torch.randn(1, 3, height, width, generator=source)
    image[..., height // 3 : height // 3 + int(spot * height), width // 4 : width // 4 + int(spot * width)] = 0.05
    return image.clamp(0, 1)


PHOTOGRAPHS = {
    "good": photograph(9),
    "small spot": photograph(9, spot=0.05),
    "spot": photograph(9, spot=0.12),
    "large": photograph(9, 3024, 3024),
    "large with a spot": photograph(9, 3200, 2900, spot=0.12),
    "black": torch.zeros(1, 3, 300, 500),
    "white": torch.ones(1, 3, 40, 30),
    "black and white": torch.rand(1, 3, 90, 70, generator=torch.Generator().manual_seed(0)).round(),
}


@pytest.mark.parametrize("settings", [DEFECTS, WHOLE], ids=["defects", "whole images"])
def test_half_precision_scores_as_float32(settings: dict[str, Any], tmp_path: Path) -> None:
    model = Htdgm(k_shot=3, precision="float32", post_processor=unscaled(), settings={"iterations": 5, **settings})
    shots = model.pre_processor(torch.cat([photograph(seed) for seed in range(3)]))
    for _ in train(model.model, shots):
        pass
    options = onnxruntime.SessionOptions()  # an optimised graph has fewer casts
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    rounded = round_every_number(model.eval().to_onnx(tmp_path)).SerializeToString()
    session = onnxruntime.InferenceSession(rounded, options)
    expected = {name: model(image).pred_score.item() for name, image in PHOTOGRAPHS.items()}
    scores = {
        name: session.run(["pred_score"], {"input": image.numpy()})[0].item() for name, image in PHOTOGRAPHS.items()
    }
    # The noise of a large blank photograph is nearly lost when it is reduced, and rounding is as large as what is left.
    assert scores == pytest.approx(expected, rel=0.05)
    assert scores != expected
