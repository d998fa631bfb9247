# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Programs that are run where the package is installed, and what another package would bring along."""

COMMAND = """
import sys
from importlib.metadata import entry_points

def parse(model):
    (anomalib,) = entry_points(group="console_scripts", name="anomalib")
    sys.argv = ["anomalib", "train", "--model", model, "--data", "MVTecAD", "--print_config"]
    try:
        anomalib.load()()
    except SystemExit as end:
        assert not end.code, end.code
"""

DOORS = """
from importlib import reload

assert "torch" not in sys.modules
parse("Htdgm")

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
    paths = ("Htdgm", "anomalib.models.Htdgm", "anomalib_htdgm.Htdgm", "anomalib_htdgm.models.htdgm.Htdgm", dotted)
    for model in ("htdgm", "Htdgm", *({"class_path": path} for path in paths)):
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

from multiprocessing import get_context

with get_context("spawn").Pool(1) as pool:  # a process that starts afresh has the hook, too
    assert "AnomalibPluginTrigger" in pool.apply(eval, ("str(__import__('sys').meta_path)",))
"""

# Every order starts in a process that knows the dependencies, but not anomalib; and another package has plugins, too.
ORDERS = """
import os
import sys
from importlib import import_module

import cv2, kornia, lightning.pytorch, omegaconf, timm, torch, torchmetrics, torchvision  # noqa: E401
assert not any(name.startswith("anomalib.") for name in sys.modules)

failed = []
for first in sys.argv[1:]:
    child = os.fork()
    if not child:
        try:
            import_module(first)
            import anomalib.data
            import anomalib.models
            import anomalib_htdgm
            import third_party
            assert anomalib.data.FewShot is anomalib_htdgm.FewShot
            assert anomalib.models.Htdgm is anomalib_htdgm.Htdgm
            assert "anomalib_htdgm" in anomalib.models.ALLOWED_MODULES
            assert anomalib.data.Theirs is third_party.Theirs
            assert anomalib.models.Padim is third_party.Padim is not third_party.AnotherPadim
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(first)
assert not failed, failed
"""

THIRD_PARTY = """
from anomalib.data import AnomalibDataModule
from anomalib.metrics import Evaluator  # incomplete when anomalib.metrics imports anomalib.data
from anomalib.models import AnomalibModule, Padim

class Theirs(AnomalibDataModule): ...
class AnotherPadim(AnomalibModule): ...
"""
POINTS = """
[anomalib.data]
Theirs = third_party:Theirs
[anomalib.models]
Nowhere = third_party:Nowhere
Padim = third_party:AnotherPadim
"""

SWITCH = """
import os
import anomalib.models
from anomalib_htdgm import plugin

def hooks():
    return [finder for finder in sys.meta_path if type(finder).__name__ == "AnomalibPluginFinder"]

plugin.install()
assert not hooks() and not hasattr(anomalib.models, "Htdgm") and not hasattr(anomalib.data, "FewShot")
parse("anomalib_htdgm.Htdgm")
del os.environ["ANOMALIB_PLUGINS"]
plugin.install()
plugin.install()
assert len(hooks()) == 1 and "htdgm" in anomalib.models.list_models() and hasattr(anomalib.data, "FewShot")
"""
