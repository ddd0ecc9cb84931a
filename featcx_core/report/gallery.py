"""The figures of a page: drawn, or taken from where they were drawn before from the same tables."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from featcx_core.report.figure_files import FigureFunction, Picture, save
from featcx_core.wording import Frames

INDEX = "drawn.json"


class Gallery:
    """Figures of one network as files in `folder`, by name.

    A figure is taken from `before` while every table that was read for it there is the same here, those that were asked for
    and missing included: what a figure is drawn from is seen, not declared.

    Args:
        folder: where the files go.
        about: what else figures are drawn from, such as settings and pictures.
        before: folder of a gallery that was kept.
    """

    def __init__(self, folder: Path, about: object = None, before: Path | None = None) -> None:
        self.folder, self.about, self.before = folder, about, before
        self.read: dict[str, dict[str, str]] = {}
        self.known: dict[str, dict[str, str]] = {}
        if before is not None:
            kept = json.loads((before / INDEX).read_text(encoding="utf-8"))
            self.known = kept["figures"] if kept["about"] == json.loads(json.dumps(about)) else {}

    def draw(self, figure: FigureFunction, frames: Frames, name: str, coverage: float | None) -> Picture:
        """The files of a figure, see `save`."""
        known = self.known.get(name)
        if self.before is not None and known is not None and known == _Seen(frames).told(known):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.read[name] = known
            copied = Picture.named(self.folder, name)
            for path, copy in zip(Picture.named(self.before, name), copied, strict=True):
                shutil.copyfile(path, copy)
                os.utime(
                    copy, ns=(time.time_ns(),) * 2
                )  # files tell the order of drawing, finer than the clock of a disk
            return copied
        seen = _Seen(frames)
        picture = save(figure, seen, self.folder, name, coverage)
        self.read[name] = seen.told(seen.asked)
        return picture

    def keep(self) -> None:
        """Writes what each figure was drawn from beside them, for a gallery after this one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        told = json.dumps({"about": self.about, "figures": self.read}, indent=1, sort_keys=True)
        (self.folder / INDEX).write_text(told, encoding="utf-8")


class _Seen(Mapping[str, pd.DataFrame]):
    """Tables that note which of them are asked for; who goes through all has asked for each."""

    def __init__(self, frames: Frames) -> None:
        self.frames, self.asked = frames, dict[str, None]()

    def __getitem__(self, name: str) -> pd.DataFrame:
        self.asked[name] = None
        return self.frames[name]

    def __iter__(self) -> Iterator[str]:
        self.asked |= dict.fromkeys(["", *self.frames])
        return iter(self.frames)

    def __len__(self) -> int:
        self.asked[""] = None
        return len(self.frames)

    def told(self, names: Mapping[str, object]) -> dict[str, str]:
        """The digest of each table, '' for one that is not there; under '' the names of all."""
        return {name: self._digest(name) for name in names}

    def _digest(self, name: str) -> str:
        if not name:
            return ", ".join(sorted(self.frames))
        return digest_of(self.frames[name]) if name in self.frames else ""


def digest_of(table: pd.DataFrame) -> str:
    """SHA-256 of names, types and values."""
    told = hashlib.sha256(repr([(str(name), str(kind)) for name, kind in table.dtypes.items()]).encode())
    told.update(pd.util.hash_pandas_object(table).to_numpy().tobytes())
    return told.hexdigest()


def digest_of_folder(folder: Path) -> str:
    """SHA-256 of what lies in an artifact's folder, its manifest aside."""
    told = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"):
        told.update(f"{path.relative_to(folder)}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return told.hexdigest()
