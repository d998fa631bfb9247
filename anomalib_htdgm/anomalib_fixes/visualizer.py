# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Heat maps of all images, each in a file of its own, over the image as the model has read it.

anomalib 2.7 names a picture after an image's file and folder alone, so that the picture of ``tuesday/new/0.png`` takes
the place of ``monday/new/0.png``'s. It reads the file anew, lying as the camera was held, and 16 bits as white. For an
image without a file it has no name.
"""

from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from anomalib.data import ImageBatch
from anomalib.visualization import ImageVisualizer, Visualizer
from lightning.pytorch import LightningModule, Trainer
from torchvision.transforms.v2 import Compose, Normalize
from torchvision.transforms.v2.functional import resize

from anomalib_htdgm.data.reading import read_image

if TYPE_CHECKING:
    from PIL.Image import Image

WRITABLE = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
"""Endings under which a picture is saved as its image's; to others ``.png`` is added."""


class DistinctVisualizer(ImageVisualizer):
    """anomalib's visualizer, with a picture for each image; its arguments are anomalib's.

    Below ``images``, pictures lie as their images do below the current directory, or else below the file system's root.
    """

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw and save a picture of each image of a batch."""
        del outputs
        folder = Path(self.output_dir or Path(trainer.default_root_dir, "images"))
        for index, item in enumerate(batch):
            if item.image_path is not None and Path(item.image_path).is_file():
                target = folder / _place(Path(item.image_path))
                item.image = read_image(item.image_path, as_tensor=True)
            else:
                target = folder / f"loader_{dataloader_idx}_batch_{batch_idx}_image_{index}.png"
                item.image = _undo_normalization(torch.as_tensor(item.image), getattr(pl_module, "pre_processor", None))
            item.image_path = None  # else anomalib would read it
            # Of the size that it is drawn in, since anomalib takes an image of one row for one without rows.
            item.image = resize(torch.as_tensor(item.image), [*self.field_size[::-1]], antialias=True)
            picture = cast("Image | None", self.visualize(item))  # of an item, not a list
            if picture is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                picture.save(target)


def adopt_visualizer(visualizer: Visualizer | None) -> Visualizer | None:
    """Let anomalib's own visualizer name each picture, too; those of other makes stay as they are."""
    if type(visualizer) is not ImageVisualizer:
        return visualizer
    adopted = DistinctVisualizer()
    vars(adopted).update(vars(visualizer))
    return adopted


def _place(image_path: Path) -> Path:
    """Name a picture after the whole path of its image."""
    path, here = image_path.absolute(), Path.cwd()
    below = path.relative_to(here if path.is_relative_to(here) else path.anchor)
    return below if path.suffix.lower() in WRITABLE else below.with_name(f"{path.name}.png")


def _undo_normalization(image: torch.Tensor, pre_processor: object) -> torch.Tensor:
    """Bring an image back to [0, 1], whose pre-processor may have normalised it last of all."""
    transform = getattr(pre_processor, "transform", None)
    last = transform.transforms[-1] if isinstance(transform, Compose) else transform
    if isinstance(last, Normalize):
        mean, deviation = (image.new_tensor(each)[:, None, None] for each in (last.mean, last.std))
        image = image * deviation + mean
    return image.clamp(0, 1)
