"""What a network gets: six images as they reach it, and what stands between their files and the net."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from featcx_core.data.images import Augmented, Dataset
from featcx_core.seeds import generator
from featcx_core.store.record import Record

SAMPLES = 6  # images shown, of as many classes as there are


@dataclass(frozen=True)
class Inputs:
    """k images of the pool, and the numbers that say how they were made.

    Attributes:
        images: uint8 (k, C, H, W), as the net gets them when it is asked, before their normalisation.
        drawn: uint8 (k, C, H, W), the same as one batch of a training has them: shifted and perhaps mirrored.
        labels: the class of each.
        classes, counts: names, and the pool's images of each.
        sizes: images of 'pool', 'validation' and 'test'.
        crop, flip: by how many pixels training shifts images, and whether it mirrors them.
        mean, std: a value a channel, what the net's pixels in [0, 1] are less and over.
        own: whether these are the pool's own.
        low, high: the least and the largest value that the net gets of these images.
        notes: what was told of the source, a sentence each.
    """

    images: Tensor
    drawn: Tensor
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    sizes: dict[str, int]
    crop: int
    flip: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    own: bool
    low: float
    high: float
    notes: tuple[str, ...] = ()

    def save(self, folder: Path) -> None:
        """Writes them into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        values = asdict(self)
        tensors = {name: values.pop(name) for name in ("images", "drawn")}
        Record(tensors={"inputs": tensors}, numbers=values).save(folder)

    @staticmethod
    def load(folder: Path) -> Inputs:
        """What `save` wrote."""
        stored = Record.load(folder)
        lists = {name: tuple(v) if isinstance(v, list) else v for name, v in stored.numbers.items()}
        values: dict[str, Any] = lists | dict(stored.tensors["inputs"])
        return Inputs(**values)


def make_inputs(
    data: Dataset,
    rescale: tuple[Sequence[float], Sequence[float]] | None = None,
    notes: Sequence[str] = (),
    count: int = SAMPLES,
) -> Inputs:
    """The first images of the pool, of its classes in turn, as a net gets them.

    Args:
        rescale: (scale, shift) a channel between the pool's normalisation and the net; None for nothing.
    """
    labels = data.train_labels[data.pool]
    own = [part for k in range(len(data.classes)) if len(part := (labels == k).nonzero().flatten()[:count])]
    chosen = torch.stack([part[rank] for rank in range(count) for part in own if rank < len(part)][:count])
    images = data.read("pool", data.pool[chosen])
    samples = Augmented(data, data.pool[chosen])
    drawn, _ = samples.batch(torch.arange(len(chosen)), generator(0))
    m, s = data.mean.double(), data.std.double()
    scale, shift = (torch.ones_like(s), torch.zeros_like(m)) if rescale is None else map(_float64, rescale)
    given = data.normalise(images).double() * scale[:, None, None] + shift[:, None, None]
    black, white = pixel_range(images)
    pixels = (drawn.double() * s[:, None, None] + m[:, None, None]) * data.top
    return Inputs(
        images=visible(images, black, white),
        drawn=visible(pixels, black, white),
        labels=tuple(labels[chosen].tolist()),
        classes=data.classes,
        counts=tuple(torch.bincount(labels, minlength=len(data.classes)).tolist()),
        sizes={"pool": len(data.pool), "validation": len(data.validation), "test": len(data.test_labels)},
        crop=data.crop,
        flip=data.flip,
        mean=tuple((m - shift * s / scale).tolist()),
        std=tuple((s / scale).tolist()),
        own=rescale is None,
        low=float(given.min()),
        high=float(given.max()),
        notes=tuple(notes),
    )


def pixel_range(images: Tensor) -> tuple[float, float]:
    """What is shown black and white: 0 and 255 of bytes, the least and largest value of floats."""
    return (float(images.min()), float(images.max())) if images.is_floating_point() else (0.0, 255.0)


def visible(images: Tensor, black: float, white: float) -> Tensor:
    """uint8 of the same shape: values from `black` to `white` as 0 to 255."""
    share = (images.double() - black) / max(white - black, 1e-12)
    return (255 * share).round().clamp(0, 255).to(torch.uint8)


def _float64(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
