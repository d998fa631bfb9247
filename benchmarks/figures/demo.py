# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Draws the picture of the page that the README shows: a screenshot in Chromium, without a screen.

    python benchmarks/figures/demo.py

Needs ``pip install '.[test]'`` and the programs ``chromium`` and ``chromedriver``, Debian's packages ``chromium`` and
``chromium-driver``.
"""

import argparse
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import URLError
from urllib.request import urlopen

from PIL import Image
from selenium.webdriver import Chrome, ChromeOptions, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

PICTURE = Path(__file__).parent / "demo.png"
SIZE = (1360, 1139)
"""Of the window, whose page has 1360 x 1000 pixels, about."""
OFFLINE = (
    "--headless=new",
    "--no-sandbox",  # which Chromium cannot set up as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
PATIENCE = 120
"""Seconds that a training may take on a machine that does other things, too."""


def has_browser() -> bool:
    """Tell whether Chromium and its driver are there."""
    return all(map(shutil.which, ("chromium", "chromedriver")))


@contextmanager
def serve(command: Sequence[str] = (sys.executable, "-m", "anomalib_htdgm.demo")) -> Iterator[str]:
    """Serve the page.

    Args:
        command: The command, but for its options.

    Yields:
        The address of the page.

    Raises:
        TimeoutError: If the page does not appear.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/"
    with subprocess.Popen([*command, "--no-browser", "--port", str(port)]) as process:  # noqa: S603
        try:
            _wait_until_there(address, process)
            yield address
        finally:
            process.terminate()


def _wait_until_there(address: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            with urlopen(address):  # noqa: S310
                return
        except (URLError, ConnectionError):  # noqa: PERF203
            time.sleep(0.02)
    msg = f"{address} did not appear"
    raise TimeoutError(msg)


@contextmanager
def browse(address: str) -> Iterator[Chrome]:
    """Open a page in Chromium.

    Args:
        address: Address of the page.

    Yields:
        The browser, which notes the requests that it makes.
    """
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ChromeOptions()
        options.binary_location = shutil.which("chromium") or "chromium"
        for argument in (*OFFLINE, f"--user-data-dir={profile}", "--window-size={},{}".format(*SIZE)):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        browser = Chrome(options, Service(shutil.which("chromedriver")))
        try:
            browser.get(address)
            yield browser
        finally:
            browser.quit()


def find(browser: Chrome, selector: str) -> WebElement:
    """Wait for an element of the page, and return it."""
    return WebDriverWait(browser, PATIENCE).until(lambda each: each.find_element(By.CSS_SELECTOR, selector))


def wait_for(browser: Chrome, name: str, text: str) -> str:
    """Wait until an element of the page has a text, and return all of its text."""
    # An element may be replaced while it is looked at.
    return WebDriverWait(browser, PATIENCE).until(
        lambda each: (
            (shown := each.execute_script(f"return document.getElementById('{name}')?.innerText ?? ''"))
            and text in shown
            and shown
        )
    )


def set_threshold(browser: Chrome, threshold: float) -> None:
    """Move the slider, by the number beside it."""
    number = find(browser, "#threshold input[type=number]")
    number.send_keys(Keys.CONTROL, "a")
    number.send_keys(f"{threshold}", Keys.ENTER)


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=PICTURE, help="where the picture goes")
    arguments = parser.parse_args()
    with TemporaryDirectory() as projects:
        command = (sys.executable, "-m", "anomalib_htdgm.demo", "--projects", projects)
        screenshot = _photograph(command)
    screenshot.convert("RGB").save(arguments.into, optimize=True)


def _photograph(command: Sequence[str]) -> Image.Image:
    with serve(command) as address, browse(address) as browser:
        find(browser, ".project").click()
        wait_for(browser, "message", "Learnt 7")
        wait_for(browser, "new-message", "6 checked")
        time.sleep(1)  # until pictures are drawn
        return Image.open(BytesIO(browser.get_screenshot_as_png()))


if __name__ == "__main__":
    main()
