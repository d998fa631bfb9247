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

IMAGE_SIZES = pytest.mark.parametrize("size", [(300, 200), (900, 1000), (256, 256), (40, 500), (20, 20)], ids=str)
HALF = [0.5, 0.5, 0.5]


def make_images(size: tuple[int, int], num_images: int = 2) -> torch.Tensor:
    return torch.rand(num_images, 3, *size, generator=torch.Generator().manual_seed(0))


@IMAGE_SIZES
@pytest.mark.parametrize("new_size", [None, (64, 64), (100, 333)], ids=str)
def test_export_equals_engine(size: tuple[int, int], new_size: tuple[int, int] | None) -> None:
    pre_processor, images = configure_pre_processor(new_size), make_images(size)
    exported = pre_processor.export_transform(images)
    assert exported.shape == (2, 3, *(new_size or (256, 256)))
    # PyTorch rounds the ratio of sizes to float32; the matrices do not.
    tolerance = 1e-4 if new_size == (100, 333) else 1e-5
    torch.testing.assert_close(exported, pre_processor.transform(images), atol=tolerance, rtol=0)
    assert torch.equal(pre_processor(images), pre_processor.transform(images))  # what is not exported need not differ


@pytest.mark.parametrize("size", [(3024, 40), (40, 6000), (20000, 30), (30, 200)], ids=str)
@pytest.mark.parametrize("new_size", [(64, 80), (256, 256), (500, 416)], ids=str)
def test_half_precision_is_enough(size: tuple[int, int], new_size: tuple[int, int]) -> None:
    pre_processor, images = configure_pre_processor(new_size), make_images(size, 1)
    expected = pre_processor.export_transform(images)
    for dtype, tolerance in ((torch.float16, 0.005), (torch.bfloat16, 0.05)):
        exported = pre_processor.export_transform(images.to(dtype))
        assert exported.dtype == dtype
        torch.testing.assert_close(exported.float(), expected, atol=tolerance, rtol=0)


@IMAGE_SIZES
def test_values_are_in_range(size: tuple[int, int]) -> None:
    pre_processor, images = configure_pre_processor(), make_images(size).round()  # black and white pixels
    for output in (pre_processor.export_transform(images), pre_processor.transform(images)):
        assert output.min() >= -1 - 1e-5
        assert output.max() <= 1 + 1e-5
        assert output.min() < output.max()
    for value in (0.0, 0.5, 1.0):
        output = pre_processor.export_transform(torch.full((1, 3, *size), value))
        torch.testing.assert_close(output, torch.full_like(output, 2 * value - 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("new_size", [(256, 256), (40, 60)], ids=str)
def test_checkpoint_keeps_the_transform(new_size: tuple[int, int]) -> None:
    pre_processor, restored = configure_pre_processor(new_size), AntialiasedPreProcessor()
    restored.load_checkpoint_config(pre_processor.checkpoint_config())
    images = make_images((300, 200))
    assert torch.equal(restored.export_transform(images), pre_processor.export_transform(images))
    assert torch.equal(restored.transform(images), pre_processor.transform(images))
    torch.testing.assert_close(restored.export_transform(images), restored.transform(images), atol=1e-5, rtol=0)


def test_checkpoint_replaces_the_transform() -> None:
    pre_processor, images = configure_pre_processor((40, 60)), make_images((30, 30))
    pre_processor.load_checkpoint_config(AntialiasedPreProcessor().checkpoint_config())
    assert pre_processor(images) is images


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
    pre_processor, images = AntialiasedPreProcessor(transform), make_images((100, 120))
    torch.testing.assert_close(pre_processor.export_transform(images), transform(images), atol=1e-5, rtol=0)
    with caplog.at_level("WARNING"):
        check_exported(adopt_pre_processor(PreProcessor(transform)))
    assert not caplog.records


@pytest.mark.parametrize(
    "transform",
    [
        Resize(50),
        Resize((50, 70), antialias=False),
        Resize((50, 70), interpolation=InterpolationMode.BICUBIC),
        Resize((50, 70), interpolation=InterpolationMode.NEAREST),
        Compose([Resize(50), Normalize(HALF, HALF)]),
        CenterCrop(60),
        nn.Sequential(Resize((50, 70)), Normalize(HALF, HALF)),
        Identity(),
        Resize(None, max_size=50),
        Resize((50, 70), interpolation=2),
        Compose([torch.square, Resize(50)]),
    ],
    ids=lambda transform: str(transform).partition(" at 0x")[0],  # side by side, tests need the same names
)
def test_what_cannot_be_translated_is_left_to_anomalib(transform: Transform) -> None:
    images = make_images((100, 120))
    exported = AntialiasedPreProcessor(transform).export_transform(images)
    assert torch.equal(exported, PreProcessor(transform).export_transform(images))


@pytest.mark.parametrize(
    "transform",
    [
        Resize(50),
        Resize(50, antialias=False),
        Resize((50, 70), interpolation=InterpolationMode.BICUBIC),
        Compose([Resize(50), Normalize(HALF, HALF)]),
        Resize(None, max_size=50),
        Compose([CenterCrop(300), Resize((50, 70), interpolation=InterpolationMode.BICUBIC)]),
    ],
    ids=str,
)
def test_what_is_exported_otherwise_is_named(transform: Transform, caplog: pytest.LogCaptureFixture) -> None:
    check_exported(adopt_pre_processor(PreProcessor(transform)))
    (record,) = caplog.records
    assert "gives other images in the exported model" in record.getMessage()
    assert str(transform) in record.getMessage()


def test_no_transform_passes_images_through() -> None:
    pre_processor, images = AntialiasedPreProcessor(None), make_images((30, 40))
    assert pre_processor.transform is None
    assert pre_processor(images) is images
