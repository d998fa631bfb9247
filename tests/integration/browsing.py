# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What a user of the page does, and waits for, in a browser."""

import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from PIL import Image
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.support.wait import WebDriverWait
from skimage import data as pictures

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "figures"))

from demo import find, wait_for


def begin(browser: Chrome, name: str) -> None:
    """Begin a project by its name, and wait for its page."""
    wait_for(browser, "projects", "7 good")  # the page is ready to be used
    find(browser, "#new-name textarea, #new-name input").send_keys(name)
    click(browser, "#begin")
    wait_for(browser, "good", "No good photograph yet. Drop one to ten")


def open_project(browser: Chrome, name: str) -> None:
    browser.get(browser.current_url.partition("?")[0] + "?project=" + quote(name))


def drop(browser: Chrome, name: str, *paths: Path) -> None:
    find(browser, f"#{name} input[type=file]").send_keys("\n".join(map(str, paths)))


def click(browser: Chrome, selector: str) -> None:
    browser.execute_script("arguments[0].click()", find(browser, selector))


def press(browser: Chrome, key: str) -> None:
    find(browser, "body").send_keys(key)


def wait_until(browser: Chrome, condition: Callable[[], bool]) -> None:
    WebDriverWait(browser, 20).until(lambda _: condition())


def paint(browser: Chrome) -> None:
    """Paint a stroke of 80 x 60 pixels, around the middle of what is painted on."""
    canvas = find(browser, "#region canvas")
    wait_until(browser, lambda: canvas.size["width"] > 100)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    stroke = ActionChains(browser).move_to_element_with_offset(canvas, -40, -30).click_and_hold()
    for right, down in ((80, 0), (0, 60), (-80, 0), (0, -60)):
        stroke.move_by_offset(right, down)
    stroke.release().perform()


def write_photographs(folder: Path) -> dict[str, Path]:
    """Write photographs of grass, one with a scratch, and what is no photograph."""
    grass = pictures.grass()
    bad = grass[300:428, 300:428].copy()
    bad[60:70, 20:110] = 255
    images = {"first.png": grass[:128, :128], "second.png": grass[:128, 200:328], "third.png": grass[200:328, :128]}
    for name, pixels in (images | {"bad.png": bad}).items():
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.txt").write_text("no photograph")
    return {path.name: path for path in folder.iterdir()}
