"""Arrays in one .npz file: x_train, y_train, and x_test, y_test if there are any."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from featcx_core.data.images import Shape
from featcx_core.data.labelling import classes_of, numbered
from featcx_core.data.raw import Labels, Progress, check_labels, held_out, listed_first, no_share_beside
from featcx_core.errors import InputError
from featcx_core.specs import DatasetSpec

READ = 16 << 20  # bytes of images at a time
READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
BROKEN = (OSError, ValueError, zipfile.BadZipFile, EOFError, AttributeError, KeyError, zlib.error)


class Header(NamedTuple):
    """An array in the file: its shape, whether its first axis changes fastest, its element type."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype


class Arrays:
    """Images (n, H, W), (n, H, W, C) or (n, C, H, W), C = 1 or 3, uint8 or in [0, 1]; labels (n,), numbers or words.

    Images are read a few at a time; labels at once.
    """

    flip = True

    def __init__(self, file: Path, spec: DatasetSpec) -> None:
        self.file, self.spec = file, spec

    @cached_property
    def headers(self) -> dict[str, Header]:
        """What the file holds, by name."""
        try:
            with zipfile.ZipFile(self.file) as stored:
                names = [name.removesuffix(".npy") for name in stored.namelist()]
                found = {}
                for name in sorted(set(names) & {"x_train", "y_train", "x_test", "y_test"}):
                    with stored.open(f"{name}.npy") as part:
                        found[name] = _header(part)
        except BROKEN as error:
            raise self._broken(error) from error
        for pair in (("x_train", "y_train"), ("x_test", "y_test"))[: 2 if {"x_test", "y_test"} & found.keys() else 1]:
            if missing := [name for name in pair if name not in found]:
                raise InputError(f"{self.file} has no {missing[0]}; it holds {', '.join(names) or 'nothing'}.")
            lengths = {found[name].shape[:1] for name in pair}
            if len(lengths) > 1 or not lengths.pop() > (0,):
                raise InputError(f"{self.file}: {pair[0]} and {pair[1]} are not of one length above 0; correct them.")
        self.unread = [name for name in names if name not in found]
        return found

    def _broken(self, error: BaseException) -> InputError:
        return InputError(f"{self.file} cannot be read as arrays ({error}); write it with numpy.savez.")

    @cached_property
    def _labelled(self) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
        own = self._whole("y_train")
        classes = classes_of(own)
        train = numbered(own, classes, f"{self.file}, y_train")
        test = numbered(self._whole("y_test"), classes, f"{self.file}, y_test") if "y_test" in self.headers else None
        return train, test, classes

    def _whole(self, name: str) -> np.ndarray:
        self.headers  # noqa: B018 (refuses what is no file of arrays)
        try:
            with np.load(self.file, allow_pickle=False) as stored:
                values: np.ndarray = stored[name]
        except BROKEN as error:
            raise self._broken(error) from error
        return values.reshape(len(values), -1)[:, 0]

    @cached_property
    def parts(self) -> tuple[np.ndarray | None, np.ndarray | None, list[str]]:
        """Which rows of x_train to train and to test on, None for all of both splits; and what there is to tell."""
        if "x_test" in self.headers:
            no_share_beside("x_test", self.spec.test)
            return None, None, []
        train, test, note = held_out(self._labelled[0], self.spec.test)
        return train, test, [note]

    def files(self) -> list[Path]:
        return [self.file]

    def labels(self) -> Labels:
        train, test, classes = self._labelled
        rows, out, notes = self.parts
        if test is None:
            train, test = train[rows], train[out]
        check_labels(train, classes, f"train split of {self.file}")
        check_labels(test, classes, f"test split of {self.file}")
        unread = [f"not read: {listed_first(self.unread)}"] if self.unread else []
        return Labels(train, test, classes, notes + unread)

    def shape(self) -> Shape:
        shapes = {name: self._shape(name) for name in ("x_train", "x_test") if name in self.headers}
        if len(set(shapes.values())) > 1:
            raise InputError(f"{self.file}: x_train and x_test hold images of different shapes; make them alike.")
        return shapes["x_train"]

    def fill(self, train: np.ndarray, test: np.ndarray, progress: Progress) -> Labels:
        labels, (kept, out, _) = self.labels(), self.parts
        places, done = [*train, *test], 0
        if kept is not None and out is not None:
            places = [places[i] for i in np.concatenate([kept, out]).argsort()]  # in the order of the rows
        for name in ("x_train", "x_test"):
            for images in self._images(name) if name in self.headers else ():
                for image in images:
                    places[done][:] = image
                    done += 1
                progress(done, len(places))
        return labels

    def _shape(self, name: str) -> Shape:
        """(C, H, W) of an array's images.

        Raises:
            InputError: when it holds none, or of another size than is asked for.
        """
        whole, kind = self.headers[name].shape, self.headers[name].dtype
        shape = (*whole, 1) if len(whole) == 3 else whole
        if len(shape) != 4 or not {shape[1], shape[3]} & {1, 3}:
            raise InputError(
                f"{self.file}: {name} has the shape {whole}; give (n, H, W), (n, H, W, C) or (n, C, H, W)."
            )
        if kind != np.uint8 and kind.kind != "f":
            raise self._no_pixels(name)
        last = shape[3] in (1, 3)
        channels, height, width = (shape[3], *shape[1:3]) if last else shape[1:]
        if self.spec.size is not None and (height, width) != (self.spec.size,) * 2:
            raise InputError(f"{self.file}: dataset.size does not resize arrays, which are {width}×{height}.")
        return channels, height, width

    def _no_pixels(self, name: str) -> InputError:
        return InputError(f"{self.file}: {name} holds neither uint8 nor numbers in [0, 1]; convert it.")

    def _images(self, name: str) -> Iterator[np.ndarray]:
        """An array's rows as uint8 (b, C, H, W), some at a time."""
        channels, height, width = self._shape(name)
        last = self.headers[name].shape[-1] == channels or len(self.headers[name].shape) == 3
        for rows in self._rows(name):
            if rows.dtype != np.uint8:
                if not (rows.min() >= 0 and rows.max() <= 1):
                    raise self._no_pixels(name)
                rows = np.round(rows * 255).astype(np.uint8)
            yield rows.reshape(-1, height, width, channels).transpose(0, 3, 1, 2) if last else rows

    def _rows(self, name: str) -> Iterator[np.ndarray]:
        """An array in portions of its first axis."""
        (n, *rest), fortran, kind = self.headers[name]
        few = max(1, READ // (math.prod(rest) * kind.itemsize))
        try:
            if fortran:
                with np.load(self.file, allow_pickle=False) as stored:
                    yield stored[name]
                return
            with zipfile.ZipFile(self.file) as archive, archive.open(f"{name}.npy") as part:
                _header(part)
                for start in range(0, n, few):
                    shape = (min(few, n - start), *rest)
                    blob = part.read(math.prod(shape) * kind.itemsize)
                    yield np.frombuffer(blob, dtype=kind).reshape(shape)
        except BROKEN as error:
            raise self._broken(error) from error


def _header(part: IO[bytes]) -> Header:
    """What stands before an array's values.

    Raises:
        ValueError: for a version that numbers and words are not written in, and for Python objects.
    """
    version = npy.read_magic(part)
    if version not in READERS:
        raise ValueError(f"version {version[0]}.{version[1]} of the format")
    found = Header(*READERS[version](part))
    if found.dtype.hasobject:
        raise ValueError("it holds Python objects")
    return found
