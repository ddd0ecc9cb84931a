"""What a source gives: pictures with labels in two splits, and what it understood of the files."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from featcx_core.data.decoding import Blob, Fit, channels_of, decode
from featcx_core.data.images import Shape, stratified_split
from featcx_core.errors import InputError

Progress = Callable[[int, int], None]
DECODED = 125  # images that a thread decodes in a turn
HELD = 16 << 20  # bytes of undecoded images in a turn
HELD_OUT = 0.2  # of the images where there is no test split, unless dataset.test says otherwise
TESTS = ("test", "validation", "valid", "val", "eval", "dev")  # what may be the test split, best first


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

    @property
    def flip(self) -> bool:
        """Whether mirrored images keep their class."""

    def fill(self, train: np.ndarray, test: np.ndarray, progress: Progress) -> Labels:
        """Decodes all images into uint8 (n, C, H, W) of both splits, in the shape of `shape`; their labels."""

    def labels(self) -> Labels:
        """What is known without decoding, or downloading, anything: how many there are of each class in each split."""

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


Picture = tuple[Blob, str, np.ndarray]  # its bytes or file, its name for errors, and the (C, H, W) that it is put in


def listed_first(names: list[str], most: int = 5) -> str:
    """Names with commas between them, only how many more there are after the first few."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def decode_into(pictures: Iterable[Picture], total: int, size: int | None, fit: Fit, progress: Progress) -> None:
    """Decodes in as many threads as there are cores, some images a turn; Pillow lets go of the interpreter lock meanwhile.

    Of small images a turn each would cost as much as the decoding: with 16 threads 218 against 151 µs an image of 32×32.

    Raises:
        InputError: for a picture that cannot be read, or differs in size from where it is to be put.
    """

    def turn(some: list[Picture]) -> int:
        for blob, name, place in some:
            _put(decode(blob, name, size, fit), place, name)
        return len(some)

    cores, waiting, done = available_cores(), deque[Future[int]](), 0
    with ThreadPoolExecutor(cores) as pool:
        try:
            for some in _turns(pictures):
                waiting.append(pool.submit(turn, some))
                if len(waiting) > 2 * cores:
                    done += waiting.popleft().result()
                    progress(done, total)
            while waiting:
                done += waiting.popleft().result()
                progress(done, total)
        finally:
            pool.shutdown(cancel_futures=True)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _turns(pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
    """Pictures for a thread to decode: DECODED of them, fewer where their bytes are many."""
    some, held = list[Picture](), 0
    for picture in pictures:
        some.append(picture)
        held += len(picture[0]) if isinstance(picture[0], bytes) else 0
        if len(some) == DECODED or held > HELD:
            yield some
            some, held = [], 0
    if some:
        yield some


def _put(image: np.ndarray, place: np.ndarray, name: str) -> None:
    """Pixels (H, W, 1 or 3) to (C, H, W); greyscale among colour becomes colour."""
    (height, width, channels), wanted = image.shape, place.shape
    if (height, width) != wanted[1:] or channels > wanted[0]:
        raise InputError(
            f"Images differ in size: {name} has {width}×{height} pixels, the first {wanted[2]}×{wanted[1]}. Set dataset.size "
            "to resize them all, for example dataset.size=32."
        )
    place[:] = image.transpose(2, 0, 1)


def shape_of(pictures: Iterable[tuple[Blob, str]], size: int | None, fit: Fit) -> Shape:
    """(C, H, W) of named pictures: of the first, decoded; if it is grey, in colour when another's header tells of colour."""
    rest = iter(pictures)
    first, name = next(rest)
    height, width, channels = decode(first, name, size, fit).shape
    return 3 if channels == 3 or any(channels_of(blob) == 3 for blob, _ in rest) else 1, height, width


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
