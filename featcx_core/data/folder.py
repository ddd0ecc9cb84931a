"""Data sets as folders of images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from featcx_core.data.images import Shape
from featcx_core.data.raw import (
    IMAGE_ENDINGS,
    Labels,
    Progress,
    RawData,
    check_labels,
    check_shapes,
    decode_all,
    shape_of,
)
from featcx_core.errors import InputError


class Folder:
    """ImageFolder layout: `train/` and `test/`, a folder a class in each."""

    def __init__(self, folder: Path, size: int | None) -> None:
        self.folder, self.size = folder, size
        for split in ("train", "test"):
            if not (folder / split).is_dir():
                raise InputError(f"There is no folder {folder / split}; featcx needs train/ and test/ in {folder}.")
        self.classes = tuple(sorted(p.name for p in (folder / "train").iterdir() if p.is_dir()))
        if not self.classes:
            raise InputError(
                f"{folder / 'train'} has no class folders; put each class's images in a folder of its own."
            )
        strange = sorted({p.name for p in (folder / "test").iterdir() if p.is_dir()} - set(self.classes))
        if strange:
            raise InputError(f"{folder / 'test'} has the class '{strange[0]}', which train/ lacks; add or remove it.")

    def _paths(self, split: str) -> Iterator[tuple[Path, int]]:
        for label, name in enumerate(self.classes):
            folder = self.folder / split / name
            paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_ENDINGS)
            if not paths:
                raise InputError(f"The class folder {folder} holds no images; fill or remove it.")
            yield from ((path, label) for path in paths)

    def files(self) -> list[Path]:
        return [path for split in ("train", "test") for path, _ in self._paths(split)]

    def labels(self) -> Labels:
        train, test = (np.array([label for _, label in self._paths(s)], dtype=np.int64) for s in ("train", "test"))
        check_labels(train, self.classes, f"train split of {self.folder}")
        return Labels(train, test, self.classes)

    def shape(self) -> Shape:
        first, _ = next(self._paths("train"))
        return shape_of(first.read_bytes(), str(first), self.size)

    def load(self, progress: Progress) -> RawData:
        labels, splits, done = self.labels(), [], 0
        total = len(labels.train) + len(labels.test)
        for split in ("train", "test"):
            paths = [path for path, _ in self._paths(split)]
            images: list[np.ndarray] = []
            for start in range(0, len(paths), 1000):
                part = paths[start : start + 1000]
                images += decode_all([p.read_bytes() for p in part], [str(p) for p in part], self.size)
                done += len(part)
                progress(done, total)
            splits.append(images)
        check_shapes([image for images in splits for image in images])
        return RawData((np.stack(splits[0]), labels.train), (np.stack(splits[1]), labels.test), self.classes, flip=True)
