"""Components in Parquet: extracted in a stream, read back in batches."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from featcx_core.analysis.pages import mapped_columns
from featcx_core.data.images import Rows, at_once
from featcx_core.errors import InputError
from featcx_core.seeds import generator

Forward = Callable[[Tensor], Tensor]
ROW_GROUP_BYTES = 16 << 20
BATCH_BYTES = 64 << 20
PAGE_BYTES = 1 << 30  # more than a row group: each column of a group is one page, which can be mapped
PLAIN: Any = {"compression": "none", "use_dictionary": False, "write_statistics": False}
ROUNDING = {"float32": 2.0**-20, "float16": 2.0**-9}


def whole_rows(limit: int, row_bytes: int) -> int:
    """Rows within so many bytes, a power of 2, so that batches fit row groups."""
    return 1 << max(1, limit // max(1, row_bytes)).bit_length() - 1


def maps_at_once(count: int, shape: tuple[int, ...], most: int = 128) -> int:
    """Images whose so many maps of a shape are held at once: 128, or what 64 MiB of float32 hold."""
    return min(most, whole_rows(BATCH_BYTES, 4 * count * math.prod(shape)))


def column_name(order: int) -> str:
    """The column of the component of this order."""
    return f"c_{order:03d}"


class ComponentTable:
    """One split's components: n rows of L components and a residual, each (C, H, W), with sample numbers and labels.

    Attributes:
        orders: complexity orders, rising, one a component.
        shape: (C, H, W).
    """

    def __init__(self, orders: Sequence[int], shape: tuple[int, ...], rows: int, source: Any) -> None:
        self.orders, self.shape, self._rows, self._source = tuple(orders), shape, rows, source

    @staticmethod
    def open(path: str | Path) -> ComponentTable:
        """The table in a folder of `part-*.parquet` files.

        Raises:
            InputError: when there are none or they cannot be read.
        """
        parts = sorted(Path(path).glob("part-*.parquet"))
        if not parts:
            raise InputError(
                f"There are no part-*.parquet files in {path}; give one split's folder of a components artifact."
            )
        rows, part = 0, parts[0]
        try:
            meta = json.loads(pq.read_schema(part).metadata[b"featcx"])
            orders, shape = meta["orders"], tuple(meta["shape"])
            for part in parts:
                rows += pq.read_metadata(part).num_rows
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{part} is no components file of featcx, or damaged ({error}).") from error
        return ComponentTable(orders, shape, rows, parts)

    @staticmethod
    def from_tensors(
        components: Tensor, residual: Tensor, labels: Tensor, orders: Sequence[int] | None = None
    ) -> ComponentTable:
        """The same in memory: components (n, L, C, H, W), residual (n, C, H, W), labels (n,); orders 4, 7, 13, … if None.

        Vectors (n, L, d) with a residual (n, d), or any other shape, are taken alike.

        >>> table = ComponentTable.from_tensors(torch.randn(5, 2, 3, 4, 4), torch.zeros(5, 3, 4, 4), torch.zeros(5))
        >>> table.orders, table.shape, len(table)
        ((4, 7), (3, 4, 4), 5)
        """
        if components.ndim < 3:
            raise InputError(f"components have shape {tuple(components.shape)}; give (n, L, C, H, W), or (n, L, d).")
        n, players = components.shape[:2]
        if orders is None:
            orders = [3 * 2**i + 1 for i in range(players)]
        fitting = (n, *components.shape[2:]) == residual.shape and labels.shape == (n,) and len(orders) == players
        if not players or not fitting:
            raise InputError(
                "components (n, L, C, H, W), residual (n, C, H, W), labels (n,) and L orders must fit together."
            )
        columns = {column_name(order): components[:, i] for i, order in enumerate(orders)}
        columns |= {"residual": residual, "label": labels.long(), "sample": torch.arange(n)}
        return ComponentTable(orders, tuple(residual.shape[1:]), n, columns)

    def __len__(self) -> int:
        return self._rows

    @property
    def tensor_columns(self) -> list[str]:
        """The components' columns in order, then the residual's."""
        return [*map(column_name, self.orders), "residual"]

    @property
    def parts(self) -> list[ComponentTable]:
        """One table a Parquet file; a table in memory is one part."""
        if isinstance(self._source, dict):
            return [self]
        return [
            ComponentTable(self.orders, self.shape, pq.read_metadata(part).num_rows, [part]) for part in self._source
        ]

    def batches(self, columns: Sequence[str] | None = None, batch_size: int = 256) -> Iterator[dict[str, Tensor]]:
        """Rows in order, `batch_size` at a time (a part's last batch may be smaller), as tensors by column name.

        Args:
            columns: names out of `tensor_columns`, 'label' and 'sample'; None for all.
            batch_size: rows a batch. Batches never span two parts, so what is computed a batch at a time does not depend
                on how parts are shared out.
        """
        columns = [*self.tensor_columns, "label", "sample"] if columns is None else list(columns)
        if isinstance(self._source, dict):
            for start in range(0, self._rows, batch_size):
                yield {name: self._source[name][start : start + batch_size] for name in columns}
            return
        for part in self._source:
            yield from _part_batches(part, columns, batch_size, self.shape)

    def stacked(self, batch_size: int = 256) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches as (components and residual (b, L + 1, C, H, W) in float32, labels (b,))."""
        for batch in self.batches([*self.tensor_columns, "label"], batch_size):
            yield torch.stack([batch[name].float() for name in self.tensor_columns], 1), batch["label"]

    def labels(self) -> Tensor:
        """int64 (n,)."""
        return torch.cat([batch["label"] for batch in self.batches(["label"], 65536)])

    def samples(self) -> Tensor:
        """int64 (n,): each row's number among the training or test images."""
        return torch.cat([batch["sample"] for batch in self.batches(["sample"], 65536)])


def _part_batches(
    part: Path, columns: list[str], batch_size: int, shape: tuple[int, ...]
) -> Iterator[dict[str, Tensor]]:
    """Rows of one Parquet file. Tensors are mapped where they lie as this module writes them, else decoded."""
    plain = [name for name in columns if name in ("label", "sample")]
    groups = mapped_columns(part, [name for name in columns if name not in plain])
    if groups is None:
        with pq.ParquetFile(part, memory_map=True) as file:
            for batch in file.iter_batches(batch_size=batch_size, columns=columns):
                yield {name: _tensor(batch.column(name), shape) for name in columns}
        return
    with pq.ParquetFile(part) as file:
        rows, table = file.metadata.num_rows, file.read(plain)
    numbers = {name: torch.from_numpy(table[name].to_numpy().astype(np.int64)) for name in plain}
    for start in range(0, rows, batch_size):
        stop = start + batch_size
        yield {
            name: numbers[name][start:stop] if name in plain else _rows(groups, name, start, stop) for name in columns
        }


def _rows(groups: list[dict[str, Tensor]], name: str, start: int, stop: int) -> Tensor:
    """Rows `start` to `stop` of a column in row groups: a view where one group holds them."""
    found, first = [], 0
    for group in groups:
        lo, hi = max(start - first, 0), min(stop - first, len(group[name]))
        if lo < hi:
            found.append(group[name][lo:hi])
        first += len(group[name])
    return found[0] if len(found) == 1 else torch.cat(found)


def _tensor(column: Any, shape: tuple[int, ...]) -> Tensor:
    if isinstance(column, pa.ExtensionArray):
        values = column.storage.flatten().to_numpy(zero_copy_only=True)
        return torch.from_numpy(values.reshape(-1, *shape).copy())
    return torch.from_numpy(column.to_numpy(zero_copy_only=False).astype(np.int64))


def sample_rows(
    split: tuple[Rows, Tensor, Tensor], rows: int | Literal["all"], seed: int
) -> tuple[Rows, Tensor, Tensor]:
    """At most `rows` of a split's (images, labels, sample numbers), drawn with a seed and kept in order."""
    if rows == "all" or len(split[1]) <= rows:
        return split
    chosen = torch.randperm(len(split[1]), generator=generator(seed))[:rows].sort().values
    return split[0].only(chosen), split[1][chosen], split[2][chosen]


def _split(feature: Forward, disentanglers: Mapping[int, Forward], x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """f, and c^(l) = Φ^(l) − Φ^(l') of each order with Δf = f − Φ^(L) last."""
    f, phi = feature(x).float(), [net(x).float() for net in disentanglers.values()]
    return f, [above - below for above, below in zip([*phi, f], [torch.zeros_like(f), *phi], strict=True)]


def _as_taken(images: Tensor | Rows, normalise: Forward | None) -> Forward:
    """What stands between images and the nets.

    Raises:
        InputError: for bytes that nothing is to normalise.
    """
    held = images.images if isinstance(images, Rows) else images
    if normalise is None and not held.is_floating_point():
        raise InputError(f"images are {held.dtype}; give normalise=data.normalise, or floats as the nets take them.")
    return normalise or (lambda x: x)


@torch.no_grad()
def decompose(
    feature: Forward,
    disentanglers: Mapping[int, Forward],
    images: Tensor | Rows,
    labels: Tensor,
    *,
    normalise: Forward | None = None,
    device: torch.device | str = "cpu",
) -> ComponentTable:
    """The components c^(l) = Φ^(l) − Φ^(l') and Δf = f − Φ^(L) in memory, for data of notebook size (METHOD §1).

    Args:
        feature: f, images as the nets take them to (n, C, H, W) or (n, d).
        disentanglers: order → Φ^(l), orders rising.
        images: (n, C, H, W), floats as the nets take them, or with `normalise` anything that it takes, such as bytes.
        labels: int64 (n,).
        normalise: what stands between images and the nets, such as a data set's; None: nothing.

    Raises:
        InputError: for bytes without `normalise`.

    >>> import torch, featcx_core as fx
    >>> f, nets = torch.nn.Conv2d(1, 2, 3), {4: torch.nn.Conv2d(1, 2, 3), 7: torch.nn.Conv2d(1, 2, 3)}
    >>> images = torch.rand(6, 1, 8, 8)
    >>> table = fx.decompose(f, nets, images, torch.zeros(6))
    >>> maps, _ = next(table.stacked())
    >>> torch.allclose(maps.sum(1), f(images), atol=1e-6)
    True
    """
    taken = _as_taken(images, normalise)
    columns = [_split(feature, disentanglers, taken(x.to(device)))[1] for x in images.split(at_once(images.shape))]
    maps = torch.cat([torch.stack(part, 1).cpu() for part in columns])
    return ComponentTable.from_tensors(maps[:, :-1], maps[:, -1], labels, list(disentanglers))


@torch.no_grad()
def extract(
    feature: Forward,
    disentanglers: Mapping[int, Forward],
    images: Tensor | Rows,
    labels: Tensor,
    samples: Tensor,
    folder: str | Path,
    *,
    normalise: Forward | None = None,
    device: torch.device | str = "cpu",
    dtype: str = "float32",
    part_rows: int = 1024,
    batch: int = 128,
    meta: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> float:
    """`decompose` of any number of images, into `folder` as Parquet, a batch in memory at a time.

    Args:
        feature, disentanglers, images, labels, normalise: as of `decompose`.
        samples: int64 (n,), each image's number in its data set.
        dtype: 'float32' or 'float16', of the stored elements.
        part_rows: rows a file.
        meta: goes into the schema's metadata.

    Returns:
        The largest |f − Σ_l c^(l) − Δf| relative to the largest of the terms, of what was written.

    Raises:
        ArithmeticError: when the stored components do not sum to the feature within rounding.
        InputError: for bytes without `normalise`, and for values that the element type cannot hold.

    >>> import tempfile, torch, featcx_core as fx
    >>> from pathlib import Path
    >>> f, nets, images = torch.nn.Conv2d(1, 2, 3), {4: torch.nn.Conv2d(1, 2, 3)}, torch.rand(6, 1, 8, 8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     error = fx.extract(f, nets, images, torch.zeros(6), torch.arange(6), Path(folder) / "test")
    ...     len(fx.ComponentTable.open(Path(folder) / "test"))
    6
    """
    folder, taken = Path(folder), _as_taken(images, normalise)
    folder.mkdir(parents=True, exist_ok=True)
    orders, worst = list(disentanglers), 0.0
    schema: pa.Schema | None = None
    batch = at_once(images.shape, batch)
    for start in range(0, len(images), part_rows):
        writer: pq.ParquetWriter | None = None
        path = folder / f"part-{start // part_rows:05d}.parquet"
        stop = min(start + part_rows, len(images))
        for lo in range(start, stop, batch):
            rows = slice(lo, min(lo + batch, stop))
            f, columns = _split(feature, disentanglers, taken(images[rows].to(device)))
            stored = [c.to(getattr(torch, dtype)) for c in columns]
            if dtype == "float16" and not all(c.isfinite().all() for c in stored):
                top = max(float(c.abs().max()) for c in columns)
                raise InputError(
                    f"Components reach {top:.1e}, more than float16 holds (6.5e+04); set components.dtype=float32."
                )
            total = sum(c.double() for c in stored)
            # Rounding is that of the largest term: an order that fits badly may exceed the feature many times over.
            largest = torch.stack([value.abs().max() for value in (f, *columns)]).max().clamp_min(1e-30)
            error = float((f - total).abs().max() / largest)
            if not error <= ROUNDING[dtype]:
                raise ArithmeticError(f"components miss the feature by {error:.1e} of the largest value in {path.name}")
            worst = max(worst, error)
            if schema is None:
                schema = _schema(orders, f.shape[1:], dtype, meta or {})
            if writer is None:
                writer = pq.ParquetWriter(path, schema, data_page_size=PAGE_BYTES, **PLAIN)
            arrays = [pa.array(samples[rows].numpy()), pa.array(labels[rows].numpy().astype(np.int32))]
            arrays += [
                pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(c.cpu().numpy()))
                for c in (stored[-1], *stored[:-1])
            ]
            group = whole_rows(ROW_GROUP_BYTES, sum(a.nbytes for a in arrays) // len(arrays[0]))
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema), row_group_size=group)
            progress(rows.stop, len(images))
        if writer is not None:
            writer.close()
    return worst


def _schema(orders: list[int], shape: Sequence[int], dtype: str, meta: dict[str, Any]) -> pa.Schema:
    tensor = pa.fixed_shape_tensor(pa.float32() if dtype == "float32" else pa.float16(), list(shape))
    kinds = {"sample": pa.int64(), "label": pa.int32(), "residual": tensor}
    kinds |= {column_name(order): tensor for order in orders}
    described = {"orders": orders, "shape": list(shape), "dtype": dtype} | meta
    fields = [pa.field(name, kind, nullable=False) for name, kind in kinds.items()]
    return pa.schema(fields, {"featcx": json.dumps(described, sort_keys=True)})
