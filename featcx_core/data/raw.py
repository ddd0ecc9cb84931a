"""What a source gives: pictures with labels in two splits, and what it understood of the files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from featcx_core.data.decoding import Fit, decode
from featcx_core.data.images import Shape, stratified_split
from featcx_core.errors import InputError

Progress = Callable[[int, int], None]
DECODED = 125  # images that a thread decodes in a turn
HELD_OUT = 0.2  # of the images where there is no test split, unless dataset.test says otherwise
TESTS = ("test", "validation", "valid", "val", "eval", "dev")  # what may be the test split, best first


@dataclass(frozen=True)
class RawData:
    """uint8 images (n, H, W, C), int64 labels (n,) of both splits, class names, and whether flips keep the class."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: tuple[str, ...]
    flip: bool


@dataclass(frozen=True)
class Labels:
    """What is known of a source without decoding an image.

    Attributes:
        train, test: int64 labels of both splits.
        classes: their names.
        notes: what was understood or left out, a sentence each.
    """

    train: np.ndarray
    test: np.ndarray
    classes: tuple[str, ...]
    notes: list[str] = field(default_factory=list)


class Source(Protocol):
    """Where a data set comes from."""

    def load(self, progress: Progress) -> RawData:
        """The whole data set, decoded."""

    def labels(self) -> Labels:
        """What is known without decoding."""

    def shape(self) -> Shape:
        """(C, H, W) of an image, by decoding one."""

    def files(self) -> list[Path]:
        """The user's files, whose bytes belong in a key; empty for what a library ships."""


def held_out(labels: np.ndarray, share: float | None) -> tuple[np.ndarray, np.ndarray, str]:
    """(indices to train on, indices to test on, a sentence) where there is no test split: a fixed, stratified share."""
    part = HELD_OUT if share is None else share
    test, train = stratified_split(labels, part, seed=0)
    return train, test, f"there is no test split, so {part:.0%} of each class is held out for testing (dataset.test)"


def no_share_beside(test_split: str, share: float | None) -> None:
    """Refuses a share to hold out where there is a test split."""
    if share is not None:
        raise InputError(
            f"dataset.test = {share:g} is for data without a test split, but there is {test_split}; drop one."
        )


def natural(names: Iterable[str]) -> list[str]:
    """Names in the order that a person gives them: 2 before 10."""
    return sorted(
        names, key=lambda name: [(not p.isdigit(), int(p) if p.isdigit() else p) for p in re.split(r"(\d+)", name)]
    )


def decode_all(
    blobs: Sequence[bytes | None], names: Sequence[str], size: int | None, fit: Fit = "crop"
) -> list[np.ndarray]:
    """Decodes in threads, some images a turn; Pillow lets go of the interpreter lock while it decodes.

    Of small images a turn each would cost as much as the decoding: with 16 threads 218 against 151 µs an image of 32×32.
    """

    def turn(start: int) -> list[np.ndarray]:
        rows = slice(start, start + DECODED)
        return [decode(blob, name, size, fit) for blob, name in zip(blobs[rows], names[rows], strict=True)]

    with ThreadPoolExecutor() as pool:
        return [image for images in pool.map(turn, range(0, len(names), DECODED)) for image in images]


def stacked(*splits: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Each split's images as one array (n, H, W, C); greyscale ones become colour where there are others.

    Raises:
        InputError: when they differ in size.
    """
    sizes = {image.shape[:2] for images in splits for image in images}
    if len(sizes) > 1:
        raise InputError("Images differ in size; set dataset.size to resize them all, for example dataset.size=32.")
    channels = max(image.shape[2] for images in splits for image in images)
    for images in splits:
        yield np.stack([image if image.shape[2] == channels else image.repeat(channels, 2) for image in images])


def shape_of(blobs: Iterable[tuple[bytes | None, str]], size: int | None, fit: Fit) -> Shape:
    """(C, H, W) of named pictures: of the first, decoded; if it is grey, in colour when another is."""
    from featcx_core.data.decoding import channels_of

    rest = iter(blobs)
    first, name = next(rest)
    height, width, channels = decode(first, name, size, fit).shape
    return max([channels, *(channels_of(blob) for blob, _ in rest)]) if channels == 1 else channels, height, width


def check_labels(labels: np.ndarray, classes: tuple[str, ...], where: str) -> None:
    """Whether every label names a class, and every class of a training split has two images.

    Raises:
        InputError: with the row.
    """
    outside = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(outside):
        row = int(outside[0])
        raise InputError(
            f"The {where} has label {labels[row]} at row {row}, outside its {len(classes)} classes; correct or drop it."
        )
    counts = np.bincount(labels, minlength=len(classes))
    if counts.min() < 2 and where.startswith("train"):
        raise InputError(
            f"The {where} has {counts.min()} of class '{classes[int(counts.argmin())]}'; featcx needs two images a class "
            "at least, one to train on and one to validate with; add some or drop the class."
        )
