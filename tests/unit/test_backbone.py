# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Backbones: the classifier's own feature map, and weights from a file."""

from pathlib import Path

import pytest
import timm
import torch
import torchvision

from anomalib_htdgm.models.backbone import count_features, create_backbone, load_pretrained

from .textures import noise

NAMES = ["torchvision/alexnet", "torchvision/resnet18", "tf_efficientnet_lite0"]


@pytest.mark.parametrize(("name", "channels"), zip(NAMES, [256, 512, 1280], strict=True))
def test_features_are_those_of_the_classifier(name: str, channels: int, tmp_path: Path) -> None:
    classifier = (
        torchvision.models.get_model(name.removeprefix("torchvision/")) if "/" in name else timm.create_model(name)
    ).eval()
    torch.save(classifier.state_dict(), tmp_path / "weights.pth")
    backbone = create_backbone(name).eval()
    load_pretrained(backbone, name, tmp_path / "weights.pth")
    assert count_features(backbone) == channels

    pooled = []
    pooling = classifier.avgpool if hasattr(classifier, "avgpool") else classifier.global_pool
    pooling.register_forward_hook(lambda _module, inputs, _output: pooled.append(inputs[0]))
    images = noise(2, 3, 224, 224)
    with torch.no_grad():
        classifier(images)
        assert torch.equal(backbone(images), pooled[0])


def test_weights_of_another_backbone_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11)}, path)
    with pytest.raises(ValueError, match=r"^weights: got .*weights\.pth'; allowed are state dictionaries"):
        load_pretrained(create_backbone("torchvision/alexnet"), "torchvision/alexnet", path)


def test_other_backbones_are_refused() -> None:
    with pytest.raises(ValueError, match="backbone: got 'torchvision/vit_b_16'; allowed are"):
        create_backbone("torchvision/vit_b_16")
