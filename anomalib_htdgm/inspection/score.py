# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Scores photographs by the ``model.onnx`` beside this file.

It needs numpy, Pillow and onnxruntime alone. If photographs are aligned, it also needs OpenCV, and ``aligning.py`` and
``reference.png`` beside it.

    python score.py PHOTOGRAPH...

prints a line of JSON for each photograph. The exit status is 1 if one is anomalous or to be looked at, 2 if one cannot
be read, else 0. What is wrong with a photograph itself, such as blur, is not seen here.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

MODEL = Path(__file__).with_name("model.onnx")


def read(path: str | Path) -> Any:  # noqa: ANN401  # numpy's arrays
    """Read a photograph upright, in three channels: float32 in [0, 1], of shape ``(1, 3, H, W)``."""
    with Image.open(path) as image:
        image.filename = ""  # else Pillow garbles grey TIFFs that it turns
        if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
            msg = "it has 32 bits a channel, of which none is known to be white"
            raise ValueError(msg)
        if image.mode.startswith("I"):  # grey of 16 bits
            image.load()
            grey = np.asarray(_turn(image)).astype(np.float32) / 65535
            pixels = np.repeat(grey[:, :, None], 3, axis=2)
        else:
            pixels = np.asarray(_turn(image.convert("RGB"))).astype(np.float32) / 255
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def _turn(image: Any) -> Any:  # noqa: ANN401
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001  # damaged notes, beside which pixels may be whole
        return image


class Scorer:
    """Scores photographs.

    Args:
        model (Path): The model. What it was exported with is in its metadata: the threshold, and the scores between
            which a photograph is to be looked at. Without metadata the threshold is 0.5, and there is no such range.
    """

    def __init__(self, model: Path = MODEL) -> None:
        self.session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        noted = json.loads(self.session.get_modelmeta().custom_metadata_map.get("htdgm", "{}"))
        self.threshold = noted.get("threshold", 0.5)
        self.low, self.high = noted.get("band", [self.threshold, self.threshold])
        self.reference = None
        if noted.get("align"):
            self.reference = np.asarray(Image.open(model.with_name("reference.png")).convert("RGB"))

    def score(self, path: str | Path) -> dict[str, Any]:
        """Score a photograph: ``score``, ``threshold``, ``anomalous`` (is it above it?) and ``verdict``."""
        photograph = read(path)
        if self.reference is not None:
            from aligning import align  # noqa: PLC0415  # it is there only where it is needed

            photograph = align(photograph[0], self.reference)[0][None]
        outputs = self.session.run(["pred_score", "pred_label"], {"input": photograph})
        score, label = float(outputs[0].item()), bool(outputs[1].item())
        # Scores are cut off at 1, so nothing is known to be above a higher limit.
        verdict = "anomalous" if score > min(self.high, 1 - 1e-6) else "look at it" if score > self.low else "good"
        return {"score": score, "threshold": self.threshold, "anomalous": label, "verdict": verdict}


def main() -> None:
    """Print a line for each photograph."""
    parser = argparse.ArgumentParser(description="Score photographs by the model.onnx beside this file.")
    parser.add_argument("photographs", nargs="+", type=Path, metavar="PHOTOGRAPH")
    status, scorer = 0, Scorer()
    for path in parser.parse_args().photographs:
        try:
            found = scorer.score(path)
        except Exception as error:  # noqa: BLE001  # Pillow raises nearly anything for a damaged file
            found = {"verdict": "cannot be read", "problem": str(error)}
        status = max(status, {"good": 0, "cannot be read": 2}.get(found["verdict"], 1))
        print(json.dumps({"photograph": str(path), **found}))  # noqa: T201
    sys.exit(status)


if __name__ == "__main__":
    main()
