# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The discriminators' layer: batch norm, LeakyReLU and convolution of a batch that is cut into pieces.

The pieces of a batch, canvases of several sizes or of many images, share their batch-norm statistics. Each layer takes
one piece after the other, so that temporary tensors stay small. Of a large batch it keeps its inputs alone for the
backward pass, which computes norm and activation again: memory is one tensor a layer, where autograd would keep three.
The gradients are those of the batch in one piece.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812

NEGATIVE_SLOPE = 0.2
KEPT_ACTIVATIONS = 2**24
"""Most activations of a layer that are kept for the backward pass, 64 MB of float32; more are computed again."""


def normalize_activate_convolve(
    inputs: Sequence[torch.Tensor], norm: nn.BatchNorm2d, weight: torch.Tensor, bias: torch.Tensor | None
) -> list[torch.Tensor]:
    """Apply a layer in training mode: batch norm over all pieces together, LeakyReLU, convolution.

    The convolution has no padding. Running averages of the statistics are updated, as in PyTorch's batch norm.

    Args:
        inputs (Sequence[torch.Tensor]): Pieces of the batch, of shape ``(N, C, H, W)`` each; their type, float32 or
            bfloat16, is that of the computation.
        norm (nn.BatchNorm2d): Batch norm.
        weight (torch.Tensor): Weight of the convolution, of shape ``(D, C, 3, 3)``.
        bias (torch.Tensor | None): Its bias, of shape ``(D,)``.

    Returns:
        list[torch.Tensor]: One output for each piece.
    """
    if len(inputs) == 1 and inputs[0].numel() <= KEPT_ACTIVATIONS:
        return [convolve(F.leaky_relu_(norm(inputs[0]), NEGATIVE_SLOPE), weight, bias)]
    mean, variance = _joint_statistics(inputs)
    _update_running_averages(norm, mean, variance, _count_pixels(inputs))
    return list(_Layer.apply(mean, variance, norm.eps, norm.weight, norm.bias, weight, bias, *inputs))


class _Layer(torch.autograd.Function):
    """Batch norm with given statistics of its inputs, LeakyReLU, convolution; and their gradients, by hand."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        mean: torch.Tensor,
        variance: torch.Tensor,
        eps: float,
        scale: torch.Tensor,
        shift: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        *inputs: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Compute the outputs."""
        ctx.eps, ctx.has_bias = eps, bias is not None
        keep = sum(piece.numel() for piece in inputs) <= KEPT_ACTIVATIONS
        kept: list[torch.Tensor] = []
        outputs: list[torch.Tensor] = []
        cast_weight, cast_bias = _cast(weight, inputs[0]), None if bias is None else bias.to(inputs[0].dtype)
        for piece in inputs:
            activation = _activate(piece, mean, variance, scale, shift, eps)
            outputs.append(F.conv2d(activation, cast_weight, cast_bias))
            kept += [activation] if keep else []
        ctx.save_for_backward(mean, variance, scale, shift, weight, *inputs, *kept)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        """Compute the gradients. Mean and variance have none of their own: they depend on the inputs."""
        mean, variance, scale, shift, weight, *saved = ctx.saved_tensors
        inputs, kept = saved[: len(gradients)], saved[len(gradients) :]
        of_parameters = ctx.needs_input_grad[5]
        inverse_deviation = (variance + ctx.eps).rsqrt()
        # The gradient of the normalised input times `factor` is that of the input, but for two sums over the batch.
        # To have it multiplied at no cost, the convolution's weights are. A scale of just 0 would hide its gradient.
        factor = scale.where(scale != 0, torch.finfo(scale.dtype).eps) * inverse_deviation
        scaled_weight = _cast(weight * factor[:, None, None], inputs[0])
        of_scale, of_shift = torch.zeros_like(scale), torch.zeros_like(shift)
        of_weight, of_bias = torch.zeros_like(weight), scale.new_zeros(len(weight))
        of_inputs: list[torch.Tensor] = []
        for index, (piece, gradient) in enumerate(zip(inputs, gradients, strict=True)):
            activation = kept[index] if kept else _activate(piece, mean, variance, scale, shift, ctx.eps)
            of_activation, weight_part, bias_part = torch.ops.aten.convolution_backward(
                *(gradient, activation, scaled_weight, [len(weight)], [1, 1], [0, 0], [1, 1]),
                transposed=False,
                output_padding=[0, 0],
                groups=1,
                output_mask=[True, of_parameters, of_parameters and ctx.has_bias],
            )
            of_piece = torch.ops.aten.leaky_relu_backward(
                of_activation, activation, NEGATIVE_SLOPE, self_is_result=True
            )
            _, scale_part, shift_part = torch.ops.aten.native_batch_norm_backward(
                *(of_piece, piece, scale, None, None, mean, inverse_deviation),
                train=True,
                eps=ctx.eps,
                output_mask=[False, True, True],
            )
            of_scale += scale_part
            of_shift += shift_part
            of_inputs.append(of_piece)
            if of_parameters:
                of_weight += weight_part
                of_bias += bias_part if ctx.has_bias else 0
        pixels = _count_pixels(inputs)
        for piece, of_piece in zip(inputs, of_inputs, strict=True):
            of_piece.add_(F.batch_norm(piece, mean, variance, -of_scale / pixels, -of_shift / pixels, eps=ctx.eps))
        return (
            *(None, None, None, of_scale / factor, of_shift / factor),
            *(of_weight if of_parameters else None, of_bias if of_parameters and ctx.has_bias else None),
            *of_inputs,
        )


def convolve(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Convolve without padding, in the type of the inputs.

    Args:
        inputs (torch.Tensor): Shape ``(N, C, H, W)``.
        weight (torch.Tensor): Shape ``(D, C, 3, 3)``.
        bias (torch.Tensor | None): Shape ``(D,)``.

    Returns:
        torch.Tensor: Shape ``(N, D, H - 2, W - 2)``.
    """
    return F.conv2d(inputs, _cast(weight, inputs), None if bias is None else bias.to(inputs.dtype))


def _cast(weight: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return weight.to(like.dtype, memory_format=torch.channels_last)


def _activate(
    inputs: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    eps: float,
) -> torch.Tensor:
    return F.leaky_relu_(F.batch_norm(inputs, mean, variance, scale, shift, eps=eps), NEGATIVE_SLOPE)


def _joint_statistics(inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute mean and biased variance of each channel over the pixels of all pieces, in float32."""
    detached = [piece.detach() for piece in inputs]
    if inputs[0].device.type in {"cpu", "cuda"}:
        # The results have the type of the running averages, which are not needed otherwise.
        dtype = torch.promote_types(inputs[0].dtype, torch.float32)
        unused = torch.zeros(2, inputs[0].shape[1], dtype=dtype, device=inputs[0].device)
        parts = [torch.batch_norm_update_stats(piece, unused[0], unused[1], 0.0) for piece in detached]
    else:  # where that function is missing
        parts = [torch.var_mean(piece.float(), dim=(0, 2, 3), correction=0)[::-1] for piece in detached]
    if len(parts) == 1:
        return parts[0]
    means, variances = (torch.stack(each) for each in zip(*parts, strict=True))
    pixels = _count_pixels(inputs)
    shares = means.new_tensor([_count_pixels([piece]) / pixels for piece in inputs])[:, None]
    mean = (shares * means).sum(dim=0)
    return mean, (shares * (variances + (means - mean).square())).sum(dim=0)


def _count_pixels(inputs: Sequence[torch.Tensor]) -> int:
    return sum(piece.shape[0] * piece.shape[2] * piece.shape[3] for piece in inputs)


@torch.no_grad()
def _update_running_averages(norm: nn.BatchNorm2d, mean: torch.Tensor, variance: torch.Tensor, pixels: int) -> None:
    averages = norm.num_batches_tracked, norm.running_mean, norm.running_var
    tracked, running_mean, running_variance = cast("tuple[torch.Tensor, torch.Tensor, torch.Tensor]", averages)
    tracked += 1
    momentum = cast("float", norm.momentum)
    running_mean.lerp_(mean, momentum)
    running_variance.lerp_(variance * (pixels / max(pixels - 1, 1)), momentum)
