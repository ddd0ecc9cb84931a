"""Data sets in Parquet, in the layouts of the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from featcx_core.data.images import Shape
from featcx_core.data.labelling import classes_of, numbered
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

NAMES = {"image": ("image", "img", "images"), "label": ("label", "labels", "fine_label", "target", "class")}
KINDS = {"image": " (a struct with 'bytes', or binary)", "label": " (whole numbers, or words in a column named label)"}


class readable:
    """Turns Arrow's complaints about a broken file into a sentence."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import pyarrow as pa

        if isinstance(error, (pa.ArrowException, OSError)):
            reason = str(error).splitlines()[0]
            raise InputError(f"{self.path} cannot be read as Parquet; it may be truncated ({reason}).") from error


class Parquet:
    """`train*.parquet` and `test*.parquet` (or a validation file, or a share held out), in the folder or in its `data`.

    An image is a binary column or a struct with `bytes`; a label is a number or a word. Which columns these are the file's
    own features tell (`Image`, `ClassLabel`), else their names, else there is one alone; or the settings name them.
    """

    flip = True

    def __init__(self, folder: Path, spec: DatasetSpec) -> None:
        self.folder, self.spec = folder, spec
        place = folder if any(folder.glob("*.parquet")) or not (folder / "data").is_dir() else folder / "data"
        train = sorted(place.glob("train*.parquet"))
        if not train:
            raise InputError(f"There is no train*.parquet in {place}; featcx needs one, and a test*.parquet beside it.")
        named = {split: found for split in TESTS if (found := sorted(place.glob(f"{split}*.parquet")))}
        self.test_name = next(iter(named), "")
        self.parts = {"train": train, "test": named.get(self.test_name, [])}
        used = {*self.files()}
        self.unread = natural(path.name for path in place.glob("*.parquet") if path not in used)
        if self.test_name:
            no_share_beside(named[self.test_name][0].name, spec.test)

    def files(self) -> list[Path]:
        return [*self.parts["train"], *self.parts["test"]]

    @cached_property
    def found(self) -> tuple[Labels, np.ndarray | None, np.ndarray | None]:
        """Labels of both splits, and the rows of train to train and to test on where a share is held out."""
        words = {s: [self._label_column(path) for path in files] for s, files in self.parts.items() if files}
        for split, found in words.items():
            if not sum(map(len, found)):
                raise InputError(f"The {split} split of {self.folder} has no rows; featcx needs images in both splits.")
        arrays = {split: np.concatenate([a for a in found if len(a)]) for split, found in words.items()}
        classes = self._class_names() or classes_of(arrays["train"])
        numbers = {s: numbered(values, classes, f"The {s} split of {self.folder}") for s, values in arrays.items()}
        check_labels(numbers["train"], classes, f"train split of {self.folder}")
        unread = [f"not read: {listed_first(self.unread)}"] if self.unread else []
        if "test" not in numbers:
            kept, out, note = held_out(numbers["train"], self.spec.test)
            return Labels(numbers["train"][kept], numbers["train"][out], classes, [note, *unread]), kept, out
        check_labels(numbers["test"], classes, f"test split of {self.folder}")
        notes = [f"{self.test_name}*.parquet serves as the test split"] if self.test_name != "test" else []
        return Labels(numbers["train"], numbers["test"], classes, notes + unread), None, None

    def labels(self) -> Labels:
        return self.found[0]

    def shape(self) -> Shape:
        self.labels()  # refuses what has no rows
        return shape_of(self._blobs(self.files(), 1), self.spec.size, self.spec.fit)

    def fill(self, train: np.ndarray, test: np.ndarray, progress: Progress) -> Labels:
        labels, kept, out = self.found
        places = [*train, *test]
        if kept is not None and out is not None:
            places = [places[i] for i in np.concatenate([kept, out]).argsort()]  # in the order of the rows
        pictures = (
            (blob, name, place) for (blob, name), place in zip(self._blobs(self.files(), 100), places, strict=True)
        )
        decode_into(pictures, len(places), self.spec.size, self.spec.fit, progress)
        return labels

    def _blobs(self, files: list[Path], batch: int) -> Iterator[tuple[bytes | None, str]]:
        """The pictures' bytes with the file and row of each."""
        import pyarrow.parquet as pq

        for path in files:
            image, _ = self._columns(path)
            with readable(path), pq.ParquetFile(path) as file:
                row = 0
                for part in file.iter_batches(batch_size=batch, columns=[image]):
                    for value in part.column(0).to_pylist():
                        yield (value.get("bytes") if isinstance(value, dict) else value), f"{path}, row {row}"
                        row += 1

    def _columns(self, path: Path) -> tuple[str, str]:
        """Which columns hold the images and the labels."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with readable(path):
            schema = pq.read_schema(path)
        kinds = {name: feature.get("_type") for name, feature in _features(schema).items() if name in schema.names}
        images = [f.name for f in schema if _holds_bytes(f.type)]
        labels = [f.name for f in schema if _holds_labels(f.type)]
        alone = [f.name for f in schema if pa.types.is_integer(f.type) or pa.types.is_boolean(f.type)]
        told = {kind: [name for name in schema.names if kinds.get(name) == kind] for kind in ("Image", "ClassLabel")}
        image = _one_of(path, "image", images, told["Image"], images, self.spec.image)
        return image, _one_of(path, "label", labels, told["ClassLabel"], alone, self.spec.label)

    def _label_column(self, path: Path) -> np.ndarray:
        import pyarrow as pa
        import pyarrow.parquet as pq

        _, label = self._columns(path)
        with readable(path):
            column = pq.read_table(path, columns=[label]).column(0)
        if column.null_count:
            raise InputError(f"{path} has {column.null_count} empty labels in column '{label}'; drop those rows.")
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        return np.asarray(column.to_pylist()) if not pa.types.is_integer(column.type) else column.to_numpy()

    def _class_names(self) -> tuple[str, ...]:
        """The names that the file's own features give the labels; none where they do not."""
        import pyarrow.parquet as pq

        path = self.parts["train"][0]
        names = _features(pq.read_schema(path)).get(self._columns(path)[1], {}).get("names")
        if isinstance(names, dict):
            names = [names[str(i)] for i in range(len(names))]
        return tuple(names or ())


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """What a Hugging Face file says of its columns."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, AttributeError):
        return {}


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _holds_labels(kind: Any) -> bool:
    import pyarrow as pa

    is_one = ["integer", "boolean", "floating", "string", "large_string", "dictionary"]
    return any(getattr(pa.types, f"is_{name}")(kind) for name in is_one)


def _one_of(path: Path, what: str, columns: list[str], told: list[str], alone: list[str], wanted: str | None) -> str:
    """The column: the one that is asked for, that the file tells of, that is named so, or that is the only one such.

    Raises:
        InputError: when there is none, or several with nothing to choose by.
    """
    named = [name for name in NAMES[what] if name in columns]
    choice = [wanted] if wanted is not None else told or named[:1] or alone
    if not choice or not set(choice) <= set(columns):
        kind = f"{what} column" + (f" '{wanted}'" if wanted is not None else KINDS[what])
        raise InputError(f"{path} has no {kind}; name one of its columns with dataset.{what}: {_listed(path)}.")
    if len(choice) > 1:
        raise InputError(
            f"{path} has several columns that may be the {what}: {', '.join(choice)}; name one with dataset.{what}."
        )
    return choice[0]


def _listed(path: Path) -> str:
    import pyarrow.parquet as pq

    return ", ".join(pq.read_schema(path).names)
