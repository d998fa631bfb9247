# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Opens the page: ``python -m anomalib_htdgm.demo``."""

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory


def main() -> None:
    """Serve the page until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m anomalib_htdgm.demo", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (that of this machine alone)")
    parser.add_argument("--port", type=int, help="port to listen at (the first free one from 7860 on)")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    arguments = parser.parse_args()
    if find_spec("gradio") is None:
        sys.exit("The page needs Gradio: pip install 'anomalib-htdgm[demo]', or '.[demo]' in a clone of the repository")
    with TemporaryDirectory(prefix="htdgm_") as folder:
        # Gradio reads these when it is imported, or later: no telemetry, and uploads vanish with the rest.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(Path(folder) / "uploads")}
        from .page import STYLE, Page  # noqa: PLC0415

        page = Page(Path(folder)).build()
        page.launch(
            server_name=arguments.host,
            server_port=arguments.port,
            inbrowser=not arguments.no_browser,
            share=False,
            show_error=True,
            footer_links=[],
            css=STYLE,
            max_file_size="200mb",
        )


if __name__ == "__main__":
    main()
