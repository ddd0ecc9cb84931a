"""A data set is two tensors of images and labels, class names and a normalisation; any subset is a seeded index."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from featcx_core.data.mapped import Mapped, create, rows_at_once
from featcx_core.errors import InputError
from featcx_core.seeds import derive_seed

AHEAD = 2  # batches that are read before they are asked for
PIXELS = 1 << 20  # of a channel that go through a net together when nothing is trained: 250 images of 64×64
ON_DEVICE = 0.25  # of a GPU's free memory that the images may take there
DATA = "data.safetensors"
T = TypeVar("T")
S = TypeVar("S")


def ahead(read: Callable[[S], T], of: Iterable[S]) -> Generator[T]:
    """`read` of each in turn, done by a thread up to AHEAD calls before they are asked for."""
    waiting = deque[Future[T]]()
    with ThreadPoolExecutor(1) as thread:
        try:
            for one in of:
                waiting.append(thread.submit(read, one))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            thread.shutdown(cancel_futures=True)


def at_once(shape: Sequence[int], most: int = 250) -> int:
    """Of images (…, H, W) how many go through a net together when nothing is trained: few where they are large."""
    return max(1, min(most, PIXELS // (shape[-2] * shape[-1])))


class Rows:
    """Some images of a data set, read when they are asked for: uint8 (n, C, H, W).

    Args:
        images: all images of the train or test split.
        chosen: int64 (n,), which of them.
        file: that they lie in; None: in memory.
    """

    def __init__(self, images: Tensor, chosen: Tensor, file: Mapped | None) -> None:
        self.images, self.chosen, self.file = images, chosen, file

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, C, H, W)."""
        return len(self), *self.images.shape[1:]

    def __getitem__(self, which: slice | Tensor) -> Tensor:
        """A copy of these rows."""
        found = self.images[self.chosen[which]]
        if self.file is not None:
            self.file.touch(found.nbytes)
        return found

    def only(self, which: Tensor) -> Rows:
        """These rows of it, not yet read."""
        return Rows(self.images, self.chosen[which], self.file)

    def split(self, batch: int) -> Iterator[Tensor]:
        """All of them in order, `batch` at a time; what lies in a file is read ahead."""
        parts = (slice(start, start + batch) for start in range(0, len(self), batch))
        return (self[part] for part in parts) if self.file is None else ahead(self.__getitem__, parts)


@dataclass(frozen=True)
class Dataset:
    """Images in memory or in a mapped file, with the splits that are fixed once per data set and never mixed.

    Attributes:
        train_images, test_images: uint8 (n, C, H, W).
        train_labels, test_labels: int64 (n,).
        pool, validation: disjoint sorted indices into the training images; nets train on the pool alone.
        classes: class names.
        mean, std: float32 (C,), of the pool's pixels in [0, 1].
        crop: random-crop padding in pixels.
        flip: whether random horizontal flips keep a sample's class.
        file: that the images lie in; None: in memory. Rows are then read through `split`, which keeps memory bounded.
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
    file: Mapped | None = None
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

    def split(self, name: str, seen: Tensor | None = None) -> tuple[Rows, Tensor, Tensor]:
        """(images, labels, sample numbers) of 'pool', 'validation', 'test', or of 'seen', given by its indices."""
        if name == "test":
            every = torch.arange(len(self.test_labels))
            return Rows(self.test_images, every, self.file), self.test_labels, every
        chosen = {"pool": self.pool, "validation": self.validation, "seen": seen}.get(name)
        if chosen is None:
            raise InputError(f"There is no split '{name}' here; choose pool, validation, seen or test.")
        return Rows(self.train_images, chosen, self.file), self.train_labels[chosen], chosen

    def read(self, split: str, numbers: Tensor) -> Tensor:
        """The images with these sample numbers, uint8 (n, C, H, W), of 'test' or of any other split."""
        return Rows(self.test_images if split == "test" else self.train_images, numbers, self.file)[:]

    def normalise(self, images: Tensor | Rows) -> Tensor:
        """Images (n, C, H, W) as float32 with the pool's mean and deviation taken out, channels last."""
        images = images[:] if isinstance(images, Rows) else images
        mean, std = (v.to(images.device)[:, None, None] for v in (self.mean, self.std))
        return ((images.float() / self.top - mean) / std).contiguous(memory_format=torch.channels_last)

    def save(self, folder: Path) -> None:
        """Writes data.safetensors and data.json."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        made = create(folder / DATA, {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()})
        for name, tensor in tensors.items():
            made.tensors[name].copy_(tensor)
        self.describe(folder)

    def describe(self, folder: Path) -> None:
        """Writes data.json, what is no tensor."""
        meta = {"classes": list(self.classes), "crop": self.crop, "flip": self.flip}
        (folder / "data.json").write_text(json.dumps(meta, indent=1, ensure_ascii=False), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> Dataset:
        """What `save` wrote; the images stay in the file."""
        meta = json.loads((folder / "data.json").read_text(encoding="utf-8"))
        file = Mapped(folder / DATA)
        tensors = {name: t if name.endswith("images") else t.clone() for name, t in file.tensors.items()}
        kind = Dataset if tensors["train_images"].dtype == Dataset.dtype else FloatDataset
        return kind(classes=tuple(meta["classes"]), crop=meta["crop"], flip=meta["flip"], file=file, **tensors)


@dataclass(frozen=True)
class FloatDataset(Dataset):
    """The same with float32 images: any values, of which `mean` and `std` alone are taken out."""

    dtype: ClassVar[torch.dtype] = torch.float32
    top: ClassVar[int] = 1


def normalisation(images: Tensor, pool: Tensor, file: Mapped | None = None) -> tuple[Tensor, Tensor]:
    """(mean, std) float32 (C,) of the pool's pixels in [0, 1], from uint8 images (n, C, H, W), exactly, some at a time.

    A deviation is 1/255 at least: a constant channel would divide by zero.
    """
    counts = np.zeros((images.shape[1], 256), dtype=np.int64)
    for part in Rows(images, pool, file).split(rows_at_once(images)):
        for c in range(len(counts)):
            counts[c] += np.bincount(part[:, c].numpy().ravel(), minlength=256)
    means, deviations = [], []
    for channel in counts.tolist():
        n = sum(channel)
        first, second = sum(v * k for v, k in enumerate(channel)), sum(v * v * k for v, k in enumerate(channel))
        means.append(first / n)
        deviations.append(
            max(((n * second - first**2) / n**2) ** 0.5, 1.0)
        )  # of whole numbers: nothing is rounded away
    return tuple(torch.tensor(values, dtype=torch.float64).div(255).float() for values in (means, deviations))  # type: ignore[return-value]


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

    >>> labels = torch.tensor([0, 1, 1, 0, 1, 0, 1, 1])
    >>> labels[balanced_subset(labels, torch.arange(8), samples=4, seed=0)].sort().values.tolist()
    [0, 0, 1, 1]
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
    as the published runs have it. Each batch's images are fetched from where they lie;
    those that fit are kept on a GPU.

    Args:
        data: the data set.
        indices: the training images to draw from.
        device: where batches are made.
        resident: whether the padded uint8 images stay on the device; None: on a GPU, where they fit. The bytes are the same.
    """

    def __init__(
        self, data: Dataset, indices: Tensor, device: torch.device | str = "cpu", resident: bool | None = None
    ) -> None:
        self.data, self.device = data, torch.device(device)
        self.rows = Rows(data.train_images, indices, data.file)
        self.labels = data.train_labels[indices].to(device)
        self.mean, self.std = data.mean.to(device), data.std.to(device)
        channels, *sides = data.shape
        shape = (len(indices), *(side + 2 * data.crop for side in sides), channels)
        if resident is None:
            item = data.train_images.element_size()
            room = torch.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else 0
            resident = math.prod(shape) * item < ON_DEVICE * room
        self.images: Tensor | None = None
        if resident:
            self.images, done = torch.empty(shape, dtype=data.dtype, device=self.device), 0
            for part in self.rows.split(rows_at_once(data.train_images)):
                self.images[done : done + len(part)] = self._padded(part.to(self.device))
                done += len(part)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def reads_ahead(self) -> bool:
        """Whether batches come from a file, so that it pays to fetch them before they are asked for."""
        return self.images is None and self.data.file is not None

    def draw(self, chosen: Tensor, rng: torch.Generator) -> Tensor:
        """What is random of a batch of the samples at positions `chosen`: int64 (4, b), on the CPU.

        Its rows: the positions, the crop's first row and column, and whether it is mirrored.
        """
        n = len(chosen)
        shift = torch.randint(2 * self.data.crop + 1, (2, n, 1), generator=rng)
        mirrored = torch.rand(n, 1, generator=rng) < 0.5 if self.data.flip else torch.zeros(n, 1)
        return torch.stack([chosen, *shift[:, :, 0], mirrored[:, 0].long()])

    def fetch(self, drawn: Tensor) -> tuple[Tensor, ...]:
        """What `take` needs of a batch, on the CPU: what was drawn and, unless they are resident, its images (b, C, H, W)."""
        return (drawn,) if self.images is not None else (drawn, self.rows[drawn[0]])

    def plain(self, chosen: Tensor) -> Tensor:
        """The normalised images at positions `chosen`, neither shifted nor mirrored."""
        centre = torch.full_like(chosen, self.data.crop)
        return self.take(*self.fetch(torch.stack([chosen, centre, centre, torch.zeros_like(chosen)])))[0]

    def take(self, drawn: Tensor, fetched: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(normalised float32 images (b, C, H, W) in channels-last layout, labels (b,)) of what was drawn and fetched."""
        chosen, top, left, mirrored = drawn.to(self.device, non_blocking=True)[:, :, None]
        _, height, width = self.data.shape
        rows, across = (torch.arange(size, device=self.device) for size in (height, width))
        columns = left + torch.where(mirrored > 0, across.flip(0), across)
        if fetched is None:
            assert self.images is not None
            images, places = self.images, chosen
        else:
            images = self._padded(fetched.to(self.device, non_blocking=True))
            places = torch.arange(len(images), device=self.device)[:, None]
        pixels = images[places[:, :, None], (top + rows)[:, :, None], columns[:, None, :]]
        normalised = (pixels.float() / self.data.top - self.mean) / self.std
        return normalised.permute(0, 3, 1, 2), self.labels[chosen[:, 0]]

    def batch(self, chosen: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random batch of the samples at positions `chosen`: `take` of what is fetched of `draw`."""
        return self.take(*self.fetch(self.draw(chosen, rng)))

    def _padded(self, images: Tensor) -> Tensor:
        """(b, C, H, W) to (b, H + 2·crop, W + 2·crop, C)."""
        return torch.nn.functional.pad(images.permute(0, 2, 3, 1), (0, 0, *(self.data.crop,) * 4))


Shape = tuple[int, int, int]
