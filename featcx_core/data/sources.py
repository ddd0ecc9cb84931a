"""Where data sets come from: built-in digits, CIFAR-10, Parquet in the Hugging Face layout, image folders.

Every source answers three questions: how many training images a class and what shape an image has (cheap, asked before
anything is written), and the pixels, which it decodes into where they are to lie.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from featcx_core.data.arrays import Arrays
from featcx_core.data.builtin import Cifar10, Digits, Mnist
from featcx_core.data.folder import Folder
from featcx_core.data.images import DATA, Dataset, Shape, check_samples, normalisation, stratified_split
from featcx_core.data.mapped import create
from featcx_core.data.parquet import Parquet
from featcx_core.data.raw import Labels, Progress, Source, listed_first
from featcx_core.errors import InputError
from featcx_core.specs import DatasetSpec, nearest


def load_dataset(
    spec: DatasetSpec, progress: Progress = lambda done, total: None, folder: Path | None = None
) -> Dataset:
    """The data set that `spec` names, decoded, checked, split and with its normalisation measured on the pool.

    Args:
        folder: where its images are decoded to, so that memory does not grow with them, and where `Dataset.load` finds it
            all; None: they are decoded in memory. The values are the same.

    Raises:
        InputError: for an unknown source and for data that cannot be used, with the file and row.

    >>> import featcx_core as fx
    >>> data = fx.load_dataset(fx.DatasetSpec(source="digits"))
    >>> data.shape, len(data.classes), data.train_images.dtype
    ((1, 8, 8), 10, torch.uint8)
    """
    source = _source(spec)
    labels, shape = source.labels(), source.shape()
    if min(shape[1:]) < 8:
        raise InputError(f"Images are {shape[2]}×{shape[1]} pixels; featcx needs 8×8 at least.")
    layout: dict[str, tuple[torch.dtype, tuple[int, ...]]] = dict.fromkeys(("mean", "std"), (torch.float32, shape[:1]))
    layout |= {name: (torch.int64, tuple(part.shape)) for name, part in _parted(spec, labels).items()}
    for name, n in (("train", len(labels.train)), ("test", len(labels.test))):
        layout |= {f"{name}_labels": (torch.int64, (n,)), f"{name}_images": (torch.uint8, (n, *shape))}
    file = None if folder is None else create(folder / DATA, layout)
    made = (
        {name: torch.empty(size, dtype=kind) for name, (kind, size) in layout.items()} if file is None else file.tensors
    )
    images, done = [made["train_images"], made["test_images"]], 0

    def tell(now: int, total: int) -> None:
        nonlocal done
        if file is not None:
            file.touch((now - done) * math.prod(shape))
        done = now
        progress(now, total)

    labels = source.fill(images[0].numpy(), images[1].numpy(), tell)
    small = {"train_labels": torch.from_numpy(labels.train), "test_labels": torch.from_numpy(labels.test)}
    small |= _parted(spec, labels)
    small["mean"], small["std"] = normalisation(images[0], small["pool"], file)
    for name, tensor in small.items():
        made[name].copy_(tensor)
    crop = round(min(shape[1:]) / 8) if spec.crop is None else spec.crop
    data = Dataset(
        classes=labels.classes, crop=crop, flip=source.flip if spec.flip is None else spec.flip, file=file, **made
    )
    if folder is not None:
        data.describe(folder)
    return data


def _parted(spec: DatasetSpec, labels: Labels) -> dict[str, Tensor]:
    """The training images of pool and validation, as many whatever order the labels come in."""
    validation, pool = stratified_split(labels.train, spec.validation, spec.split_seed)
    return {"pool": torch.from_numpy(pool), "validation": torch.from_numpy(validation)}


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


def understood(spec: DatasetSpec) -> list[str]:
    """What was made of a source, a line each: images, classes, size, splits, and what was left out."""
    source = _source(spec)
    labels, (channels, height, width) = source.labels(), source.shape()
    counts = np.bincount(labels.train, minlength=len(labels.classes))
    shown = [f"{name} {count}" for name, count in zip(labels.classes, counts, strict=True)]
    listed = ", ".join(shown if len(shown) <= 12 else [*shown[:6], "…", *shown[-2:]])
    tested = np.bincount(labels.test, minlength=len(labels.classes))
    lacking = [name for name, count in zip(labels.classes, tested, strict=True) if not count]
    notes = [f"the test split has no image of {listed_first(lacking)}"] if lacking else []
    return [
        f"{len(labels.train):,} training and {len(labels.test):,} test images, {width}×{height} pixels in "
        f"{'colour' if channels == 3 else 'grey'}, {len(labels.classes)} classes ({listed})",
        *labels.notes,
        *notes,
    ]


BUILTIN: dict[str, type[Digits] | type[Cifar10]] = {"digits": Digits, "mnist": Mnist, "cifar10": Cifar10}
OWN: dict[str, type[Parquet] | type[Folder] | type[Arrays]] = {"parquet": Parquet, "folder": Folder, "npz": Arrays}


def _source(spec: DatasetSpec) -> Source:
    kind, _, place = spec.source.partition(":")
    if kind in OWN:
        path, what = Path(place).expanduser(), "file" if kind == "npz" else "folder"
        if not place or not (path.is_file() if kind == "npz" else path.is_dir()):
            name = "FILE" if kind == "npz" else "DIR"
            raise InputError(
                f"There is no {what} '{place}'; write dataset.source={kind}:{name} with a {what} that exists."
            )
        return OWN[kind](path, spec)
    if kind not in BUILTIN or place:
        raise InputError(f"There is no data source '{spec.source}'; {nearest(kind, [*BUILTIN, *OWN])}")
    return BUILTIN[kind]()
