"""Where data sets come from: built-in digits, CIFAR-10, Parquet in the Hugging Face layout, image folders.

Every source answers three questions: how many training images a class and what shape an image has (cheap, asked before
anything is written), and the whole data set as tensors.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch

from featcx_core.data.arrays import Arrays
from featcx_core.data.builtin import Cifar10, Digits, Mnist
from featcx_core.data.folder import Folder
from featcx_core.data.images import Dataset, Shape, check_samples, stratified_split
from featcx_core.data.parquet import Parquet
from featcx_core.data.raw import Progress, Source
from featcx_core.errors import InputError
from featcx_core.specs import DatasetSpec, nearest


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


def understood(spec: DatasetSpec) -> list[str]:
    """What was made of a source, a line each: images, classes, size, splits, and what was left out."""
    source = _source(spec)
    labels, (channels, height, width) = source.labels(), source.shape()
    counts = np.bincount(labels.train, minlength=len(labels.classes))
    shown = [f"{name} {count}" for name, count in zip(labels.classes, counts, strict=True)]
    listed = ", ".join(shown if len(shown) <= 12 else [*shown[:6], "…", *shown[-2:]])
    return [
        f"{len(labels.train):,} training and {len(labels.test):,} test images, {width}×{height} pixels in "
        f"{'colour' if channels == 3 else 'grey'}, {len(labels.classes)} classes ({listed})",
        *labels.notes,
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
