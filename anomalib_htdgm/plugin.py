# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Let anomalib find the models and datamodules of other packages by their names.

A package names its classes as entry points, in a group called after the namespace of anomalib they extend:

.. code-block:: toml

    [project.entry-points."anomalib.models"]
    Htdgm = "anomalib_htdgm:Htdgm"

anomalib reads no entry points. ``anomalib_plugins.pth``, which Python executes whenever it starts, therefore waits for
an import of anomalib and then calls :func:`install`; the classes are registered once that import is complete. Until
then nothing is loaded, not even this module.

A package whose modules may be imported before anomalib has to ``import anomalib.models`` (or ``anomalib.data``) before
it begins any module that an entry point names; ``anomalib_htdgm/models/__init__.py`` is an example.

An anomalib that has moved what this module writes to costs a warning that names it, and no more.

The environment variable ``ANOMALIB_PLUGINS=0`` switches everything off. Dotted class paths work without this module.
"""

import os
import sys
from collections.abc import Callable, Sequence
from copy import copy
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from threading import local
from types import ModuleType
from typing import Any
from warnings import warn

NAMESPACES = ("anomalib.data", "anomalib.models")


def install() -> None:
    """Register the entry points of all namespaces: those imported already at once, the others when they are."""
    # By name, for that also knows the class of a reloaded or a vendored copy of this module.
    installed = any(type(finder).__name__ == AnomalibPluginFinder.__name__ for finder in sys.meta_path)
    if installed or os.environ.get("ANOMALIB_PLUGINS") == "0":
        return
    finder = AnomalibPluginFinder()
    sys.meta_path.insert(0, finder)
    finder.register_all([sys.modules[name] for name in NAMESPACES if name in sys.modules])


class AnomalibPluginFinder(local):
    """Importer hook: finds nothing by itself, but acts when an import of anomalib is complete.

    ``anomalib.data`` is first imported in the middle of other modules of anomalib, such as ``anomalib.models`` or
    ``anomalib.metrics``. A plugin may need those, so it has to wait until the outermost of them is complete.
    """

    complete: list[ModuleType] | None = None
    """The namespaces that this thread has completed, while it is importing anomalib or plugins."""

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Find a module of anomalib as Python would without this hook, and watch its execution; else return None."""
        finders = iter(tuple(sys.meta_path))
        if not name.startswith("anomalib.") or self not in finders:  # `in` consumes the iterator up to this finder
            return None
        specs = (finder.find_spec(name, path, target) for finder in finders if hasattr(finder, "find_spec"))
        spec = next(filter(None, specs), None)
        # No more than needed is watched, for a warning may name the watcher in place of the importing line.
        done = self.complete is not None or sys.modules.keys() >= set(NAMESPACES)
        if spec is not None and (name in NAMESPACES or not done):
            self._watch(spec)
        return spec

    def register_all(self, complete: list[ModuleType]) -> None:
        """Register the entry points of namespaces, and of those that loading these adds to the list."""
        self.complete = complete
        try:
            for namespace in complete:
                register(namespace)
        finally:
            self.complete = None

    def _watch(self, spec: ModuleSpec) -> None:
        loader: Any = copy(spec.loader)  # one loader may serve many modules, e.g. that of a zip file
        try:
            execute = loader.exec_module
            vars(loader)["exec_module"] = lambda module: self._execute(execute, module)
        except (AttributeError, TypeError):  # neither loaded by Python's protocol nor to be changed
            return
        spec.loader = loader

    def _execute(self, execute: Callable[[ModuleType], None], module: ModuleType) -> None:
        outermost = self.complete is None
        complete = self.complete = [] if self.complete is None else self.complete
        try:
            execute(module)
            if module.__name__ in NAMESPACES:
                complete.append(module)
        finally:  # a namespace stays imported when what has imported it fails
            if outermost:
                self.register_all(complete)


def register(namespace: ModuleType) -> None:
    """Load the entry points of a namespace and make their classes part of it, again if need be.

    An entry point that does not work gives a warning and leaves the others alone, and so does an anomalib whose
    ``ALLOWED_MODULES`` is no more where it was.
    """
    try:
        points = tuple(entry_points(group=namespace.__name__))
    except Exception as error:  # noqa: BLE001 - any package's metadata may be damaged
        _warn(f"No plugin of {namespace.__name__} could be looked up", error)
        return
    classes = []
    for point in points:
        try:
            classes.append(_add(namespace, point))
        except Exception as error:  # noqa: BLE001, PERF203 - any package's code may be broken
            _warn(f"The plugin '{point.name} = {point.value}' of {namespace.__name__} could not be loaded", error)
    if classes and namespace.__name__ == "anomalib.models":
        try:
            _allow(namespace, classes)
        except Exception as error:  # noqa: BLE001 - any release of anomalib may keep something else there
            paths = ", ".join(point.value.replace(":", ".") for point, _ in classes)
            what = "anomalib.models.ALLOWED_MODULES is not what it was: `get_model` and `anomalib benchmark` may miss"
            _warn(f"{what} plugins; dotted paths still work, as in `--model`: {paths}", error)


def _add(namespace: ModuleType, point: EntryPoint) -> tuple[EntryPoint, type]:
    cls = point.load()
    if not isinstance(cls, type):
        msg = f"{point.value} is not a class"
        raise TypeError(msg)
    members = vars(namespace)
    if members.get(point.name, cls) is not cls:
        msg = f"{namespace.__name__} has another {point.name}, which stays"
        raise ValueError(msg)
    members[point.name] = cls
    if point.name not in members.get("__all__", [point.name]):
        members["__all__"] = [*members["__all__"], point.name]
    return point, cls


def _allow(namespace: ModuleType, classes: Sequence[tuple[EntryPoint, type]]) -> None:
    """Add to the modules whose classes `get_model` accepts by their dotted path."""
    for point, cls in classes:
        package = cls.__module__.rpartition(".")[0]
        vars(namespace)["ALLOWED_MODULES"].update({point.module, cls.__module__, package} - {""})


def _warn(what: str, error: Exception) -> None:
    warn(f"{what}: {type(error).__name__}: {error}", RuntimeWarning, stacklevel=2)
