# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Tests run side by side, so each of them, and each process that it starts, has one thread."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import pytest

REPORTED = ("anomalib", "torch", "torchvision", "lightning", "torchmetrics", "numpy", "onnx", "onnxruntime", "openvino")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before PyTorch is imported


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the tests ran with; a header would not be shown with ``-q``."""
    packages = ", ".join(f"{name} {_version(name)}" for name in REPORTED)
    terminalreporter.write_line(f"Versions: python {platform.python_version()}, {packages}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
