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

PROJECT = Path(__file__).parents[2]
HOOK = "anomalib_plugins.pth"
WARNING = "RuntimeWarning: The plugin"

DOORS = """
import sys
from importlib import reload
from importlib.metadata import entry_points

assert "torch" not in sys.modules
(anomalib,) = entry_points(group="console_scripts", name="anomalib")
sys.argv = ["anomalib", "train", "--model", "Htdgm", "--data", "MVTecAD", "--print_config"]
try:
    anomalib.load()()
except SystemExit as end:
    assert not end.code, end.code

import anomalib.data
import anomalib.models
from anomalib.data import AnomalibDataModule, UnknownDatamoduleError, get_datamodule
from anomalib.models import get_model, list_models

from anomalib_htdgm import FewShot, Htdgm

dotted = f"{Htdgm.__module__}.Htdgm"
for _ in range(2):  # the second time with a fresh ALLOWED_MODULES
    assert anomalib.models.Htdgm is Htdgm
    assert anomalib.models.__all__.count("Htdgm") == 1
    assert "htdgm" in list_models()
    for model in (
        "htdgm",
        "Htdgm",
        {"class_path": "Htdgm"},
        {"class_path": "anomalib.models.Htdgm"},
        {"class_path": "anomalib_htdgm.Htdgm"},
        {"class_path": "anomalib_htdgm.models.htdgm.Htdgm"},
        {"class_path": dotted},
    ):
        assert type(get_model(model)) is Htdgm, model
    reload(anomalib.models)

assert issubclass(FewShot, AnomalibDataModule)
assert anomalib.data.FewShot is FewShot
try:  # an unexpected argument: found and called
    get_datamodule({"class_path": "FewShot", "init_args": {"no such": 0}})
except UnknownDatamoduleError:
    raise
except TypeError:
    pass
assert type(anomalib.models.__spec__.loader).__name__ == "SourceFileLoader"
"""

# Every order starts in a process that knows the dependencies, but not anomalib.
ORDERS = """
import os
import sys
import warnings
from importlib import import_module

import cv2, kornia, lightning.pytorch, omegaconf, timm, torch, torchmetrics, torchvision  # noqa: E401
assert not any(name.startswith("anomalib.") for name in sys.modules)

failed = []
for first in sys.argv[1:]:
    child = os.fork()
    if not child:
        try:
            warnings.filterwarnings("error", message=".*plugin.* of anomalib")
            import_module(first)
            import anomalib.data
            import anomalib.models
            import anomalib_htdgm
            assert anomalib.data.FewShot is anomalib_htdgm.FewShot
            assert anomalib.models.Htdgm is anomalib_htdgm.Htdgm
            assert "anomalib_htdgm" in anomalib.models.ALLOWED_MODULES
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(first)
assert not failed, failed
"""

WORKER = """
from multiprocessing import get_context

def known():
    import anomalib.models
    return hasattr(anomalib.models, "Htdgm")

if __name__ == "__main__":
    with get_context("spawn").Pool(1) as pool:
        assert pool.apply(known)
"""

# A release of anomalib that keeps under another name what the hook writes to.
MOVED = """
import sys
from importlib.machinery import PathFinder, SourceFileLoader

class Moved(SourceFileLoader):
    def get_code(self, fullname):
        source = self.get_data(self.path)
        assert b"ALLOWED_MODULES" in source
        return self.source_to_code(source.replace(b"ALLOWED_MODULES", b"PERMITTED_MODULES"), self.path)

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "anomalib.models":
            return None
        spec = PathFinder.find_spec(name, path, target)
        spec.loader = Moved(name, spec.origin)
        return spec

sys.meta_path.insert(0, Finder)
"""

FROM_THE_COMMAND_LINE = """
from importlib.metadata import entry_points

(anomalib,) = entry_points(group="console_scripts", name="anomalib")
for model in ("anomalib_htdgm.Htdgm", "Htdgm"):
    sys.argv = ["anomalib", "train", "--model", model, "--model.k_shot", "3", "--data", "MVTecAD", "--print_config"]
    try:
        anomalib.load()()
    except SystemExit as end:
        assert not end.code, end.code
"""

THIRD_PARTY = """
from anomalib.data import AnomalibDataModule
from anomalib.metrics import Evaluator  # incomplete when anomalib.metrics imports anomalib.data
from anomalib.models import AnomalibModule, Padim

class Theirs(AnomalibDataModule): ...
class AnotherPadim(AnomalibModule): ...
"""


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


@pytest.mark.parametrize("mode", ["wheel", "editable"])
def test_every_door_opens_until_uninstalled(mode: str, built: Path, tmp_path: Path) -> None:
    """The stock command and functions of anomalib find the classes; after uninstalling nothing is left."""
    python = make_environment(tmp_path)
    before = sorted(site_packages(python).iterdir())
    python = make_environment(tmp_path, *([built] if mode == "wheel" else ["--editable", PROJECT]))
    assert (site_packages(python) / HOOK).exists()
    assert not (site_packages(python) / "anomalib_htdgm" / HOOK).exists()

    result = execute(python, "-c", DOORS, cwd=tmp_path)
    assert "Htdgm\n" in result.stdout  # of the printed configuration
    assert WARNING not in result.stderr

    execute(python, "-m", "pip", "--quiet", "uninstall", "--yes", "anomalib-htdgm", cwd=tmp_path)
    assert sorted(site_packages(python).iterdir()) == before
    result = execute(python, "-c", "pass", cwd=tmp_path)
    assert result.stdout + result.stderr == ""
    if mode == "wheel":  # both have left the same folder, and importing anomalib takes seconds
        code = "import anomalib.models; assert 'htdgm' not in anomalib.models.list_models()"
        execute(python, "-c", code, cwd=tmp_path)


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


def test_switch_and_installation_by_hand(wheel: Path, tmp_path: Path) -> None:
    """The environment variable switches the hook off; installed by hand, it catches up, and only once."""
    code = """
import os, sys
import anomalib.models
from anomalib_htdgm import plugin

def hooks():
    return [finder for finder in sys.meta_path if type(finder).__name__ == "AnomalibPluginFinder"]

plugin.install()
assert not hooks() and not hasattr(anomalib.models, "Htdgm") and not hasattr(anomalib.data, "FewShot")
del os.environ["ANOMALIB_PLUGINS"]
plugin.install()
plugin.install()
assert len(hooks()) == 1 and "htdgm" in anomalib.models.list_models() and hasattr(anomalib.data, "FewShot")
"""
    assert WARNING not in execute(wheel, "-c", code, cwd=tmp_path, ANOMALIB_PLUGINS="0").stderr


def test_spawned_worker(wheel: Path, tmp_path: Path) -> None:
    """A worker process that starts afresh has the hook, too."""
    (tmp_path / "worker.py").write_text(WORKER, encoding="utf-8")
    execute(wheel, "worker.py", cwd=tmp_path)


def test_other_packages(wheel: Path, tmp_path: Path) -> None:
    """Any package may use the groups; what is broken or would replace a class of anomalib is one warning each."""
    (tmp_path / "third_party.py").write_text(THIRD_PARTY, encoding="utf-8")
    info = tmp_path / "third_party-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n", encoding="utf-8")
    points = """
[anomalib.data]
Theirs = third_party:Theirs
[anomalib.models]
Nowhere = third_party:Nowhere
Padim = third_party:AnotherPadim
"""
    (info / "entry_points.txt").write_text(points, encoding="utf-8")
    code = """
import anomalib.metrics
import anomalib.data, anomalib.models, third_party
assert anomalib.data.Theirs is third_party.Theirs
assert anomalib.models.Padim is third_party.Padim is not third_party.AnotherPadim
assert "htdgm" in anomalib.models.list_models()
"""
    stderr = execute(wheel, "-c", code, cwd=tmp_path, PYTHONPATH=str(tmp_path)).stderr
    warned = [line.partition("RuntimeWarning: ")[2] for line in stderr.splitlines() if WARNING in line]
    assert len(warned) == 2, stderr
    assert "'Nowhere = third_party:Nowhere' of anomalib.models could not be loaded: AttributeError" in warned[0]
    assert "'Padim = third_party:AnotherPadim' of anomalib.models could not be loaded: ValueError" in warned[1]


def test_an_anomalib_that_moves_its_attributes(wheel: Path, tmp_path: Path) -> None:
    """One warning names what is missing; the command takes the dotted path, as the warning says."""
    result = execute(wheel, "-c", MOVED + FROM_THE_COMMAND_LINE, cwd=tmp_path)
    warned = [line.partition("RuntimeWarning: ")[2] for line in result.stderr.splitlines() if "RuntimeWarning" in line]
    assert len(warned) == 1, result.stderr
    assert warned[0].startswith("anomalib.models.ALLOWED_MODULES is not what it was")
    assert "dotted paths still work, as in `--model`: anomalib_htdgm.Devnet" in warned[0]
    assert "anomalib_htdgm.HtdgmPublished: KeyError: 'ALLOWED_MODULES'" in warned[0]
    assert result.stdout.count("Htdgm\n") == 2
    assert result.stdout.count("k_shot: 3\n") == 2


def test_an_anomalib_that_freezes_its_attributes() -> None:
    """What cannot be changed is as good as gone; the names are there nevertheless."""
    namespace = ModuleType("anomalib.models")
    namespace.ALLOWED_MODULES = frozenset({"anomalib.models"})
    with pytest.warns(RuntimeWarning, match="ALLOWED_MODULES is not what it was.*'frozenset' object has no") as warned:
        plugin.register(namespace)
    assert len(warned) == 1
    assert namespace.Htdgm is Htdgm


@pytest.mark.skipif(not hasattr(os, "fork"), reason="one process per order costs minutes without fork")
def test_every_import_order(wheel: Path, tmp_path: Path) -> None:
    """Whichever module of the package or of anomalib comes first, the classes get registered silently."""
    orders = (
        "anomalib_htdgm.models.htdgm.lightning_model",  # as a pickled model does
        "anomalib_htdgm.anomalib_fixes.pre_processor",
        "anomalib_htdgm.models",
        "anomalib_htdgm.data.few_shot",
        "anomalib.metrics",  # imports anomalib.data
        "anomalib.engine",  # imports both
    )
    assert WARNING not in execute(wheel, "-c", ORDERS, *orders, cwd=tmp_path).stderr
