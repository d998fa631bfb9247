# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Pack FashionMNIST's four files, as a Linux distribution installs them, into the ``.npz`` file that OneClass reads.

apt install dataset-fashion-mnist
python benchmarks/quality/pack_fashion_mnist.py /usr/share/datasets/fashion-mnist fashion_mnist.npz
"""

import argparse
import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

IMAGE_HEADER, LABEL_HEADER = 16, 8  # bytes before the data in files of the IDX format


def read(directory: Path, prefix: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read the images, of shape ``(N, 28, 28)``, and the labels of the files that begin with ``prefix``."""
    images, labels = (
        np.frombuffer(gzip.decompress((directory / f"{prefix}-{kind}-ubyte.gz").read_bytes()), np.uint8, offset=header)
        for kind, header in (("images-idx3", IMAGE_HEADER), ("labels-idx1", LABEL_HEADER))
    )
    return images.reshape(len(labels), 28, 28), labels


def main() -> None:
    """Read the arguments and pack."""
    parser = argparse.ArgumentParser(description="Pack FashionMNIST's four files into one for OneClass.")
    parser.add_argument("directory", type=Path, help="directory of train-images-idx3-ubyte.gz and the other three")
    parser.add_argument("output", type=Path, help="file to write, .npz")
    arguments = parser.parse_args()
    (x_train, y_train), (x_test, y_test) = (read(arguments.directory, prefix) for prefix in ("train", "t10k"))
    np.savez_compressed(arguments.output, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


if __name__ == "__main__":
    main()
