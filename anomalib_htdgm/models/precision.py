# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Which type the networks compute in."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]


def has_fast_bfloat16(device: torch.device) -> bool:
    """Tell whether a device computes in bfloat16 faster than in float32: others may emulate it, more slowly.

    CPUs do with AVX-512's or AMX's instructions for it, and CUDA devices that have it in hardware.
    """
    if device.type == "cpu":
        get_capabilities = getattr(torch.cpu, "get_capabilities", None)  # older releases of PyTorch lack it
        capabilities = get_capabilities() if get_capabilities else {}
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Choose the type that networks compute in: with ``auto`` bfloat16 where that is faster, else float32.

    Explicit types in place of ``torch.autocast``, which would cast all weights anew for every chunk of a batch.
    Exported graphs are float32: their runtimes have a precision of their own.
    """
    if torch.compiler.is_compiling() or precision == "float32":
        return torch.float32
    return torch.bfloat16 if precision == "bfloat16" or has_fast_bfloat16(device) else torch.float32


@contextmanager
def without_tf32(device: torch.device) -> Iterator[None]:
    """Compute float32 convolutions in float32: on NVIDIA's GPUs PyTorch takes ten bits of it, unless told otherwise."""
    if torch.compiler.is_compiling() or device.type != "cuda":
        yield
        return
    allowed, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
