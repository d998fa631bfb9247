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
        ValueError: If it has no such part. If there is no such model, the library's own error says so.
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
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or lacks weights of this backbone.
    """
    needed = backbone.state_dict().keys()
    if weights is None:
        state = _create_network(name, pretrained=True).state_dict()
        backbone.load_state_dict({key: state[key] for key in needed})
        return
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        backbone.load_state_dict({key: state[key] for key in needed})
    except FileNotFoundError:
        raise
    except Exception as error:  # a file may be anything
        msg = f"weights: got {str(weights)!r}; allowed are state dictionaries of {name}"
        raise ValueError(msg) from error


def count_features(backbone: nn.Module) -> int:
    """Count the channels of a backbone's feature map."""
    training = backbone.training
    with torch.no_grad():
        channels = backbone.eval()(torch.zeros(1, 3, 128, 128)).shape[1]
    backbone.train(training)
    return int(channels)


def _create_network(name: str, *, pretrained: bool = False) -> nn.Module:
    if name.startswith(TORCHVISION):
        weights = "DEFAULT" if pretrained else None
        return torchvision.models.get_model(name.removeprefix(TORCHVISION), weights=weights)
    return timm.create_model(name, pretrained=pretrained, num_classes=0, global_pool="")
