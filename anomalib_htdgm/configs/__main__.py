# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Print the path of a settings file, or the names of all."""

import argparse

from anomalib_htdgm.configs import find_config, list_configs


def main() -> None:
    """Read the arguments and print."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m anomalib_htdgm.configs")
    parser.add_argument("name", nargs="?", help="such as htdgm/symmetries_1shot; without it all names are listed")
    name = parser.parse_args().name
    try:
        print("\n".join(list_configs()) if name is None else find_config(name))  # noqa: T201
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
