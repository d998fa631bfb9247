# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A layer over the pieces of a batch computes what PyTorch computes of the batch in one piece."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_htdgm.models.htdgm import blocks
from anomalib_htdgm.models.htdgm.blocks import NEGATIVE_SLOPE, normalize_activate_convolve

SHAPES = [(2, 6, 9, 14), (3, 6, 12, 8), (1, 6, 5, 5)]


def make_layer(dtype: torch.dtype = torch.float64) -> tuple[nn.BatchNorm2d, nn.Conv2d]:
    norm, convolution = nn.BatchNorm2d(6).to(dtype), nn.Conv2d(6, 5, 3).to(dtype)
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (*norm.parameters(), *convolution.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=source))
    return norm, convolution


def make_pieces(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(1)
    offset = torch.linspace(-3, 3, 6)[:, None, None]
    pieces = [torch.randn(shape, generator=source) * (index + 1) + offset for index, shape in enumerate(SHAPES)]
    return [piece.to(dtype).requires_grad_() for piece in pieces]


def layer_of_one_batch(pieces: list[torch.Tensor], norm: nn.BatchNorm2d, convolution: nn.Conv2d) -> list[torch.Tensor]:
    """Normalise all pixels as one batch, by PyTorch's own functions and derivatives."""
    pixels = [piece.permute(0, 2, 3, 1).reshape(-1, piece.shape[1]) for piece in pieces]
    normalized = norm(torch.cat(pixels)[:, :, None, None])[..., 0, 0].split([len(part) for part in pixels])
    images = [
        part.view(piece.shape[0], *piece.shape[2:], -1).permute(0, 3, 1, 2)
        for part, piece in zip(normalized, pieces, strict=True)
    ]
    return [convolution(F.leaky_relu(image, NEGATIVE_SLOPE)) for image in images]


@pytest.mark.parametrize("kept", [0, 2**24], ids=["computed again", "kept"])
@pytest.mark.parametrize("num_pieces", [1, 3])
@pytest.mark.parametrize("zero_scale", [False, True])
def test_outputs_gradients_and_running_averages(
    kept: int, num_pieces: int, zero_scale: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "KEPT_ACTIVATIONS", kept)
    results = []
    for is_ours in (True, False):
        (norm, convolution), pieces = make_layer(), make_pieces()[:num_pieces]
        if zero_scale:
            norm.weight.data[2] = 0.0
        outputs = (
            normalize_activate_convolve(pieces, norm, convolution.weight, convolution.bias)
            if is_ours
            else layer_of_one_batch(pieces, norm, convolution)
        )
        source = torch.Generator().manual_seed(2)
        gradients = [torch.randn(output.shape, generator=source, dtype=output.dtype) for output in outputs]
        parameters = [*norm.parameters(), *convolution.parameters()]
        results.append((outputs, torch.autograd.grad(outputs, [*parameters, *pieces], gradients), norm.state_dict()))
    (outputs, gradients, state), (expected_outputs, expected_gradients, expected_state) = results
    torch.testing.assert_close(outputs, expected_outputs)
    torch.testing.assert_close(gradients, expected_gradients, atol=1e-7 if zero_scale else 1e-12, rtol=1e-7)
    torch.testing.assert_close(state, expected_state)


def test_gradient_of_the_inputs_alone() -> None:
    (norm, convolution), pieces = make_layer(), make_pieces()
    sums = [sum(each.sum() for each in normalize_activate_convolve(pieces, norm, *convolution.parameters()))]
    expected = torch.autograd.grad(sums, pieces)
    for parameter in (*norm.parameters(), *convolution.parameters()):
        parameter.requires_grad_(False)
    sums = [sum(each.sum() for each in normalize_activate_convolve(pieces, norm, *convolution.parameters()))]
    torch.testing.assert_close(torch.autograd.grad(sums, pieces), expected, atol=0, rtol=0)


def test_bfloat16_is_near_float32_and_its_statistics_are_exact() -> None:
    norm, convolution = make_layer(torch.float32)
    pieces = [piece.detach().bfloat16() for piece in make_pieces(torch.float32)]
    outputs = normalize_activate_convolve(pieces, norm, convolution.weight, convolution.bias)
    other, _ = make_layer(torch.float32)
    expected = layer_of_one_batch([piece.float() for piece in pieces], other, convolution)
    assert all(output.dtype == torch.bfloat16 for output in outputs)
    for output, reference in zip(outputs, expected, strict=True):
        assert (output.float() - reference).abs().mean() < 0.01 * reference.abs().mean()
    torch.testing.assert_close(norm.state_dict(), other.state_dict())
