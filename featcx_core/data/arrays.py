"""Arrays in one .npz file: x_train, y_train, and x_test, y_test if there are any."""

from __future__ import annotations

import zipfile
from functools import cached_property
from pathlib import Path

import numpy as np

from featcx_core.data.images import Shape
from featcx_core.data.labelling import classes_of, numbered
from featcx_core.data.raw import Labels, Progress, RawData, check_labels, held_out, no_share_beside
from featcx_core.errors import InputError
from featcx_core.specs import DatasetSpec


class Arrays:
    """Images (n, H, W), (n, H, W, C) or (n, C, H, W), C = 1 or 3, uint8 or in [0, 1]; labels (n,), numbers or words."""

    def __init__(self, file: Path, spec: DatasetSpec) -> None:
        self.file, self.spec = file, spec

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The file's arrays by name."""
        try:
            with np.load(self.file, allow_pickle=False) as stored:
                found = {
                    name: stored[name] for name in ("x_train", "y_train", "x_test", "y_test") if name in stored.files
                }
                names = ", ".join(stored.files)
        except (OSError, ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
            raise InputError(f"{self.file} cannot be read as arrays ({error}); write it with numpy.savez.") from error
        for pair in (("x_train", "y_train"), ("x_test", "y_test"))[: 2 if {"x_test", "y_test"} & found.keys() else 1]:
            if missing := [name for name in pair if name not in found]:
                raise InputError(f"{self.file} has no {missing[0]}; it holds {names or 'nothing'}.")
            if len(found[pair[0]]) != len(found[pair[1]]) or not len(found[pair[0]]):
                raise InputError(f"{self.file}: {pair[0]} and {pair[1]} are not of one length above 0; correct them.")
        return found

    @cached_property
    def parts(self) -> tuple[np.ndarray | None, np.ndarray | None, list[str]]:
        """Which rows of x_train to train and to test on, None for all of both splits; and what there is to tell."""
        if "x_test" in self.arrays:
            no_share_beside("x_test", self.spec.test)
            return None, None, []
        train, test, note = held_out(self._labelled()[0], self.spec.test)
        return train, test, [note]

    def _labelled(self) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
        own = self.arrays["y_train"].reshape(len(self.arrays["y_train"]), -1)[:, 0]
        classes = classes_of(own)
        train = numbered(own, classes, f"{self.file}, y_train")
        other = self.arrays.get("y_test")
        test = None if other is None else numbered(other.reshape(len(other), -1)[:, 0], classes, f"{self.file}, y_test")
        return train, test, classes

    def files(self) -> list[Path]:
        return [self.file]

    def labels(self) -> Labels:
        train, test, classes = self._labelled()
        rows, out, notes = self.parts
        if test is None:
            train, test = train[rows], train[out]
        check_labels(train, classes, f"train split of {self.file}")
        check_labels(test, classes, f"test split of {self.file}")
        return Labels(train, test, classes, notes)

    def shape(self) -> Shape:
        height, width, channels = self._images("x_train", slice(0, 1)).shape[1:]
        return channels, height, width

    def load(self, progress: Progress) -> RawData:
        labels, (rows, out, _) = self.labels(), self.parts
        train = self._images("x_train", slice(None) if rows is None else rows)
        test = self._images("x_test", slice(None)) if out is None else self._images("x_train", out)
        if train.shape[1:] != test.shape[1:]:
            raise InputError(f"{self.file}: x_train and x_test hold images of different shapes; make them alike.")
        return RawData((train, labels.train), (test, labels.test), labels.classes, flip=True)

    def _images(self, name: str, rows: np.ndarray | slice) -> np.ndarray:
        """Rows of an array as uint8 (n, H, W, C)."""
        images = self.arrays[name]
        if images.ndim == 3:
            images = images[..., None]
        if images.ndim != 4 or not {images.shape[1], images.shape[3]} & {1, 3}:
            raise InputError(
                f"{self.file}: {name} has the shape {images.shape}; give (n, H, W), (n, H, W, C) or (n, C, H, W)."
            )
        images = images[rows]
        if images.shape[3] not in (1, 3):
            images = images.transpose(0, 2, 3, 1)
        if images.dtype != np.uint8:
            if images.dtype.kind != "f" or not (images.min() >= 0 and images.max() <= 1):
                raise InputError(f"{self.file}: {name} holds neither uint8 nor numbers in [0, 1]; convert it.")
            images = np.round(images * 255).astype(np.uint8)
        if self.spec.size is not None and images.shape[1:3] != (self.spec.size,) * 2:
            raise InputError(
                f"{self.file}: dataset.size does not resize arrays, which are {images.shape[2]}×{images.shape[1]}."
            )
        return images
