# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Opens the page: ``python -m anomalib_htdgm.demo``."""

import argparse
import os
import signal
import socket
import sys
import webbrowser
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from secrets import token_urlsafe
from tempfile import TemporaryDirectory

PROJECTS = Path("~/.local/share/anomalib-htdgm")
PORTS = range(7860, 7960)


def main() -> None:
    """Serve the page until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m anomalib_htdgm.demo", description="Open a page to try Htdgm on one's own photographs."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1: this machine alone)")
    parser.add_argument("--port", type=int, help="port to listen at (the first free one from 7860 on)")
    parser.add_argument("--projects", type=Path, default=PROJECTS, help=f"folder of the projects ({PROJECTS})")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    arguments = parser.parse_args()
    if find_spec("gradio") is None:
        sys.exit("The page needs Gradio: pip install 'anomalib-htdgm[demo]', or '.[demo]' in a clone of the repository")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, so that uploads do not stay behind
    root = arguments.projects.expanduser().resolve()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"--projects: got {root}; allowed is a folder that can be written to ({error.strerror})")
    with TemporaryDirectory(prefix="htdgm_", ignore_cleanup_errors=True) as folder, suppress(KeyboardInterrupt):
        serve(root, Path(folder), arguments.host, arguments.port, open_browser=not arguments.no_browser)


def serve(root: Path, uploads: Path, host: str, port: int | None, *, open_browser: bool) -> None:
    """Serve the page and the endpoint; others than this machine need a token, which is printed."""
    listening = _listen(host, port)
    # Gradio reads these when it is imported, or later: no telemetry, and uploads go with the server.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(uploads)}
    import gradio as gr  # noqa: PLC0415
    import uvicorn  # noqa: PLC0415

    from anomalib_htdgm.inspection.project import list_projects  # noqa: PLC0415

    from .inspectors import Inspectors  # noqa: PLC0415
    from .layout import KEYS, STYLE  # noqa: PLC0415
    from .page import Page  # noqa: PLC0415
    from .part import write_example  # noqa: PLC0415
    from .serving import build_app, is_local  # noqa: PLC0415

    if not list_projects(root):
        write_example(root)
    inspectors, token = Inspectors(root), None if is_local(host) else token_urlsafe(16)
    app = build_app(inspectors, token)
    options = {"css": STYLE, "js": KEYS, "footer_links": [], "max_file_size": "200mb", "show_error": True}
    gr.mount_gradio_app(app, Page(inspectors).build(), "/", allowed_paths=[str(root)], ssr_mode=False, **options)
    address = f"http://{host}:{listening.getsockname()[1]}/"
    shown = f"{address}?token={token}" if token else address
    print(f"The page is at {shown} until you press Ctrl-C. Projects are in {root}.", flush=True)  # noqa: T201
    if token:
        print(f"Programs send the header 'Authorization: Bearer {token}'.", flush=True)  # noqa: T201
    if open_browser:
        webbrowser.open(shown)
    uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)).run(sockets=[listening])


def _listen(host: str, port: int | None) -> socket.socket:
    """Listen before anything is loaded, so that a browser may ask at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in PORTS if port is None else [port]:
        with suppress(OSError, OverflowError):
            return socket.create_server((host, candidate), family=family)
    given = f"{host} and {port or 'none'}"
    sys.exit(f"--host, --port: got {given}; allowed are an address of this machine and a port that is free")


if __name__ == "__main__":
    main()
