"""Nets with weights from elsewhere: what stands between pixels and them, and whether they still know what they knew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest
from torch import Tensor

from featcx_core.data.images import Augmented, Dataset
from featcx_core.errors import InputError
from featcx_core.nets.hooks import logits_of
from featcx_core.nets.named import IMAGENET, Statistics, own_statistics, spread
from featcx_core.nets.targets import Rescaled, TargetNet
from featcx_core.nets.unit import Unit
from featcx_core.seeds import generator
from featcx_core.specs import Pixels, Preprocess
from featcx_core.training.fit import predict
from featcx_core.training.teaching import learn_unit

ROWS = 2000  # test images that a net from elsewhere is tried on
LEVEL = 0.01  # of the binomial test against always naming the most frequent class

Rescale = tuple[Sequence[float], Sequence[float]]


class Chance(NamedTuple):
    """A net's accuracy beside chance: share right, that of the most frequent class, and the test's p-value."""

    accuracy: float
    majority: float
    p: float


def rescaling(preprocess: Preprocess, data: Dataset, own: Statistics | None = None) -> Rescale | None:
    """(scale, shift) a channel from the pool's normalisation to what a net expects; None where that is the pool's.

    A net gets x = (p − m) / s with the pool's m and s; one that expects (p − m') / s' gets scale·x + shift of it, with
    scale = s / s' and shift = (m − m') / s'.

    Args:
        preprocess: as in target.preprocess; auto takes `own`, else the pool's.
        own: mean and deviation that the net's weights bring.

    Raises:
        InputError: for another number of channels than the images have.
    """
    channels = len(data.mean)
    if preprocess == "pool" or (preprocess == "auto" and own is None):
        return None
    if isinstance(preprocess, Pixels):
        mean, std = preprocess.mean, preprocess.std
    elif preprocess == "auto" and own is not None:
        mean, std = own
    else:
        mean, std = IMAGENET if preprocess == "imagenet" else ((0.0,), (1.0,))
        mean, std = spread(mean, channels), spread(std, channels)
    if {len(mean), len(std)} - {channels, 1}:
        raise InputError(
            f"target.preprocess has {len(mean)} means and {len(std)} deviations where the images have {channels} channels; "
            "give one a channel."
        )
    m, s = (torch.tensor(v, dtype=torch.float64).expand(channels) for v in (mean, std))
    scale, shift = data.std.double() / s, (data.mean.double() - m) / s
    return scale.tolist(), shift.tolist()


def preprocess_words(preprocess: Preprocess, own: Statistics | None = None) -> str:
    """What pixels in [0, 1] become on their way to the net, in the words of `rescaling`."""
    if preprocess == "none":
        return "as they are"
    if isinstance(preprocess, Pixels):
        return f"less {_listed(preprocess.mean)} over {_listed(preprocess.std)}"
    if preprocess == "auto" and own is not None:
        return f"less {_listed(own[0])} over {_listed(own[1])}, as the library's weights were trained"
    whose = "ImageNet's" if preprocess == "imagenet" else "the pool's own"
    return f"less {whose} mean over {whose.replace(' own', '')} deviation"


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


def against_chance(right: int, n: int, majority: float) -> Chance:
    """Whether `right` of n answers are more than the most frequent class alone would give: a one-sided binomial test."""
    return Chance(right / n, majority, float(binomtest(right, n, min(1.0, majority), alternative="greater").pvalue))


def check_brought(
    net: TargetNet, data: Dataset, options: dict[str, Any], device: torch.device | str, allow_chance: bool
) -> Chance:
    """Whether a net with weights from elsewhere has a feature, and still knows the classes.

    At chance it stops the run where another preprocess or another order of the classes brings it back above: then it is read
    wrong. A net that is at chance however it is read, as one with fresh weights, is no mistake of reading.

    Raises:
        InputError: for a constant feature, or a net at chance that is read wrong, unless `allow_chance`.
    """
    net = net.to(device).eval()
    learn_unit(Unit(net.shape).to(device), net.feature, Augmented(data, data.pool, device))
    chosen = torch.randperm(len(data.test_labels), generator=generator(0))[:ROWS]
    images, labels = data.split("test")[0].only(chosen), data.test_labels[chosen]
    n, majority = len(labels), float(labels.bincount().max()) / len(labels)

    def answers(rescale: Rescale | None) -> Tensor:
        module = torch.nn.Identity() if rescale is None else Rescaled(*rescale).to(device)
        return predict(lambda x: logits_of(net.model(module(x))), images, data.normalise, device).argmax(1)

    given = answers(net.config["rescale"])
    found = against_chance(int((given == labels).sum()), n, majority)
    if allow_chance or found.p <= LEVEL:
        return found
    own = own_statistics(net.config["net"], options, len(data.mean))
    named: tuple[Preprocess, ...] = ("pool", "none", "imagenet")
    tried = {str(name): rescaling(name, data) for name in named}
    tried |= {"auto": rescaling("auto", data, own)} if own else {}
    each = {name: against_chance(int((answers(r) == labels).sum()), n, majority) for name, r in tried.items()}
    ordered = other_order(given, labels, len(data.classes))
    better = [name for name, chance in each.items() if chance.p <= LEVEL]
    if not better and ordered < (1 + majority) / 2:
        return found
    told = ", ".join(f"{name} {chance.accuracy:.1%}" for name, chance in each.items())
    cause = (
        f"target.preprocess is the likely cause; set it to {max(better, key=lambda name: each[name].accuracy)}"
        if better
        else f"the order of the classes is the likely cause: in another its answers are {ordered:.1%} right"
    )
    raise InputError(
        f"The net with its weights is right on {found.accuracy:.1%} of {n} test images, where naming the most frequent "
        f"class is on {majority:.1%} (p = {found.p:.2g}): {cause}. Accuracy by preprocess: {told}; other causes are the "
        "order of the classes or colour channels, and the layout of images. target.allow_chance=true goes on."
    )


def other_order(answers: Tensor, labels: Tensor, classes: int) -> float:
    """Accuracy on every second image when classes are named anew, one to one, as suits the others best."""
    table = np.zeros((classes, classes))
    known = (answers < classes).numpy()
    a, y = answers.numpy()[known], labels.numpy()[known]
    np.add.at(table, (a[::2], y[::2]), 1)
    renamed = linear_sum_assignment(-table)[1]
    return float((renamed[a[1::2]] == y[1::2]).mean()) if len(a) > 1 else 0.0
