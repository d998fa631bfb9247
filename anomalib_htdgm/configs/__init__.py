# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The settings that come with the package: YAML files for ``anomalib train --config`` and ``Engine.from_config``.

They are the repository's ``configs/``, which a wheel has in this folder. On the command line, ``python -m
anomalib_htdgm.configs NAME`` prints the path of a file:

.. code-block:: bash

    anomalib train --config "$(python -m anomalib_htdgm.configs htdgm/symmetries_1shot)"

Example:
    >>> from anomalib.engine import Engine
    >>> from anomalib_htdgm.configs import find_config
    >>> engine, model, datamodule = Engine.from_config(find_config("htdgm/symmetries_1shot"))  # doctest: +SKIP
"""

from pathlib import Path

_HERE = Path(__file__).parent
_IN_REPOSITORY = _HERE.parents[1] / "configs"


def list_configs() -> dict[str, Path]:
    """List the paths of the files by their names: folder and file, without the ending."""
    folder = _HERE if any(_HERE.rglob("*.yaml")) else _IN_REPOSITORY
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def find_config(name: str) -> Path:
    """Find a file by its name, such as ``htdgm/symmetries_1shot``.

    Raises:
        ValueError: If there is none; the message lists those that there are.
    """
    configs = list_configs()
    if name not in configs:
        msg = f"name: got {name!r}; allowed are {', '.join(configs)}"
        raise ValueError(msg)
    return configs[name]
