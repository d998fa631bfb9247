# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Tests run side by side, so each of them, and each process that it starts, has one thread."""

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest

REPORTED = ("anomalib", "torch", "torchvision", "lightning", "torchmetrics", "numpy", "onnx", "onnxruntime", "openvino")

LONGEST = ("test_readmes.py", "test_demo.py", "test_exports.py", "test_half_precision.py", "test_load.py")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before PyTorch is imported


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bfloat16", action="store_true", help="let precision 'auto' be bfloat16, as on newer processors")


@pytest.fixture(scope="session", autouse=True)
def fast_bfloat16(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compute in bfloat16 as a processor that is fast at it does, if asked to: others round alike, but slowly."""
    with pytest.MonkeyPatch.context() as patch:
        if request.config.getoption("bfloat16"):
            patch.setattr("anomalib_htdgm.models.precision.has_fast_bfloat16", lambda _device: True)
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Compute in one thread: small networks only wait for a second one, and sums depend on their number."""
    import torch  # noqa: PLC0415  # after the number of threads is set

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that processes end together."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:  # noqa: ANN401  # pytest-xdist's
    """Say how a process ended that was lost: which signal, below 0, or which status."""
    if error:
        print(f"\n{node.gateway.id} ended with {node.gateway._io.popen.wait(10)}")  # noqa: SLF001, T201  # nothing public


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the tests ran with; a header would not be shown with ``-q``."""
    packages = ", ".join(f"{name} {_version(name)}" for name in REPORTED)
    terminalreporter.write_line(f"Versions: python {platform.python_version()}, {packages}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
