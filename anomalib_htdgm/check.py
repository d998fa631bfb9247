# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Checks a folder of photographs: ``python -m anomalib_htdgm.check``."""

import argparse
import logging
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import NoReturn

EPILOG = """
exit status:
  0  all photographs are good
  1  at least one is anomalous, is to be looked at, or cannot be read
  2  it could not be done; a sentence says why
  130  it was broken off by Ctrl-C, 143 by SIGTERM; what was checked until then is in the report.
       With --watch this is how it ends, so the status is 0 or 1
"""
STOPPING = (signal.SIGINT, signal.SIGTERM)


def main() -> None:
    """Check a folder, and leave with a status that says whether anything is anomalous."""
    parser = argparse.ArgumentParser(
        prog="python -m anomalib_htdgm.check",
        description="Learn what good looks like from a few photographs, and check a folder of others.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--good",
        type=Path,
        metavar="DIR",
        help="folder of good photographs, and those below it; best are ten",
    )
    parser.add_argument("--model", type=Path, metavar="FILE", help="checkpoint to check by, in place of learning")
    parser.add_argument("--new", type=Path, metavar="DIR", help="folder of photographs to check, with those below it")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for report.html, scores.csv and model.ckpt")
    parser.add_argument(
        "--project", type=Path, metavar="DIR", help="folder that keeps all of it, and copies of the photographs"
    )
    parser.add_argument("--tiles", type=int, help="look at N x N overlapping tiles, to find small defects (1)")
    parser.add_argument(
        "--region",
        metavar="L,T,R,B",
        help="where to look: left, top, right and bottom from 0 to 1, or an image that is white there (everywhere)",
    )
    parser.add_argument(
        "--align",
        action=argparse.BooleanOptionalAction,
        help="move each photograph to where the first good one lies, for parts that are alike but shifted (no)",
    )
    parser.add_argument("--watch", action="store_true", help="go on: check each file that comes, until Ctrl-C")
    arguments = parser.parse_args()
    _check(parser, arguments)
    sys.exit(_run(parser, arguments))


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse what cannot be done before anything is loaded, which takes seconds."""
    good, model, new, out, project = (getattr(arguments, name) for name in ("good", "model", "new", "out", "project"))
    tiles, is_file = arguments.tiles, any(each is not None and each.is_file() for each in (out, project))
    refused = {
        "--out, --project: got neither; --out DIR is a folder for the report, --project DIR one that keeps all": (
            out is None and project is None
        ),
        "--out, --project: got both; allowed is one of them": out is not None and project is not None,
        f"--out, --project: got {out or project}, which is a file; allowed is a folder": is_file,
        "--new: got none; allowed is a folder of photographs": new is None and (project is None or arguments.watch),
        "--good, --model: got none; allowed is a folder of good photographs, or a checkpoint": (
            good is None and model is None and project is None
        ),
        f"--good: got {good}, which is no folder; allowed is a folder of photographs": good and not good.is_dir(),
        f"--new: got {new}, which is no folder; allowed is a folder of photographs": new and not new.is_dir(),
        f"--model: got {model}, which is no file; allowed is a checkpoint": model and not model.is_file(),
        f"--region, --align: got both {model} and what a model is learnt with; allowed is one of them": (
            model is not None and (arguments.region is not None or arguments.align is not None)
        ),
        f"--tiles: got {tiles}; allowed are 1 to 16, and none beside --model": (
            tiles is not None and (not 1 <= tiles <= 16 or model is not None)  # noqa: PLR2004  # MOST_TILES of settings
        ),
    }
    for sentence, holds in refused.items():
        if holds:
            _refuse(parser, sentence)


def _run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    warnings.filterwarnings("ignore")  # of packages, which the reader cannot mend
    stopped, ready, by = Event(), Event(), []

    def stop(number: int, _: object) -> None:
        by.append(number)
        stopped.set()
        if not ready.is_set():  # from then on it ends after the present photograph
            raise KeyboardInterrupt

    for each in STOPPING:
        signal.signal(each, stop)
    try:
        is_to_be_looked_at = _check_folder(arguments, stopped, ready.set)
    except ValueError as error:
        _refuse(parser, str(error))
    except (KeyboardInterrupt, SystemExit):  # Lightning makes the one of the other, with a status of its own
        if not by:
            raise
        print("Broken off before a photograph was checked.", file=sys.stderr)  # noqa: T201
        return 128 + by[0]
    return 128 + by[0] if by and not arguments.watch else int(is_to_be_looked_at)


def _check_folder(arguments: argparse.Namespace, stopped: Event, ready: Callable[[], None]) -> bool:
    from anomalib_htdgm.inspection.preparing import Wanted  # noqa: PLC0415  # it takes seconds
    from anomalib_htdgm.inspection.regions import parse_region  # noqa: PLC0415
    from anomalib_htdgm.inspection.run import check  # noqa: PLC0415

    region = None if arguments.region is None else parse_region(arguments.region)
    for name in ("lightning.pytorch", "lightning.fabric", "lightning_fabric", "anomalib", "anomalib_htdgm"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return check(Wanted(**vars(arguments) | {"region": region}), stopped, ready)


def _refuse(parser: argparse.ArgumentParser, sentence: str) -> NoReturn:
    """End with one sentence; a list of all arguments before it would hide it."""
    parser.exit(2, f"{sentence}\n")


if __name__ == "__main__":
    main()
