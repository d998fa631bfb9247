# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Draw how the method works. Every picture, vote and score in the figure is the package's own output.

The photographs are the quick start's, brick with a pasted patch of gravel (CC0). The model is trained with the
defaults; the test image is one that it judges well.

Command:
    python benchmarks/figures/method.py --output benchmarks/figures/method.svg
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from skimage.io import imread

from anomalib_htdgm import QuickstartTextures
from anomalib_htdgm.data.few_shot import draw_shots
from anomalib_htdgm.models.htdgm.canvases import Canvases, CanvasGroup
from anomalib_htdgm.models.htdgm.networks import MARGIN, NUM_BLOCKS, RECEPTIVE_FIELD
from anomalib_htdgm.models.htdgm.torch_model import HtdgmModel
from anomalib_htdgm.models.htdgm.training import Training
from anomalib_htdgm.models.htdgm.transformations import TRANSFORMATION_SETS, Transformation, shift_length

WIDTH, HEIGHT = 9.375, 5.05  # inches: 900 pixels wide, so that a point of type is a point on the page
INK, GREY, FAINT, BLUE, RED = "#222222", "#777777", "#e4e8ec", "#0072b2", "#d55e00"
TOP, BOTTOM = 4.93, 2.28  # where the headings of the two rows are
TIMES, MINUS = "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}"
K_SHOT = 10
EXAMPLE = 19  # number of the test image


class Data:
    """The photographs, as images in [-1, 1] of shape ``(B, 3, 128, 128)``."""

    def __init__(self) -> None:
        with TemporaryDirectory() as root:
            QuickstartTextures("brick", root=root).prepare_data()
            directory = Path(root) / "brick_seed0"
            paths = sorted((directory / "good").glob("*.png"))
            self.shots = _read([paths[index] for index in draw_shots(len(paths), K_SHOT, seed=0)])
            self.tests = _read([directory / kind / f"{EXAMPLE:03}.png" for kind in ("test_good", "defect")])
            self.mask = imread(directory / "mask" / f"{EXAMPLE:03}.png") > 0


def _read(paths: Sequence[Path]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(imread(path)).expand(3, -1, -1) / 127.5 - 1 for path in paths])


def train(shots: torch.Tensor) -> HtdgmModel:
    """Train the model with its defaults."""
    model = HtdgmModel(input_size=(128, 128), k_shot=len(shots))
    for _ in Training().run(model, shots):
        pass
    return model


class Page:
    """A page in inches, the origin at its lower left."""

    def __init__(self) -> None:
        mpl.rcParams.update(
            {
                "font.family": "DejaVu Sans",
                "font.size": 9,
                "svg.fonttype": "path",
                "svg.hashsalt": "method",
                "text.color": INK,
            }
        )
        self.figure = plt.figure(figsize=(WIDTH, HEIGHT), facecolor="white")
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
        self.axes.axis("off")

    def heading(self, x: float, y: float, number: int, title: str) -> None:
        """Write the heading of a step, its upper edge at ``y``."""
        self.axes.text(x, y, str(number), size=11, weight="bold", color=BLUE, va="top")
        self.axes.text(x + 0.2, y, title, size=11, weight="bold", va="top")

    def text(self, x: float, y: float, text: str, color: str = INK, ha: str = "left", va: str = "top") -> None:
        """Write text."""
        self.axes.text(x, y, text, color=color, ha=ha, va=va, linespacing=1.3)

    def image(self, x: float, y: float, side: float, image: torch.Tensor) -> None:
        """Show an image in [-1, 1], its lower left corner at ``x``, ``y``."""
        pixels = (image / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy()
        self._show(x, y, side, (255 * pixels).round().astype(np.uint8))

    def heat(self, x: float, y: float, side: float, values: torch.Tensor, limit: float) -> None:
        """Show a map of anomaly, from 0 to ``limit``."""
        colours = mpl.colormaps["inferno"]((values / limit).clamp(0, 1).numpy())
        self._show(x, y, side, (255 * colours[..., :3]).round().astype(np.uint8))

    def _show(self, x: float, y: float, side: float, pixels: NDArray[np.uint8]) -> None:
        extent = (x, x + side, y, y + side)
        self.axes.imshow(pixels, extent=extent, interpolation="none", aspect="auto", zorder=1)
        self.axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))

    def save(self, path: Path) -> None:
        """Write the figure; an SVG without what only makes it longer: most of it are the names of glyphs."""
        is_svg = path.suffix == ".svg"
        self.figure.savefig(path, metadata={"Date": None} if is_svg else None)
        if is_svg:
            lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
            path.write_text(
                "\n".join(lines).replace("DejaVuSans-", "d").replace(' 0)"/>', ')"/>') + "\n", encoding="utf-8"
            )

    def box(self, x: float, y: float, width: float, height: float, color: str, style: str = "-") -> None:
        """Draw the outline of a rectangle."""
        patch = Rectangle((x, y), width, height, fill=False, edgecolor=color, linewidth=1.6, linestyle=style, zorder=3)
        self.axes.add_patch(patch)

    def arrow(self, x: float, y: float, length: float) -> None:
        """Draw an arrow to the right."""
        style = {"arrowstyle": "-|>,head_width=0.2,head_length=0.35", "color": GREY, "linewidth": 1.2}
        self.axes.annotate("", (x + length, y), (x, y), arrowprops=style | {"shrinkA": 0, "shrinkB": 0})


def draw_images(page: Page, shots: torch.Tensor, test: torch.Tensor) -> None:
    """Step 1: the training images, as a fan of cards, and a test image."""
    left, side, fan = 0.15, 0.82, 0.09
    y = TOP - 1.42
    page.heading(left, TOP, 1, "A few images")
    for card in (2, 1, 0):
        corner = left + fan * card, y + fan * card
        page.axes.add_patch(Rectangle((corner[0] - 0.02, corner[1] - 0.02), side + 0.04, side + 0.04, color="white"))
        page.image(*corner, side, shots[card])
    page.image(left + 1.22, y, side, test)
    page.text(left + side / 2, y - 0.06, "training", GREY, ha="center")
    page.text(left + 1.22 + side / 2, y - 0.06, "test", GREY, ha="center")
    page.text(
        left, y - 0.28, "Trained on one to a few good\nimages and nothing else. Then:\nis the test image like them?"
    )


def draw_pyramid(page: Page, scales: Sequence[torch.Tensor]) -> None:
    """Step 2: the pyramid of the test image, with the receptive field."""
    left, gap, pixel = 2.62, 0.05, 0.0063
    page.heading(left, TOP, 2, "Seven scales")
    x, y = left, TOP - 1.42
    for scale in scales:
        size = scale.shape[-1]
        page.image(x, y, size * pixel, scale)
        offset = (size - RECEPTIVE_FIELD) // 2 * pixel
        page.box(x + offset, y + offset, RECEPTIVE_FIELD * pixel, RECEPTIVE_FIELD * pixel, BLUE)
        if size == scales[0].shape[-1] or size > 2 * RECEPTIVE_FIELD:  # numbers that stand too close for reading
            page.text(x + size * pixel / 2, y - 0.06, str(size), GREY, ha="center")
        x += size * pixel + gap
    page.text(
        left,
        y - 0.28,
        "Reduced to 12 to 96 pixels. The finest three\n"
        f"vote, by patches of 11 {TIMES} 11; those up to 48\npixels remember patches of 5 {TIMES} 5.",
    )


def draw_canvases(page: Page, image: torch.Tensor) -> None:
    """Step 3: canvases of the set ``full``, and a transformed image as a crop of one of them."""
    left, side = 5.92, 1.12
    size, shift = image.shape[-1], shift_length(image.shape[-1])
    groups = Canvases(TRANSFORMATION_SETS["full"], size).groups
    coloured = [
        (canvas, image.flatten(1)[:, canvas.locate_pixels()])
        for group in groups
        if isinstance(group, CanvasGroup)
        for canvas in group.canvases
        if not canvas.source_start  # the image itself, not the one without colour
    ]
    canvas, drawn = next(pair for pair in coloured if not pair[0].flip and not pair[0].quarter_turns)
    shifted = Transformation(right=1, down=1)
    top, start = -canvas.rows.start - shift, -canvas.columns.start - shift
    if not torch.equal(drawn[:, top : top + size, start : start + size], shifted.apply(image)):
        msg = "a shifted image is not a crop of the canvas"
        raise RuntimeError(msg)
    page.heading(left, TOP, 3, "Transformed images on canvases")
    y, pixel = TOP - 1.42, side / drawn.shape[-1]
    page.image(left, y, side, drawn)
    page.box(left + shift * pixel, y + shift * pixel, size * pixel, size * pixel, BLUE)
    page.box(left + start * pixel, y + side - (top + size) * pixel, size * pixel, size * pixel, RED, "--")
    small = 0.5 / drawn.shape[-1]
    coloured.sort(key=lambda pair: (pair[0].flip, pair[0].quarter_turns))
    for bottom, row in ((y + side - 0.5, coloured[:4]), (y, coloured[4:])):
        x = left + side + 0.14
        for _, picture in row:
            page.image(x, bottom, picture.shape[-1] * small, picture)
            x += picture.shape[-1] * small + 0.07
    page.text(left, y - 0.06, "image", BLUE)
    page.text(left + 0.52, y - 0.06, "shifted", RED)
    page.text(
        left,
        y - 0.28,
        'The 54 transformed images of the set "full" are\ncrops of 16 canvases (8 more: without colour).\n'
        "The default is sharpness, on 3 canvases: as it\nis, enlarged, blurred.",
    )


def draw_discriminator(page: Page, image: torch.Tensor, votes: torch.Tensor, limit: float) -> None:
    """Step 4: through five convolutions to a map of votes, here of the enlarged image, put back in its place."""
    left, side, block, gap = 0.15, 0.82, 0.3, 0.07
    size = image.shape[-1]
    pixel = side / size
    y = BOTTOM - 1.22
    page.heading(left, BOTTOM, 4, "Discriminators at each scale")
    page.image(left, y, side, image)
    patch = (size // 2 - MARGIN) * pixel
    page.box(left + patch, y + patch, RECEPTIVE_FIELD * pixel, RECEPTIVE_FIELD * pixel, BLUE)
    x = left + side + 0.12
    for layer in range(1, NUM_BLOCKS + 1):
        height = (size - 2 * layer) * pixel
        page.axes.add_patch(Rectangle((x, y + layer * pixel), block, height, facecolor=FAINT, edgecolor="none"))
        page.text(x + block / 2, y + side / 2, f"3{TIMES}3", ha="center", va="center")
        page.text(x + block / 2, y - 0.06, str(size - 2 * layer), GREY, ha="center")
        x += block + gap
    page.text(left + side / 2, y - 0.06, f"{size} {TIMES} {size}", GREY, ha="center")
    x += 0.05
    page.heat(x, y + MARGIN * pixel, votes.shape[-1] * pixel, votes, limit)
    middle = (votes.shape[-1] // 2) * pixel
    page.box(x + middle - pixel, y + MARGIN * pixel + middle - pixel, 3 * pixel, 3 * pixel, BLUE)
    page.text(
        x + votes.shape[-1] * pixel / 2, y - 0.06, f"{votes.shape[-1]} {TIMES} {votes.shape[-1]}", GREY, ha="center"
    )
    page.text(
        left,
        y - 0.28,
        "Five convolutions without padding, 16 channels.\nOf every patch: how sharp is it? Two at each\n"
        "scale, for half of the training images each.",
    )


def draw_votes(
    page: Page, image: torch.Tensor, probabilities: torch.Tensor, patches: Sequence[tuple[int, int]]
) -> None:
    """Step 5: two patches, and the probability of the right sharpness at each."""
    left, side = 4.1, 0.82
    pixel = side / image.shape[-1]
    y = BOTTOM - 1.22
    page.heading(left, BOTTOM, 5, "One vote per patch")
    page.image(left, y, side, image)
    colours = (BLUE, RED)
    for (row, column), colour in zip(patches, colours, strict=True):
        bottom = y + side - (row + RECEPTIVE_FIELD) * pixel
        page.box(left + column * pixel, bottom, RECEPTIVE_FIELD * pixel, RECEPTIVE_FIELD * pixel, colour)
    base, full, bar = left + side + 0.6, 0.76, 0.12
    for level, name in ((0, "0"), (1 / 3, "chance"), (1, "1")):
        page.axes.plot([base, base + 1.44], [y + level * full] * 2, color="#c8ced4", linewidth=1, zorder=0)
        page.text(base - 0.05, y + level * full, name, GREY, ha="right", va="center")
    for index, name in enumerate(("as is", "larger", "blurred")):
        x = base + 0.1 + 0.48 * index
        for offset, (row, column), colour in zip((0, bar), patches, colours, strict=True):
            height = float(probabilities[index, row, column]) * full
            page.axes.add_patch(Rectangle((x + offset, y), bar - 0.01, height, color=colour, linewidth=0))
        page.text(x + bar, y - 0.06, name, GREY, ha="center")
    page.text(
        left,
        y - 0.28,
        "Probability p of the right sharpness, of the\nimage in three. Blue: a typical good patch;\n"
        "red: a typical patch of the defect.",
    )


def draw_result(page: Page, maps: torch.Tensor, scores: torch.Tensor, limit: float) -> None:
    """Step 6: map and score of the same test image without and with the pasted patch."""
    left, side = 7.34, 0.82
    y = BOTTOM - 1.22
    page.heading(left, BOTTOM, 6, "Score and map")
    for column, name in enumerate(("good", "defect")):
        x = left + 0.98 * column
        page.heat(x, y, side, maps[column, 0], limit)
        page.text(x + side / 2, y - 0.06, f"{name}: {float(scores[column]):.1f}", GREY, ha="center")
    page.text(
        left,
        y - 0.28,
        f"Geometric mean of {MINUS}log p\nand the memory's distances,\nwhich count twice.",
    )


def choose_patches(anomalies: torch.Tensor, mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Choose a typical patch of the good area and one of the defect: those of median anomaly.

    Args:
        anomalies (torch.Tensor): Mean anomaly of each patch, of shape ``(h, h)``.
        mask (NDArray[np.bool_]): True in the defect.

    Returns:
        list[tuple[int, int]]: Row and column of the upper left corner of both patches.
    """
    votes = anomalies.shape[-1]
    scaled = torch.from_numpy(mask)[None, None].float()
    shares = torch.nn.functional.interpolate(scaled, (votes + 2 * MARGIN,) * 2, mode="area")
    shares = torch.nn.functional.avg_pool2d(shares, RECEPTIVE_FIELD, stride=1)[0, 0]
    chosen = []
    for area in (shares == 0, shares >= shares.max() * 0.95):
        where = area.nonzero()
        values = anomalies[area]
        row, column = where[(values - values.median()).abs().argmin()].tolist()
        chosen.append((row, column))
    return chosen


def main() -> None:
    """Train, and draw the figure."""
    parser = argparse.ArgumentParser(description="Draw how the method works.")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("method.svg"), help="file to write")
    arguments = parser.parse_args()
    data = Data()
    model = train(data.shots)
    with torch.no_grad():
        scales = model.reduce(data.tests)
        log_probabilities = model.votes(data.tests)[0][-1]  # of sharpness
        prediction = model(data.tests)
    votes = model.canvases_of(len(scales) - 1).invert(log_probabilities)[1]
    maps = torch.nn.functional.interpolate(prediction.anomaly_map, (64, 64), mode="area")
    limit = float(maps.max())
    page = Page()
    draw_images(page, model.reduce(data.shots)[-1], scales[-1][1])
    draw_pyramid(page, [scale[1] for scale in scales])
    draw_canvases(page, scales[3][1])  # small enough for a canvas to show what is reflected
    draw_discriminator(page, scales[-1][1], -votes[1], float(-votes[1].min()))
    draw_votes(page, scales[-1][1], votes.exp(), choose_patches(-votes.mean(dim=0), data.mask))
    draw_result(page, maps, prediction.pred_score, limit)
    page.arrow(2.27, TOP - 1.01, 0.24)
    page.arrow(5.6, TOP - 1.01, 0.24)
    page.arrow(3.78, BOTTOM - 0.81, 0.22)
    page.arrow(7.02, BOTTOM - 0.81, 0.2)
    page.save(arguments.output)


if __name__ == "__main__":
    main()
