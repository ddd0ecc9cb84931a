"""Data sets in Parquet, in the layout of the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from featcx_core.data.images import Shape
from featcx_core.data.raw import (
    Labels,
    Progress,
    RawData,
    blobs,
    check_labels,
    check_shapes,
    decode_all,
    readable,
    shape_of,
)
from featcx_core.errors import InputError


class Parquet:
    """`train*.parquet` and `test*.parquet`: an image struct of `bytes` or a binary column, and an integer label."""

    def __init__(self, folder: Path, size: int | None) -> None:
        self.folder, self.size = folder, size
        self.parts = {split: sorted(folder.glob(f"{split}*.parquet")) for split in ("train", "test")}
        for split, files in self.parts.items():
            if not files:
                raise InputError(
                    f"There is no {split}*.parquet in {folder}; featcx needs both a train and a test file."
                )

    def files(self) -> list[Path]:
        return [*self.parts["train"], *self.parts["test"]]

    def labels(self) -> Labels:
        arrays = {}
        for split, files in self.parts.items():
            arrays[split] = np.concatenate([self._label_column(path) for path in files])
            if not len(arrays[split]):
                raise InputError(f"The {split} split of {self.folder} has no rows; featcx needs images in both splits.")
        # Where a label is larger than there are rows it is some other number, and no class list is made for it.
        classes = self._class_names(min(int(arrays["train"].max()) + 1, len(arrays["train"])))
        for split, values in arrays.items():
            check_labels(values, classes, f"{split} split of {self.folder}")
        return Labels(arrays["train"], arrays["test"], classes)

    def shape(self) -> Shape:
        import pyarrow.parquet as pq

        for path in self.parts["train"]:
            image, _ = self._columns(path)
            with readable(path), pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=1, columns=[image]):
                    if len(batch):
                        return shape_of(blobs(batch.column(0))[0], f"{path}, row 0", self.size)
        raise InputError(f"The train split of {self.folder} has no rows; featcx needs images in both splits.")

    def load(self, progress: Progress) -> RawData:
        import pyarrow.parquet as pq

        labels = self.labels()
        total, done, splits = len(labels.train) + len(labels.test), 0, []
        for files in self.parts.values():
            images: list[np.ndarray] = []
            for path in files:
                image, _ = self._columns(path)
                with readable(path), pq.ParquetFile(path) as file:
                    start = 0
                    for batch in file.iter_batches(batch_size=1000, columns=[image]):
                        names = [f"{path}, row {start + i}" for i in range(len(batch))]
                        images += decode_all(blobs(batch.column(0)), names, self.size)
                        start, done = start + len(batch), done + len(batch)
                        progress(done, total)
            splits.append(images)
        check_shapes([image for images in splits for image in images])
        return RawData(
            (np.stack(splits[0]), labels.train), (np.stack(splits[1]), labels.test), labels.classes, flip=True
        )

    def _columns(self, path: Path) -> tuple[str, str]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with readable(path):
            schema = pq.read_schema(path)
        binary = (pa.types.is_binary, pa.types.is_large_binary)
        images = [
            f.name
            for f in schema
            if any(test(f.type) for test in binary)
            or (pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0)
        ]
        labels = [f.name for f in schema if pa.types.is_integer(f.type)]
        for found, kind in (
            (images, "image column (a struct with 'bytes', or binary)"),
            (labels, "integer label column"),
        ):
            if not found:
                raise InputError(f"{path} has no {kind}; its columns are {', '.join(schema.names)}.")
        preferred = next((name for name in ("label", "labels", "fine_label", "target") if name in labels), labels[0])
        return images[0], preferred

    def _label_column(self, path: Path) -> np.ndarray:
        import pyarrow.parquet as pq

        _, label = self._columns(path)
        with readable(path):
            column = pq.read_table(path, columns=[label]).column(0)
        if column.null_count:
            raise InputError(f"{path} has {column.null_count} empty labels in column '{label}'; drop those rows.")
        return column.to_numpy().astype(np.int64)

    def _class_names(self, count: int) -> tuple[str, ...]:
        import pyarrow.parquet as pq

        path = self.parts["train"][0]
        meta = (pq.read_schema(path).metadata or {}).get(b"huggingface")
        if meta:
            features = json.loads(meta).get("info", {}).get("features", {})
            names = features.get(self._columns(path)[1], {}).get("names")
            if isinstance(names, dict):
                names = [names[str(i)] for i in range(len(names))]
            if names:
                return tuple(names)
        return tuple(str(c) for c in range(count))
