# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What is distributed, what it requires, and what CI installs of that."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from anomalib_htdgm.configs import find_config, list_configs

PROJECT = Path(__file__).parents[2]
TEMPLATE, SCRIPT = "anomalib_htdgm/inspection/report.html", "anomalib_htdgm/inspection/score.py"
OF_THE_MACHINE = {"torch", "torchvision"}  # CI takes the newest that there is, and says which


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Build a source distribution, and a wheel from what is in it alone."""
    backend = pytest.importorskip("hatchling.build")
    directory = tmp_path_factory.mktemp("dist")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(PROJECT)
        sdist = directory / backend.build_sdist(str(directory))
        with tarfile.open(sdist) as archive:
            archive.extractall(directory, filter="data")
        patch.chdir(directory / sdist.name.removesuffix(".tar.gz"))
        wheel = directory / backend.build_wheel(str(directory))
    return sdist, wheel


def files_under(folder: str) -> set[str]:
    files = (path for path in (PROJECT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(PROJECT)) for path in files}


def test_wheel_has_the_package_and_its_hook_and_nothing_else(built: tuple[Path, Path]) -> None:
    names = set(zipfile.ZipFile(built[1]).namelist())
    (information,) = {name.partition("/")[0] for name in names if ".dist-info/" in name}
    hook = "anomalib_htdgm/anomalib_plugins.pth"
    package = files_under("anomalib_htdgm")
    assert {hook, "anomalib_htdgm/py.typed", "anomalib_htdgm/models/htdgm/README.md", TEMPLATE, SCRIPT} <= package
    described = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    configs = {f"anomalib_htdgm/{name}" for name in files_under("configs")}
    others = {"anomalib_plugins.pth"} | {f"{information}/{name}" for name in described}
    assert names == package - {hook} | configs | others


def test_an_installed_package_finds_the_settings(built: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.unpack_archive(built[1], tmp_path, "zip")

    def configs(folder: Path, *name: str) -> list[str]:
        command = [sys.executable, "-m", "anomalib_htdgm.configs", *name]
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.split()

    names = configs(tmp_path)
    assert names == configs(PROJECT) == list(list_configs())
    assert {f"configs/{name}.yaml" for name in names} == files_under("configs")
    (path,) = configs(tmp_path, "htdgm/symmetries_1shot")
    assert Path(path).is_relative_to(tmp_path)
    assert Path(path).read_bytes() == find_config("htdgm/symmetries_1shot").read_bytes()


@pytest.mark.parametrize("name", ["", "symmetries", "htdgm/symmetries_1shot.yaml", "../pyproject"])
def test_settings_that_there_are_not_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^name: got {name!r}; allowed are .*htdgm/symmetries_1shot"):
        find_config(name)


def test_sdist_has_what_it_is_built_and_tested_from(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    folders = ("anomalib_htdgm", "benchmarks", "configs", "docs", "requirements", "tests")
    expected = set().union(*map(files_under, folders))
    top = {"CHANGELOG.md", "LICENSE", "README.md", "mkdocs.yml", "pyproject.toml"}
    ours = {name for name in expected if not name.endswith((".pyc", ".log"))} | top
    assert names == ours | {"PKG-INFO", ".gitignore"}


def metadata(wheel: Path) -> Distribution:
    archive = zipfile.ZipFile(wheel)
    (information,) = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
    return PathDistribution(zipfile.Path(archive, f"{information}/"))


def read_requirements(wheel: Path, *, extras: bool) -> list[Requirement]:
    every = [Requirement(line) for line in metadata(wheel).requires or ()]
    return [each for each in every if extras or each.marker is None]


def lower_bound(requirement: Requirement) -> str:
    (bound,) = (each.version for each in requirement.specifier if each.operator == ">=")
    return bound


def read_pins(name: str) -> dict[str, str]:
    lines = (PROJECT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    pins = (re.fullmatch(r"([\w.-]+)==([\w.+!-]+)", line) for line in lines if not line.startswith("#"))
    return {canonicalize_name(pin[1]): pin[2] for pin in pins}  # type: ignore[index] # no address, no marker


def test_oldest_releases_are_the_lower_bounds(built: tuple[Path, Path]) -> None:
    oldest = read_pins("oldest.txt")
    del oldest["pytz"]  # pandas wanted it before 3
    required = {canonicalize_name(each.name): each for each in read_requirements(built[1], extras=False)}
    assert required.keys() == oldest.keys() | OF_THE_MACHINE
    for name, pin in oldest.items():
        assert required[name].specifier.contains(pin), name
        bound = lower_bound(required[name])
        assert (pin + ".").startswith(bound + ".") or pin.removesuffix(".0") == bound, name


def test_lock_is_within_the_bounds(built: tuple[Path, Path]) -> None:
    pins = read_pins("ci.txt")
    assert not pins.keys() & OF_THE_MACHINE
    cluster = {"hydra-ray-launcher"}  # not installed by the tests
    for requirement in read_requirements(built[1], extras=True):
        name = canonicalize_name(requirement.name)
        if name == "anomalib-htdgm":  # the extras of an extra
            continue
        assert lower_bound(requirement)
        if name not in OF_THE_MACHINE | cluster:
            assert requirement.specifier.contains(pins[name]), name


def test_no_registry_is_named() -> None:
    for path in (PROJECT / "requirements").iterdir():
        assert "://" not in path.read_text(encoding="utf-8")
