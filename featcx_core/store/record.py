"""How an analysis keeps what it found: tables, tensors and numbers in one folder, each under the name that it is read by."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

T = TypeVar("T")


class Record(NamedTuple):
    """What a stage found.

    Attributes:
        frames: tidy tables, a Parquet file each. A report knows a table by this name.
        tensors: groups of tensors by name, a safetensors file a group.
        numbers: all else that JSON holds, in numbers.json.
    """

    frames: Mapping[str, pd.DataFrame] = {}
    tensors: Mapping[str, Mapping[str, Tensor]] = {}
    numbers: Mapping[str, Any] = {}

    def save(self, folder: Path) -> None:
        """Writes it into a folder that exists."""
        from safetensors.torch import save_file

        for name, frame in self.frames.items():
            frame.to_parquet(folder / f"{name}.parquet")
        for name, group in self.tensors.items():
            save_file({key: t.contiguous() for key, t in group.items()}, folder / f"{name}.safetensors")
        if self.numbers:
            text = json.dumps(self.numbers, indent=1, ensure_ascii=False)
            (folder / "numbers.json").write_text(text, encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> Record:
        """What `save` wrote; a table or group is read when it is asked for."""
        numbers = folder / "numbers.json"
        return Record(
            _Files(folder, ".parquet", _frame),
            _Files(folder, ".safetensors", _group),
            json.loads(numbers.read_text(encoding="utf-8")) if numbers.exists() else {},
        )


class _Files(Mapping[str, T], Generic[T]):
    """A folder's files of one kind by name."""

    def __init__(self, folder: Path, suffix: str, read: Callable[[Path], T]) -> None:
        self._paths, self._read = {path.stem: path for path in sorted(folder.glob(f"*{suffix}"))}, read

    def __getitem__(self, name: str) -> T:
        return self._read(self._paths[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def _frame(path: Path) -> pd.DataFrame:
    import pandas as pd

    return pd.read_parquet(path)


def _group(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)
