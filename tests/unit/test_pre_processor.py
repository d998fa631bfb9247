# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What is exported resizes as what was tested, with antialiasing."""

import pytest
import torch
from anomalib.pre_processing import PreProcessor
from torch import nn
from torchvision.transforms.v2 import CenterCrop, Compose, Identity, InterpolationMode, Normalize, Resize, Transform

from anomalib_htdgm.anomalib_fixes.pre_processor import (
    AntialiasedPreProcessor,
    adopt_pre_processor,
    check_exported,
    configure_pre_processor,
)

from .textures import noise

IMAGE_SIZES = pytest.mark.parametrize("size", [(300, 200), (900, 1000), (256, 256), (40, 500), (20, 20)], ids=str)
HALF = [0.5, 0.5, 0.5]


@IMAGE_SIZES
@pytest.mark.parametrize("new_size", [None, (64, 64), (100, 333)], ids=str)
def test_export_equals_engine(size: tuple[int, int], new_size: tuple[int, int] | None) -> None:
    pre_processor, images = configure_pre_processor(new_size), noise(2, 3, *size)
    exported = pre_processor.export_transform(images)
    assert exported.shape == (2, 3, *(new_size or (256, 256)))
    # PyTorch rounds the ratio of sizes to float32; the matrices do not.
    tolerance = 1e-4 if new_size == (100, 333) else 1e-5
    torch.testing.assert_close(exported, pre_processor.transform(images), atol=tolerance, rtol=0)
    assert torch.equal(pre_processor(images), pre_processor.transform(images))  # what is not exported need not differ


@pytest.mark.parametrize("size", [(3024, 40), (40, 6000), (20000, 30), (30, 200)], ids=str)
@pytest.mark.parametrize("new_size", [(64, 80), (256, 256), (500, 416)], ids=str)
def test_half_precision_is_enough(size: tuple[int, int], new_size: tuple[int, int]) -> None:
    pre_processor, images = configure_pre_processor(new_size), noise(1, 3, *size)
    expected = pre_processor.export_transform(images)
    for dtype, tolerance in ((torch.float16, 0.005), (torch.bfloat16, 0.05)):
        exported = pre_processor.export_transform(images.to(dtype))
        assert exported.dtype == dtype
        torch.testing.assert_close(exported.float(), expected, atol=tolerance, rtol=0)


def test_a_checkpoint_keeps_and_replaces_the_transform() -> None:
    images = noise(2, 3, 99, 80)
    pre_processor, restored = configure_pre_processor((40, 60)), AntialiasedPreProcessor()
    nothing = restored.checkpoint_config()
    restored.load_checkpoint_config(pre_processor.checkpoint_config())
    assert torch.equal(restored.export_transform(images), pre_processor.export_transform(images))
    assert torch.equal(restored.transform(images), pre_processor.transform(images))
    restored.load_checkpoint_config(nothing)
    assert restored.transform is None
    assert restored(images) is images


@pytest.mark.parametrize(
    "transform",
    [
        Resize((50, 70), antialias=True),
        Compose([Resize((50, 70), antialias=True)]),
        Compose([CenterCrop(80), Compose([Resize((50, 70)), Normalize(HALF, HALF)])]),
        Compose([Resize([50, 70], interpolation="bilinear"), Resize((20, 30))]),
    ],
    ids=["alone", "composed", "nested", "twice"],
)
def test_own_transforms_are_honoured(transform: Transform, caplog: pytest.LogCaptureFixture) -> None:
    pre_processor, images = AntialiasedPreProcessor(transform), noise(2, 3, 100, 120)
    torch.testing.assert_close(pre_processor.export_transform(images), transform(images), atol=1e-5, rtol=0)
    with caplog.at_level("WARNING"):
        check_exported(adopt_pre_processor(PreProcessor(transform)))
    assert not caplog.records


ALIKE = [
    Resize((50, 70), antialias=False),
    Resize((50, 70), interpolation=InterpolationMode.NEAREST),
    CenterCrop(60),
    nn.Sequential(Resize((50, 70)), Normalize(HALF, HALF)),
    Identity(),
]
OTHERWISE = [
    Resize(50),
    Resize(50, antialias=False),
    Resize(None, max_size=50),
    Resize((50, 70), interpolation=InterpolationMode.BICUBIC),
    Resize((50, 70), interpolation=2),
    Compose([Resize(50), Normalize(HALF, HALF)]),
    Compose([torch.square, Resize(50)]),
    Compose([CenterCrop(300), Resize((50, 70), interpolation=InterpolationMode.BICUBIC)]),
]


@pytest.mark.parametrize(
    ("transform", "is_named"),
    [(each, False) for each in ALIKE] + [(each, True) for each in OTHERWISE],
    ids=lambda value: str(value).partition(" at 0x")[0],  # side by side, tests need the same names
)
def test_what_cannot_be_translated_is_left_to_anomalib_and_named_if_it_differs(
    transform: Transform, is_named: bool, caplog: pytest.LogCaptureFixture
) -> None:
    images = noise(2, 3, 100, 120)
    exported = AntialiasedPreProcessor(transform).export_transform(images)
    assert torch.equal(exported, PreProcessor(transform).export_transform(images))
    check_exported(adopt_pre_processor(PreProcessor(transform)))
    named = [each.getMessage() for each in caplog.records]
    assert len(named) == is_named
    assert all("gives other images in the exported model" in each and str(transform) in each for each in named)
