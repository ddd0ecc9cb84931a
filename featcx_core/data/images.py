"""A data set is two tensors of images and labels, class names and a normalisation; any subset is a seeded index."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from featcx_core.errors import InputError
from featcx_core.seeds import derive_seed


@dataclass(frozen=True)
class Dataset:
    """Images in memory, with the splits that are fixed once per data set and never mixed.

    Attributes:
        train_images, test_images: uint8 (n, C, H, W).
        train_labels, test_labels: int64 (n,).
        pool, validation: disjoint sorted indices into the training images; nets train on the pool alone.
        classes: class names.
        mean, std: float32 (C,), of the pool's pixels in [0, 1].
        crop: random-crop padding in pixels.
        flip: whether random horizontal flips keep a sample's class.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    pool: Tensor
    validation: Tensor
    classes: tuple[str, ...]
    mean: Tensor
    std: Tensor
    crop: int
    flip: bool
    dtype: ClassVar[torch.dtype] = torch.uint8
    top: ClassVar[int] = 255  # the pixel that counts as 1

    def __post_init__(self) -> None:
        for images in (self.train_images, self.test_images):
            if images.dtype != self.dtype:
                raise InputError(
                    f"A {type(self).__name__} holds {self.dtype} images, not {images.dtype}; "
                    "give bytes (uint8) to Dataset, and floats, as the net takes them, to FloatDataset."
                )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        c, h, w = self.train_images.shape[1:]
        return c, h, w

    def split(self, name: str, seen: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(images, labels, sample numbers) of 'pool', 'validation', 'test', or of 'seen', given by its indices."""
        if name == "test":
            return self.test_images, self.test_labels, torch.arange(len(self.test_labels))
        chosen = {"pool": self.pool, "validation": self.validation, "seen": seen}.get(name)
        if chosen is None:
            raise InputError(f"There is no split '{name}' here; choose pool, validation, seen or test.")
        return self.train_images[chosen], self.train_labels[chosen], chosen

    def normalise(self, images: Tensor) -> Tensor:
        """Images (n, C, H, W) as float32 with the pool's mean and deviation taken out, channels last."""
        mean, std = (v.to(images.device)[:, None, None] for v in (self.mean, self.std))
        return ((images.float() / self.top - mean) / std).contiguous(memory_format=torch.channels_last)

    def save(self, folder: Path) -> None:
        """Writes data.safetensors and data.json."""
        meta = {"classes": list(self.classes), "crop": self.crop, "flip": self.flip}
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        save_file(tensors, folder / "data.safetensors")
        (folder / "data.json").write_text(json.dumps(meta, indent=1, ensure_ascii=False), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> Dataset:
        """What `save` wrote."""
        meta = json.loads((folder / "data.json").read_text(encoding="utf-8"))
        with safe_open(folder / "data.safetensors", "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        kind = Dataset if tensors["train_images"].dtype == Dataset.dtype else FloatDataset
        return kind(classes=tuple(meta["classes"]), crop=meta["crop"], flip=meta["flip"], **tensors)


@dataclass(frozen=True)
class FloatDataset(Dataset):
    """The same with float32 images: any values, of which `mean` and `std` alone are taken out."""

    dtype: ClassVar[torch.dtype] = torch.float32
    top: ClassVar[int] = 1


def by_class(labels: np.ndarray, seed: int) -> list[np.ndarray]:
    """The indices of each class in a seeded order of its own."""
    return [
        np.random.default_rng(derive_seed(seed, "class", c)).permutation(np.flatnonzero(labels == c))
        for c in range(int(labels.max()) + 1)
    ]


def stratified_split(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(taken, rest): sorted indices, `fraction` of all in `taken`, shared among the classes by largest remainder.

    Each class gives one at least.
    """
    parts = by_class(labels, seed)
    exact = np.array([fraction * len(part) for part in parts])
    counts = np.floor(exact).astype(int)
    short = round(fraction * len(labels)) - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:short]] += 1
    counts = np.maximum(counts, 1)
    taken = np.sort(np.concatenate([part[:k] for part, k in zip(parts, counts, strict=True)]))
    return taken, np.setdiff1d(np.arange(len(labels)), taken)


def balanced_subset(labels: Tensor, pool: Tensor, samples: int, seed: int) -> Tensor:
    """Sorted indices of a class-balanced subset of the pool; a smaller subset of the same seed lies within a larger one.

    Raises:
        InputError: when `samples` is not a multiple of the number of classes, or a class has too few images.
    """
    parts = by_class(labels[pool].numpy(), seed)
    check_samples(samples, [len(part) for part in parts])
    each = samples // len(parts)
    return pool[np.sort(np.concatenate([part[:each] for part in parts]))]


def check_samples(samples: int, pool_counts: list[int]) -> None:
    """Whether a class-balanced subset of `samples` images can be drawn from a pool with these images a class.

    Raises:
        InputError: with the nearest counts that can.
    """
    classes, smallest = len(pool_counts), min(pool_counts)
    if samples % classes:
        lower, upper = samples // classes * classes, -(-samples // classes) * classes
        choice = f"{lower} or {upper}" if lower else f"{upper}"
        raise InputError(f"target.samples = {samples} is not a multiple of the {classes} classes; take {choice}.")
    if samples > classes * smallest:
        raise InputError(
            f"target.samples = {samples} is more than the pool holds in class balance; take {classes * smallest} at most."
        )


class Augmented:
    """Batches of randomly cropped and flipped images, one crop and one flip a sample, drawn by a single gather.

    torchvision's transforms draw one set of parameters a call, hence the gather. Padding is black, before normalisation,
    as the published runs have it.

    Args:
        data: the data set.
        indices: the training images to draw from.
        device: where batches are made; the padded uint8 images stay there.
    """

    def __init__(self, data: Dataset, indices: Tensor, device: torch.device | str = "cpu") -> None:
        self.data, self.device = data, torch.device(device)
        pad = data.crop
        images = torch.nn.functional.pad(data.train_images[indices], (pad,) * 4)
        self.images = images.permute(0, 2, 3, 1).contiguous().to(device)
        self.labels = data.train_labels[indices].to(device)
        self.mean, self.std = data.mean.to(device), data.std.to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def draw(self, chosen: Tensor, rng: torch.Generator) -> Tensor:
        """What is random of a batch of the samples at positions `chosen`: int64 (4, b), on the CPU.

        Its rows: the positions, the crop's first row and column, and whether it is mirrored.
        """
        n = len(chosen)
        shift = torch.randint(2 * self.data.crop + 1, (2, n, 1), generator=rng)
        mirrored = torch.rand(n, 1, generator=rng) < 0.5 if self.data.flip else torch.zeros(n, 1)
        return torch.stack([chosen, *shift[:, :, 0], mirrored[:, 0].long()])

    def plain(self, chosen: Tensor) -> Tensor:
        """The normalised images at positions `chosen`, neither shifted nor mirrored."""
        centre = torch.full_like(chosen, self.data.crop)
        return self.take(torch.stack([chosen, centre, centre, torch.zeros_like(chosen)]))[0]

    def take(self, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """(normalised float32 images (b, C, H, W) in channels-last layout, labels (b,)) of what was drawn."""
        chosen, top, left, mirrored = drawn.to(self.device, non_blocking=True)[:, :, None]
        _, height, width = self.data.shape
        rows, across = (torch.arange(size, device=self.device) for size in (height, width))
        columns = left + torch.where(mirrored > 0, across.flip(0), across)
        pixels = self.images[chosen[:, :, None], (top + rows)[:, :, None], columns[:, None, :]]
        normalised = (pixels.float() / self.data.top - self.mean) / self.std
        return normalised.permute(0, 3, 1, 2), self.labels[chosen[:, 0]]

    def batch(self, chosen: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random batch of the samples at positions `chosen`: `take` of `draw`."""
        return self.take(self.draw(chosen, rng))


Shape = tuple[int, int, int]
