"""What components look like: maps of one channel for a few test images, and where each component's energy lies."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featcx_core.analysis.components import ComponentTable
from featcx_core.analysis.inputs import Inputs
from featcx_core.data.images import Dataset, Rows
from featcx_core.data.mapped import rows_at_once
from featcx_core.store.record import Record

SAMPLES = 6  # images shown, one a class
INPUTS = "inputs"
CLASSES = 10  # classes whose energy is drawn


@dataclass(frozen=True)
class Pictures:
    """Maps of one channel for k test images, and energy maps of K classes, L orders.

    Attributes:
        images: uint8 (k, C_in, H_in, W_in), the inputs.
        feature, residual: float32 (k, H, W), f and Δf in `channel`.
        phi, components: float32 (k, L, H, W), Φ^(l) and c^(l) in `channel`.
        energy: float32 (K, L + 1, H, W), E over a class's test images of Σ_channels c², the residual's last; zeros for a
            class without images.
        means: uint8 (1 + min(K, CLASSES), C_in, H_in, W_in), the mean input of all test images, then of each class.
        orders: complexity orders, rising.
        channel: the channel of the maps.
        samples, labels: each image's number in the test split and class.
        correct: whether the target classifies each right.
        classes: K names.
        rows: test images a class that the energy is taken over.
        inputs: images of the pool as the net gets them; None where they are not kept.
    """

    images: Tensor
    feature: Tensor
    phi: Tensor
    components: Tensor
    residual: Tensor
    energy: Tensor
    means: Tensor
    orders: tuple[int, ...]
    channel: int
    samples: tuple[int, ...]
    labels: tuple[int, ...]
    correct: tuple[bool, ...]
    classes: tuple[str, ...]
    rows: tuple[int, ...]
    inputs: Inputs | None = None

    def save(self, folder: Path) -> None:
        """Writes them into a folder that exists."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if (inputs := values.pop(INPUTS)) is not None:
            inputs.save(folder / INPUTS)
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        Record(
            tensors={"pictures": tensors}, numbers={name: v for name, v in values.items() if name not in tensors}
        ).save(folder)

    @staticmethod
    def load(folder: Path) -> Pictures:
        """What `save` wrote."""
        stored = Record.load(folder)
        lists = {name: tuple(v) if isinstance(v, list) else v for name, v in stored.numbers.items()}
        values: dict[str, Any] = lists | dict(stored.tensors["pictures"])
        there = (folder / INPUTS).is_dir()
        return Pictures(**values, inputs=Inputs.load(folder / INPUTS) if there else None)


@torch.no_grad()
def make_pictures(data: Dataset, test: ComponentTable, head: nn.Module, count: int = SAMPLES) -> Pictures:
    """The pictures of a target's test components, in one pass over them.

    The images are the first of each of the lowest classes, in turn one that the target gets right and one that it gets
    wrong; where a class has none of the wanted kind, its first. The channel is the one with most positive positions of f
    over these images (METHOD §7), the first of equals.

    Args:
        head: feature to logits, in evaluation mode, on the CPU.
        count: images at most.
    """
    labels, samples = test.labels(), test.samples()
    rows = torch.bincount(labels, minlength=len(data.classes))
    shown = rows.nonzero().flatten().tolist()[:count]
    energy = torch.zeros(len(rows), len(test.orders) + 1, *test.shape[1:], dtype=torch.float64)
    found: dict[tuple[int, bool], tuple[int, Tensor]] = {}  # (class, right) → the first such row and its maps
    start = 0
    for batch, own in test.stacked():
        energy.index_add_(0, own, batch.double().square().sum(2))
        lacking = [label for label in shown if {(label, True), (label, False)} - set(found)]
        places = torch.isin(own, torch.tensor(lacking, dtype=own.dtype)).nonzero().flatten()
        if len(places):
            right = head(batch[places].sum(1)).argmax(1) == own[places]
            for i, correct in zip(places.tolist(), right.tolist(), strict=True):
                found.setdefault((int(own[i]), correct), (start + i, batch[i].clone()))
        start += len(own)
    chosen = []
    for k, label in enumerate(shown):
        kinds = [(label, k % 2 == 0), (label, k % 2 == 1)]
        chosen.append(next(kind for kind in kinds if kind in found))
    numbers = samples[[found[kind][0] for kind in chosen]]
    maps = torch.stack([found[kind][1] for kind in chosen])
    feature = maps.sum(1)
    channel = int((feature > 0).sum((0, 2, 3)).argmax())
    groups = [samples, *(samples[labels == label] for label in range(min(CLASSES, len(rows))))]
    means = [_sum(Rows(data.test_images, group, data.file)).float() / max(1, len(group)) for group in groups]
    images = Rows(data.test_images, numbers, data.file)[:]
    return Pictures(
        images=as_bytes(images),
        feature=feature[:, channel],
        phi=maps[:, :-1, channel].cumsum(1),
        components=maps[:, :-1, channel],
        residual=maps[:, -1, channel],
        energy=(energy / rows.clamp_min(1)[:, None, None, None]).float(),
        means=as_bytes(torch.stack(means))
        if images.is_floating_point()
        else torch.stack(means).round().to(torch.uint8),
        orders=test.orders,
        channel=channel,
        samples=tuple(numbers.tolist()),
        labels=tuple(shown),
        correct=tuple(correct for _, correct in chosen),
        classes=data.classes,
        rows=tuple(rows.tolist()),
    )


def as_bytes(images: Tensor) -> Tensor:
    """Images to be looked at, uint8: floats are stretched to the range of all of them."""
    if not images.is_floating_point():
        return images
    low, high = images.min(), images.max()
    return ((images - low) / (high - low).clamp_min(1e-12) * 255).round().to(torch.uint8)


def _sum(images: Rows) -> Tensor:
    """(C, H, W): the sum of images, some at a time; int64 of uint8 images, float64 of others."""
    exact = torch.float64 if images.images.is_floating_point() else torch.int64
    total = torch.zeros(images.images.shape[1:], dtype=exact)
    for part in images.split(rows_at_once(images.images)):
        total += part.sum(0, dtype=exact)
    return total


def limit_of(pictures: Pictures, share: float = 0.99) -> float:
    """The symmetric limit of the maps' colours: the 99th percentile of |value| over all maps of the grid."""
    parts = (pictures.feature, pictures.phi, pictures.components, pictures.residual)
    values = torch.cat([part.flatten() for part in parts]).abs().double()
    # kthvalue: torch.quantile refuses more than 16 million values
    return max(float(values.kthvalue(max(1, round(share * len(values)))).values), 1e-12)


def shares_by_position(pictures: Pictures) -> Tensor:
    """float64 (K + 1, L + 1, H, W): each energy map as shares of its own sum, those of all images together first."""
    energy = pictures.energy.double()
    rows = torch.tensor(pictures.rows, dtype=torch.float64)
    whole = torch.einsum("k,klhw->lhw", rows, energy) / rows.sum()
    stacked = torch.cat([whole[None], energy])
    return stacked / stacked.sum((2, 3), keepdim=True).clamp_min(1e-30)


def spread(pictures: Pictures) -> Tensor:
    """float64 (L + 1,): over what share of the positions the energy of all images spreads, 1 / (H W Σ p²); 1 where even.

    0 for a component without energy.
    """
    shares = shares_by_position(pictures)[0].flatten(1)
    square = shares.shape[1] * shares.square().sum(1)
    return torch.where(square > 0, 1 / square, 0)


def unexplained(pictures: Pictures) -> Tensor:
    """float64 (L,): Σ (f − Φ^(l))² / Σ f² over the chosen images and channel."""
    feature = pictures.feature.double()[:, None]
    return (feature - pictures.phi).square().sum((0, 2, 3)) / feature.square().sum().clamp_min(1e-30)
