# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Opens the page: ``python -m anomalib_htdgm.demo``."""

import argparse
import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory


def main() -> None:
    """Serve the page until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m anomalib_htdgm.demo", description="Open a page to try Htdgm on one's own photographs."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1: this machine alone)")
    parser.add_argument("--port", type=int, help="port to listen at (the first free one from 7860 on)")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    arguments = parser.parse_args()
    if find_spec("gradio") is None:
        sys.exit("The page needs Gradio: pip install 'anomalib-htdgm[demo]', or '.[demo]' in a clone of the repository")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, so that photographs do not stay behind
    with TemporaryDirectory(prefix="htdgm_", ignore_cleanup_errors=True) as folder:
        serve(Path(folder), arguments.host, arguments.port, open_browser=not arguments.no_browser)


def serve(folder: Path, host: str, port: int | None, *, open_browser: bool) -> None:
    """Serve the page, keeping all that it is given or makes in a folder; no port is the first free one from 7860 on."""
    # Gradio reads these when it is imported, or later: no telemetry, and uploads go with the rest.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(folder / "uploads")}
    from .page import STYLE, Page  # noqa: PLC0415

    sessions = folder / "sessions"
    sessions.mkdir()
    blocks = Page(sessions).build()
    try:
        _, address, _ = blocks.launch(
            server_name=host,
            server_port=port,
            inbrowser=open_browser,
            share=False,
            show_error=True,
            footer_links=[],
            css=STYLE,
            max_file_size="200mb",
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError:
        given = f"{host} and {port or 'none'}"
        sys.exit(f"--host, --port: got {given}; allowed are an address of this machine and a port that is free")
    print(f"The page is at {address} until you press Ctrl-C.", flush=True)  # noqa: T201
    blocks.block_thread()


if __name__ == "__main__":
    main()
