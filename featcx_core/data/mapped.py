"""A safetensors file's tensors where they lie, so that images may be more than memory holds."""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

KINDS = {"I64": torch.int64, "F32": torch.float32, "U8": torch.uint8}
NAMES = {kind: name for name, kind in KINDS.items()}
# Bytes read or written after which a file leaves the process: the system may map ten times as many with them.
RESIDENT = 32 << 20
LENGTH = 8  # bytes in front, which tell how long the header is


class Mapped:
    """Tensors of a file, by name.

    What was read or written stays in the system's page cache, which shrinks when room is needed; the process's own memory
    lets go of it after every RESIDENT bytes.

    Args:
        path: a safetensors file.
        writable: whether what is written to the tensors reaches the file; if not it is private and must not be written.
    """

    def __init__(self, path: Path, writable: bool = False) -> None:
        with path.open("r+b" if writable else "rb") as file:
            self.memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_COPY)
        start = LENGTH + int.from_bytes(self.memory[:LENGTH], "little")
        header = json.loads(self.memory[LENGTH:start])
        header.pop("__metadata__", None)
        self.tensors = {name: self._view(start, entry) for name, entry in header.items()}
        self.touched = 0

    def _view(self, start: int, entry: Mapping[str, list[int]]) -> Tensor:
        kind, shape = KINDS[str(entry["dtype"])], entry["shape"]
        if not math.prod(shape):
            return torch.empty(shape, dtype=kind)
        flat = torch.frombuffer(
            self.memory, dtype=kind, count=math.prod(shape), offset=start + entry["data_offsets"][0]
        )
        return flat.view(shape)

    def touch(self, size: int) -> None:
        """Says that so many bytes were read or written."""
        self.touched += size
        if self.touched > RESIDENT:
            self.touched = 0
            if hasattr(mmap, "MADV_DONTNEED"):
                self.memory.madvise(mmap.MADV_DONTNEED)


def create(path: Path, layout: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> Mapped:
    """A new safetensors file with these tensors, all zero, to be written to; the widest elements first, for alignment."""
    header, end = {}, 0
    for name, (kind, shape) in sorted(layout.items(), key=lambda entry: (-entry[1][0].itemsize, entry[0])):
        size = math.prod(shape) * kind.itemsize
        header[name] = {"dtype": NAMES[kind], "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % LENGTH)
    path.unlink(missing_ok=True)  # who has mapped a file of that name keeps what it was
    with path.open("wb") as file:
        file.write(len(text).to_bytes(LENGTH, "little") + text)
        file.truncate(LENGTH + len(text) + end)
    return Mapped(path, writable=True)


def rows_at_once(images: Tensor | np.ndarray, size: int = 16 << 20) -> int:
    """How many images make about so many bytes."""
    return max(1, size // max(1, math.prod(images.shape[1:])))
