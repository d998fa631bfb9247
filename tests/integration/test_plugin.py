# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A user installs the package, and anomalib knows its classes: real installations, real processes."""

import os
import subprocess
import sys
import venv
from pathlib import Path
from types import ModuleType

import pytest

from anomalib_htdgm import Htdgm, plugin

from .plugin_programs import COMMAND, DOORS, ORDERS, POINTS, SWITCH, THIRD_PARTY

PROJECT = Path(__file__).parents[2]
HOOK = "anomalib_plugins.pth"
WARNING = "RuntimeWarning: The plugin"
PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")


def make_environment(root: Path, *what: str | Path) -> Path:
    """Make an environment that sees the packages of this one, and install the project as a user would, if at all."""
    venv.create(root / "venv", with_pip=False)
    python = root / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    # What stands in a .pth file joins sys.path, but its own .pth files are not executed: neither those of an editable
    # installation of the project out here.
    packages = [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]
    (site_packages(python) / "outer.pth").write_text("\n".join(packages), encoding="utf-8")
    if what:
        options = ("--no-deps", "--no-index", "--no-build-isolation", "--force-reinstall")
        execute(python, *PIP, "install", *options, *what, cwd=root)
    return python


def site_packages(python: Path) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip())


def execute(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Execute a command, which has to succeed, with these environment variables in addition to the present ones."""
    kept = {name: value for name, value in os.environ.items() if name not in {"ANOMALIB_PLUGINS", "PYTHONPATH"}}
    environment = kept | {"PYTHONWARNINGS": "default", **variables}
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel of the source distribution, as for one who has nothing else."""
    root = tmp_path_factory.mktemp("built")
    build = "import sys; from hatchling.build import build_sdist; build_sdist(sys.argv[1])"
    execute(sys.executable, "-c", build, root, cwd=PROJECT)
    (sdist,) = root.glob("*.tar.gz")
    options = ("--no-deps", "--no-build-isolation", "--wheel-dir", root)
    execute(sys.executable, *PIP, "wheel", sdist, *options, cwd=root)
    (path,) = root.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def wheel(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(tmp_path_factory.mktemp("wheel"), built)


@pytest.mark.parametrize("mode", [pytest.param("wheel", marks=pytest.mark.thorough), "editable"])
def test_after_uninstalling_nothing_is_left(mode: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    python = make_environment(tmp_path)
    before = sorted(site_packages(python).iterdir())
    what = ["--editable", PROJECT] if mode == "editable" else [request.getfixturevalue("built")]
    python = make_environment(tmp_path, *what)
    assert (site_packages(python) / HOOK).exists()
    assert not (site_packages(python) / "anomalib_htdgm" / HOOK).exists()
    code = "import sys; from importlib.util import find_spec; print(sys.meta_path, find_spec('anomalib_htdgm').origin)"
    origin = PROJECT if mode == "editable" else site_packages(python)
    shown = execute(python, "-c", code, cwd=tmp_path).stdout
    assert "AnomalibPluginTrigger" in shown
    assert str(origin / "anomalib_htdgm" / "__init__.py") in shown

    execute(python, "-m", "pip", "--quiet", "uninstall", "--yes", "anomalib-htdgm", cwd=tmp_path)
    assert sorted(site_packages(python).iterdir()) == before
    result = execute(python, "-c", "pass", cwd=tmp_path)
    assert result.stdout + result.stderr == ""


def test_every_door_opens(wheel: Path, tmp_path: Path) -> None:
    """The stock command and functions of anomalib find the classes."""
    result = execute(wheel, "-c", COMMAND + DOORS, cwd=tmp_path)
    assert "Htdgm\n" in result.stdout  # of the printed configuration
    assert WARNING not in result.stderr


def test_start_costs_nothing(wheel: Path, tmp_path: Path) -> None:
    """A bare interpreter loads no module that it does not load without the package."""
    code = "import sys; print(*sys.modules)"
    bare = make_environment(tmp_path)
    with_hook, without_hook = (set(execute(p, "-c", code, cwd=tmp_path).stdout.split()) for p in (wheel, bare))
    assert with_hook == without_hook


def test_half_removed_package_is_silent(tmp_path: Path) -> None:
    """Where the hook's line is left without its package, Python starts as if it were not there."""
    python = make_environment(tmp_path)
    line = (PROJECT / "anomalib_htdgm" / HOOK).read_text(encoding="utf-8")
    (site_packages(python) / HOOK).write_text(line, encoding="utf-8")
    (site_packages(python) / "anomalib_htdgm").mkdir()
    for code in ("pass", "from importlib.util import find_spec; find_spec('anomalib')"):
        result = execute(python, "-c", code, cwd=tmp_path)
        assert result.stdout + result.stderr == ""


@pytest.mark.thorough
def test_switch_and_installation_by_hand(wheel: Path, tmp_path: Path) -> None:
    """Switched off, dotted paths still work; installed by hand, the hook catches up, and only once."""
    result = execute(wheel, "-c", COMMAND + SWITCH, cwd=tmp_path, ANOMALIB_PLUGINS="0")
    assert "anomalib_htdgm.Htdgm\n" in result.stdout  # of the printed configuration
    assert WARNING not in result.stderr


@pytest.mark.parametrize(
    ("kept", "reason"),
    [({}, "KeyError: 'ALLOWED_MODULES'"), ({"ALLOWED_MODULES": frozenset()}, "'frozenset' object has no")],
    ids=["moved", "frozen"],
)
def test_an_anomalib_that_has_changed_costs_one_warning(kept: dict[str, object], reason: str) -> None:
    """What cannot be changed is as good as gone; the names are there nevertheless, and dotted paths are named."""
    namespace = ModuleType("anomalib.models")
    vars(namespace).update(kept)
    match = f"ALLOWED_MODULES is not what it was.*`--model`: anomalib_htdgm.Devnet.*HtdgmPublished: .*{reason}"
    with pytest.warns(RuntimeWarning, match=match) as warned:
        plugin.register(namespace)
    assert len(warned) == 1
    assert namespace.Htdgm is Htdgm


@pytest.mark.skipif(not hasattr(os, "fork"), reason="one process per order costs minutes without fork")
@pytest.mark.thorough
def test_every_import_order_and_other_packages(wheel: Path, tmp_path: Path) -> None:
    """Whichever module comes first, the classes get registered; what is broken of any package is one warning each."""
    (tmp_path / "third_party.py").write_text(THIRD_PARTY, encoding="utf-8")
    info = tmp_path / "third_party-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(POINTS, encoding="utf-8")
    orders = (
        "anomalib_htdgm.models.htdgm.lightning_model",  # as a pickled model does
        "anomalib_htdgm.anomalib_fixes.pre_processor",
        "anomalib_htdgm.models",
        "anomalib_htdgm.data.few_shot",
        "anomalib.metrics",  # imports anomalib.data
        "anomalib.engine",  # imports both
    )
    stderr = execute(wheel, "-c", ORDERS, *orders, cwd=tmp_path, PYTHONPATH=str(tmp_path)).stderr
    warned = [line.partition("RuntimeWarning: ")[2] for line in stderr.splitlines() if WARNING in line]
    assert len(warned) == 2 * len(orders), stderr
    nowhere = "'Nowhere = third_party:Nowhere' of anomalib.models could not be loaded: AttributeError"
    padim = "'Padim = third_party:AnotherPadim' of anomalib.models could not be loaded: ValueError"
    assert all(nowhere in first and padim in second for first, second in zip(warned[::2], warned[1::2], strict=True))
