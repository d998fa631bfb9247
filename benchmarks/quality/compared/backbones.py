# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Models of anomalib with a backbone's weights from a file: anomalib itself can only download them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from anomalib.models import Patchcore
from anomalib.models.components import AnomalibModule
from anomalib.models.components.feature_extractors import TimmFeatureExtractor
from torchvision.models.feature_extraction import create_feature_extractor

from anomalib_htdgm.models.backbone import create_backbone, load_pretrained

ALEXNET = "torchvision/alexnet"
ALEXNET_LAYERS = ["features.4", "features.7"]


def with_weights(model: Callable[..., AnomalibModule], weights: str, **components: Any) -> AnomalibModule:
    """Make a model and load the weights of its backbone.

    Args:
        model (Callable[..., AnomalibModule]): Makes a model that has one :class:`TimmFeatureExtractor`.
        weights (str): File of a state dictionary of timm's model; what the model does not use of it is left out.
        **components: Pre-processor, post-processor, evaluator and visualizer.

    Returns:
        AnomalibModule: The model.

    Raises:
        ValueError: If there is no such file, or it lacks weights that the backbone has.
    """
    if not Path(weights).is_file():
        msg = f"weights: got {weights!r}, which is no file; set weights_root to the directory that has it"
        raise ValueError(msg)
    made = model(**components)
    (extractor,) = (module for module in made.modules() if isinstance(module, TimmFeatureExtractor))
    state = torch.load(weights, map_location="cpu", weights_only=True)
    missing = extractor.feature_extractor.load_state_dict(state, strict=False).missing_keys
    if missing:
        msg = f"weights: got {weights!r}, which lacks {len(missing)} tensors of {extractor.backbone}, as {missing[0]!r}"
        raise ValueError(msg)
    return made


def patchcore_on_alexnet(weights: str, **components: Any) -> Patchcore:
    """Make a PatchCore on torchvision's AlexNet, which timm, and so anomalib, has not.

    Args:
        weights (str): File of a state dictionary of torchvision's model.
        **components: Pre-processor, post-processor, evaluator and visualizer.

    Returns:
        Patchcore: The model, on the second and third convolution's features (strides 8 and 16).

    Raises:
        ValueError: If the file cannot be read, or lacks weights.
    """
    made = Patchcore("tf_efficientnet_lite0", ["blocks.2"], pre_trained=False, **components)  # soon another backbone
    backbone = create_backbone(ALEXNET)
    load_pretrained(backbone, ALEXNET, weights)
    layers = {name: name for name in ALEXNET_LAYERS}
    made.model.feature_extractor = create_feature_extractor(backbone, layers).eval()
    made.model.layers = list(layers)
    return made
