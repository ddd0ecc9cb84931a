"""Folders of images: a folder a class, in train/ and test/ or all together."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from featcx_core.data.decoding import opened
from featcx_core.data.images import Shape
from featcx_core.data.raw import (
    TESTS,
    Labels,
    Progress,
    check_labels,
    decode_into,
    held_out,
    listed_first,
    natural,
    no_share_beside,
    shape_of,
)
from featcx_core.errors import InputError
from featcx_core.specs import DatasetSpec

STILL = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".jp2", ".tga", ".ppm", ".pgm", ".pbm", ".pnm"))
MOVING = frozenset((".png", ".apng", ".gif", ".webp", ".avif", ".tif", ".tiff"))  # may hold several frames


class Listing(NamedTuple):
    """A folder's pictures as (file, label) for each split, class names, and what there is to tell."""

    train: list[tuple[Path, int]]
    test: list[tuple[Path, int]]
    classes: tuple[str, ...]
    notes: list[str]


class Folder:
    """The layout of torchvision's ImageFolder.

    `train/` beside `test/` (or a validation folder, which then serves as test), `train/` alone, or class folders alone; where
    nothing is there to test on, a stated share is held out. Hidden files and folders do not count; links are followed.
    """

    flip = True

    def __init__(self, folder: Path, spec: DatasetSpec) -> None:
        self.folder, self.spec = folder, spec
        named = {path.name.lower(): path for path in sorted(_folders(folder), reverse=True)}
        there = {split: named[name] for split in TESTS for name in (f"{split}ing", split) if name in named}
        self.train = named.get("train", named.get("training", folder))
        if self.train == folder and there:
            raise InputError(f"There is no folder {folder / 'train'} beside {min(there.values())}; add or rename it.")
        self.test = next(iter(there.values()), None)
        used = {self.train, self.test}
        self.unread = [] if self.train == folder else natural(f"{p.name}/" for p in named.values() if p not in used)
        if self.test is not None:
            no_share_beside(str(self.test), spec.test)

    @cached_property
    def listing(self) -> Listing:
        """All files, found once."""
        left, classes = Counter[str](), tuple(natural(p.name for p in _folders(self.train)))
        if not classes:
            raise InputError(f"{self.train} has no class folders; put each class's images in a folder of its own.")
        if self.test is not None and (strange := natural({p.name for p in _folders(self.test)} - set(classes))):
            raise InputError(f"{self.test} has the class '{strange[0]}', which train/ lacks; add or remove it.")
        train = list(self._labelled(self.train, classes, left))
        notes = []
        if self.test is None:
            kept, out, note = held_out(np.array([label for _, label in train]), self.spec.test)
            train, test = [train[i] for i in kept], [train[i] for i in out]
            notes.append(note)
        else:
            test = list(self._labelled(self.test, classes, left))
            notes += [f"{self.test.name}/ serves as the test split"] if self.test.name != "test" else []
        if self.unread:
            notes.append(f"not read, since {self.train.name}/ is the training split: {listed_first(self.unread)}")
        if left:
            reasons = ", ".join(
                f"{count} {reason}" for reason, count in sorted(left.items(), key=lambda e: (-e[1], e[0]))
            )
            notes.append(f"{left.total()} files left out: {reasons}")
        return Listing(train, test, classes, notes)

    def _labelled(self, root: Path, classes: tuple[str, ...], left: Counter[str]) -> Iterator[tuple[Path, int]]:
        left.update("not in a class folder" for p in root.iterdir() if p.is_file() and not p.name.startswith("."))
        for label, name in enumerate(classes):
            paths = list(_pictures(root / name, left)) if (root / name).is_dir() else []
            if not paths and root == self.train:
                raise InputError(f"The class folder {root / name} holds no images; fill or remove it.")
            yield from ((path, label) for path in paths)

    def files(self) -> list[Path]:
        return [path for path, _ in (*self.listing.train, *self.listing.test)]

    def labels(self) -> Labels:
        found = self.listing
        train, test = (np.array([label for _, label in part], dtype=np.int64) for part in (found.train, found.test))
        check_labels(train, found.classes, f"train split of {self.folder}")
        if not len(test):
            raise InputError(f"{self.test} holds no images; fill or remove it.")
        return Labels(train, test, found.classes, found.notes)

    def shape(self) -> Shape:
        return shape_of(((path, str(path)) for path in self.files()), self.spec.size, self.spec.fit)

    def fill(self, train: np.ndarray, test: np.ndarray, progress: Progress) -> Labels:
        labels, places = self.labels(), itertools.chain(train, test)
        pictures = ((path, str(path), place) for path, place in zip(self.files(), places, strict=True))
        decode_into(pictures, len(train) + len(test), self.spec.size, self.spec.fit, progress)
        return labels


def _folders(root: Path) -> list[Path]:
    there = [path for path in root.iterdir() if not path.name.startswith((".", "__"))]
    for path in there:
        _leads_somewhere(path)
    return [path for path in there if path.is_dir()]


def _leads_somewhere(path: Path) -> None:
    """Refuses a link whose end is gone: nothing tells whether it was a picture, a class or something else."""
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path} is a link that leads nowhere; mend or remove it.")


def _pictures(root: Path, left: Counter[str]) -> Iterator[Path]:
    """The pictures in a folder and below it, links followed and no folder entered twice; what is left out is counted."""
    seen = set[str]()
    for place, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else natural(n for n in folders if not n.startswith((".", "__")))
        if real in seen:
            continue
        seen.add(real)
        for name in natural(n for n in names if not n.startswith(".")):
            path = Path(place, name)
            _leads_somewhere(path)
            if path.suffix.lower() not in STILL | MOVING:
                left["not images"] += 1
            elif path.suffix.lower() in MOVING and _frames(path) > 1:
                left[f"{path.suffix.lower()} of several frames"] += 1
            else:
                yield path


def _frames(path: Path) -> int:
    """How many frames a picture's header tells of; 1 where it cannot be read, which decoding will say."""
    from PIL import Image

    try:
        with opened(path) as image:
            return getattr(image, "n_frames", 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 1
