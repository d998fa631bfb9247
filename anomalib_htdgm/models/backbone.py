# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Pretrained backbones, for the models that Htdgm is compared with: any of timm or torchvision.

A backbone is made with random weights and gets its pretrained ones when training begins. So whoever loads a
checkpoint, which has the weights, needs neither the file nor a download.
"""

from collections import OrderedDict
from pathlib import Path

import timm
import torch
import torchvision
from torch import nn

TORCHVISION = "torchvision/"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def create_backbone(name: str) -> nn.Module:
    """Make the convolutional part of an image classifier, with random weights.

    The name is that of a timm model, such as ``tf_efficientnet_lite0``, or of a torchvision one, such as
    ``torchvision/alexnet``. It has to be convolutional.

    Returns:
        nn.Module: From normalised images of shape ``(B, 3, H, W)`` to the last feature map, ``(B, C, h, w)``.

    Raises:
        ValueError: If there is no such model, or it has no such part.
    """
    network = _create_network(name)
    if not name.startswith(TORCHVISION):
        return network
    children = list(network.named_children())
    names = [child for child, _ in children]
    if "avgpool" not in names:
        msg = f"backbone: got {name!r}; allowed are models of torchvision that end in a pooling named 'avgpool'"
        raise ValueError(msg)
    return nn.Sequential(OrderedDict(children[: names.index("avgpool")]))


def load_pretrained(backbone: nn.Module, name: str, weights: str | Path | None = None) -> None:
    """Give a backbone that :func:`create_backbone` has made by that name its pretrained weights.

    They are those of a file with a state dictionary of the whole classifier or of its convolutional part, or without
    one the library's own, which are downloaded once.

    Raises:
        ValueError: If the file cannot be read, or lacks weights of this backbone.
    """
    state = _create_network(name, pretrained=True).state_dict() if weights is None else _read_weights(weights)
    needed = backbone.state_dict()
    missing = [key for key, value in needed.items() if key not in state or state[key].shape != value.shape]
    if missing:
        msg = f"weights: got {str(weights)!r}, which lacks {len(missing)} tensors of {name}, such as {missing[0]!r}"
        raise ValueError(msg)
    backbone.load_state_dict({key: state[key] for key in needed})


def count_features(backbone: nn.Module) -> int:
    """Count the channels of a backbone's feature map."""
    training = backbone.training
    with torch.no_grad():
        channels = backbone.eval()(torch.zeros(1, 3, 128, 128)).shape[1]
    backbone.train(training)
    return int(channels)


def _create_network(name: str, *, pretrained: bool = False) -> nn.Module:
    try:
        if name.startswith(TORCHVISION):
            return torchvision.models.get_model(
                name.removeprefix(TORCHVISION), weights="DEFAULT" if pretrained else None
            )
        return timm.create_model(name, pretrained=pretrained, num_classes=0, global_pool="")
    except (ValueError, RuntimeError) as error:
        if "nknown model" not in str(error):
            raise
        msg = f"backbone: got {name!r}; allowed are names of timm's models, and of torchvision's after 'torchvision/'"
        raise ValueError(msg) from error


def _read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        msg = f"weights: got {str(path)!r}, which cannot be read as a state dictionary ({error})"
        raise ValueError(msg) from error
    if not isinstance(state, dict):
        msg = f"weights: got {str(path)!r}, which has a {type(state).__name__}; allowed are state dictionaries"
        raise ValueError(msg)
    return state
