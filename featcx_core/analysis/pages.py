"""Tensor columns of Parquet files where they lie: mapped, not decoded."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

TYPES = {pa.float32(): torch.float32, pa.float16(): torch.float16}
DATA_PAGE, PLAIN = 0, 0
LEVELS = 4  # bytes in front of repetition and of definition levels, which tell how long they are


def mapped_columns(path: Path, columns: list[str]) -> list[dict[str, Tensor]] | None:
    """The fixed-shape tensor columns of each row group, (rows, …) each, as views of the mapped file.

    None where they lie otherwise: a column can be mapped where its chunk is one uncompressed page of plain values without
    a null, which the page's header and the lengths of its parts prove, since behind the levels there are as many bytes as
    the values take. The mapping is private, so the tensors may be written to and outlive the file's name.
    """
    with pq.ParquetFile(path) as parquet:
        schema, meta = parquet.schema_arrow, parquet.metadata
    names = {meta.schema.column(i).path.partition(".")[0]: i for i in range(meta.num_columns)}
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    if hasattr(mmap, "MADV_WILLNEED"):
        mapped.madvise(mmap.MADV_WILLNEED)
    groups = []
    for g in range(meta.num_row_groups):
        group, rows = {}, meta.row_group(g).num_rows
        for name in columns:
            kind, chunk = schema.field(name).type, meta.row_group(g).column(names[name])
            count = rows * kind.storage_type.list_size
            start = _values(mapped, chunk, count, kind.value_type.bit_width // 8)
            if start is None:
                return None
            flat = torch.frombuffer(mapped, dtype=TYPES[kind.value_type], count=count, offset=start)
            group[name] = flat.view(rows, *kind.shape)
        groups.append(group)
    return groups


def _values(data: mmap.mmap, chunk: pq.ColumnChunkMetaData, count: int, size: int) -> int | None:
    """Where a column chunk's `count` values of `size` bytes begin in the file; None unless they lie there as they are."""
    start, length = chunk.data_page_offset, chunk.total_compressed_size
    if chunk.compression != "UNCOMPRESSED" or chunk.has_dictionary_page:
        return None
    header, body = _struct(data, start)
    page = header.get(5)
    whole = header.get(1) == DATA_PAGE and body - start + header.get(3, -1) == length
    if not whole or not isinstance(page, dict) or (page.get(1), page.get(2)) != (count, PLAIN):
        return None
    at = body
    for _ in range(2):
        at += LEVELS + int.from_bytes(data[at : at + LEVELS], "little")
    return at if at + count * size == start + length else None


def _struct(data: mmap.mmap, at: int) -> tuple[dict[int, Any], int]:
    """A struct in Thrift's compact protocol, field number → value, and where it ends.

    The page header has numbers, flags, binaries and structs alone (parquet.thrift).
    """
    fields, number = dict[int, Any](), 0
    value: Any
    while byte := data[at]:
        kind, at = byte & 15, at + 1
        number += byte >> 4
        if kind in (1, 2):
            value = kind == 1
        elif kind == 12:
            value, at = _struct(data, at)
        else:
            unsigned, at = _varint(data, at)
            value = unsigned >> 1 ^ -(unsigned & 1)
            at += unsigned if kind == 8 else 0
        fields[number] = value
    return fields, at + 1


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
