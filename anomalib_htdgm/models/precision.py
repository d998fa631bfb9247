# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Which type the networks compute in."""

from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]


def has_fast_bfloat16(device: torch.device) -> bool:
    """Tell whether a device computes in bfloat16 faster than in float32.

    Args:
        device (torch.device): CPU or GPU.

    Returns:
        bool: True for CPUs with AVX-512's or AMX's instructions for it, and for CUDA devices that have it in hardware.
        Others may emulate it, more slowly.
    """
    if device.type == "cpu":
        get_capabilities = getattr(torch.cpu, "get_capabilities", None)  # older releases of PyTorch lack it
        capabilities = get_capabilities() if get_capabilities else {}
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Choose the type that networks compute in.

    Explicit types in place of ``torch.autocast``, which would cast all weights anew for every piece of a batch.

    Args:
        precision (Precision): ``auto`` is bfloat16 where that is faster, else float32.
        device (torch.device): Device of the networks.

    Returns:
        torch.dtype: float32 or bfloat16. Exported graphs are float32: their runtimes have a precision of their own.
    """
    if torch.compiler.is_compiling() or precision == "float32":
        return torch.float32
    return torch.bfloat16 if precision == "bfloat16" or has_fast_bfloat16(device) else torch.float32
