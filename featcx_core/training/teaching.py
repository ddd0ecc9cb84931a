"""How each kind of net learns: what it is asked to do, on the one training loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featcx_core.data.images import Augmented, Dataset, Shape, at_once
from featcx_core.nets.disentangler import Disentangler
from featcx_core.nets.targets import (
    TargetNet,
)
from featcx_core.nets.trunk import Trunk
from featcx_core.nets.unit import Unit
from featcx_core.nets.weights import save_network
from featcx_core.seeds import generator, seeded
from featcx_core.specs import ScheduleSpec
from featcx_core.store.record import Record
from featcx_core.training.fit import FitResult, Training, cross_entropy, fit, predict, reproduce


def train_target(
    net: TargetNet,
    data: Augmented,
    schedule: ScheduleSpec,
    **how: Unpack[Training],
) -> dict[str, Any]:
    """Trains a target on the images that it is to see by cross-entropy; the loss curve, by samples drawn.

    >>> import torch, featcx_core as fx
    >>> data, schedule = fx.load_dataset(fx.DatasetSpec(source="digits")), fx.ScheduleSpec(draws=640, batch=32)
    >>> target = fx.TargetNet("resnet8", data.shape, classes=len(data.classes))
    >>> sorted(fx.train_target(target, fx.Augmented(data, data.pool), schedule))
    ['drawn', 'loss']
    """
    return fit(net, data, cross_entropy, schedule, **how)._asdict()


def score_target(
    net: nn.Module, data: Dataset, seen: Tensor | None, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """Accuracy and cross-entropy in nats on the seen (if known) and on the test images, without augmentation."""
    scores = {}
    net.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # the layout moves last digits
    for split, name in (("seen", "train"), ("test", "test"))[seen is None :]:
        images, labels, _ = data.split(split, seen)
        logits = predict(net.eval(), images, data.normalise, device)
        scores[f"{name}_accuracy"] = float((logits.argmax(1) == labels).double().mean())
        scores[f"{name}_loss"] = float(F.cross_entropy(logits.double(), labels))
    return scores


def save_target(
    folder: Path,
    net: TargetNet,
    data: Dataset,
    seen: Tensor,
    device: torch.device | str,
    history: dict[str, Any] | None,
    **extra: Any,
) -> dict[str, float]:
    """Writes what every target's artifact holds: the network, which images it saw, its scores and depth; the scores.

    Args:
        seen: indices of the training images that the net saw.
        history: the loss curve, None for a net that was not trained by one.
        extra: further JSON-able numbers.
    """
    save_network(net, folder)
    scores = score_target(net, data, seen, device)
    told = {"scores": scores, "history": history, "depth": net.depth, **extra}
    Record(tensors={"seen": {"seen": seen}}, numbers=told).save(folder)
    return scores


def train_trunk(
    trunk: Trunk,
    features: Sequence[nn.Module],
    data: Augmented,
    schedule: ScheduleSpec,
    **how: Unpack[Training],
) -> FitResult:
    """Trains ψ and g_k: min Σ_k E‖f_k(x) − g_k(ψ(x))‖² over augmented images (Ren et al. 2021, eq. 5).

    Each f_k is learned standardised, so all weigh alike. (The paper adds raw errors.)

    Raises:
        InputError: for a feature that does not vary.

    >>> import torch, featcx_core as fx
    >>> data, schedule = fx.load_dataset(fx.DatasetSpec(source="digits")), fx.ScheduleSpec(draws=640, batch=32)
    >>> features = [torch.nn.Conv2d(1, 3, 3, 4, 1) for _ in range(3)]
    >>> trunk = fx.Trunk(1, data.shape, [(3, 2, 2)] * 3, width=2)
    >>> found = fx.train_trunk(trunk, features, fx.Augmented(data, data.pool), schedule)
    >>> found.drawn[-1]
    640
    """
    trunk, features = trunk.to(data.device), [feature.to(data.device) for feature in features]
    units = [unit for unit in trunk.units if isinstance(unit, Unit)]
    for unit, feature in zip(units, features, strict=True):
        learn_unit(unit, feature, data)
    return fit(trunk, data, reproduce(*features, units=units), schedule, **how)


UNIT_ROWS = 2000


def taught_disentangler(
    blocks: int,
    data: Augmented,
    feature: nn.Module,
    shape: Shape,
    schedule: ScheduleSpec,
    *,
    previous: Disentangler | None,
    width: int,
    identity: bool,
    grid: tuple[int, int] | None = None,
    **how: Unpack[Training],
) -> tuple[Disentangler, FitResult]:
    """A new Φ of this depth, warm-started from the `previous` one of its chain and trained; `how`'s seed draws its weights.

    Args:
        shape: (C, H, W) of the feature.
        identity: whether added blocks start as the identity.
        grid: (h, w) of the patches where the feature is tokens.
    """
    with seeded(how.get("seed", 0)):
        net = Disentangler(blocks, data.data.shape, shape, width, grid)
    if previous is not None:
        net.warm_start(previous, identity=identity)
    return net, train_disentangler(net, feature, data, schedule, **how)


def train_disentangler(
    net: Disentangler,
    feature: nn.Module,
    data: Augmented,
    schedule: ScheduleSpec,
    **how: Unpack[Training],
) -> FitResult:
    """Trains Φ to reproduce the feature f on augmented images: min E‖f(x) − Φ(x)‖² (Ren et al. 2021, eq. 2).

    The error is taken in units of f's deviation, so the result does not depend on the unit that f comes in.

    Args:
        net: fresh, whose unit is then measured on `data`, or warm-started.
        feature: f, of a frozen target in evaluation mode.
        data: the training images to draw from; the paper takes the whole training set, featcx the pool.

    Raises:
        InputError: for a feature that does not vary.

    >>> import torch, featcx_core as fx
    >>> data, schedule = fx.load_dataset(fx.DatasetSpec(source="digits")), fx.ScheduleSpec(draws=640, batch=32)
    >>> net, feature = fx.Disentangler(1, data.shape, (3, 2, 2), width=2), torch.nn.Conv2d(1, 3, 3, 4, 1)
    >>> found = fx.train_disentangler(net, feature, fx.Augmented(data, data.pool), schedule)
    >>> found.drawn[-1]
    640
    """
    net, feature = net.to(data.device), feature.to(data.device)
    learn_unit(net.unit, feature, data)
    return fit(net, data, reproduce(feature, units=[net.unit]), schedule, **how)


def learn_unit(unit: Unit, feature: nn.Module, data: Augmented) -> None:
    """Measures a feature's unit, unless that is done, on at most `UNIT_ROWS` images of `data` as they are."""
    if not unit.measured:
        chosen = torch.randperm(len(data), generator=generator(0))[:UNIT_ROWS]
        unit.measure(feature(data.plain(part)) for part in chosen.split(at_once(data.data.shape)))
