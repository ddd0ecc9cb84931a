"""Task-n: regression tasks of known complexity, to see whether disentangling finds complex what is complex.

A random net with n ReLU layers sets a task, a net of the disentangler's shape learns it, and a chain of disentanglers takes
the learner's output f apart (METHOD §7; Ren et al. 2021, arXiv:2006.15920).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from featcx_core.analysis.bootstrap import covariance, interval
from featcx_core.seeds import derive_seed

Forward = Callable[[Tensor], Tensor]

# n → order → std[c^(l)] / std[f] in the files that the authors published: CIFAR-10, one net each.
PUBLISHED: dict[int, dict[int, float]] = {
    0: {4: 0.995, 7: 0.053, 13: 0.047, 25: 0.050, 49: 0.037},
    8: {4: 0.985, 7: 0.110, 13: 0.055, 25: 0.054, 49: 0.041},
    80: {4: 0.702, 7: 0.593, 13: 0.302, 25: 0.155, 49: 0.115},
}


class TaskNet(nn.Module):
    """A random, fixed net that sets a task: conv3×3(→16), n × [ReLU, conv3×3(→16)], max-pool 4, conv1×1(→64), no biases.

    Images (b, in_channels, H, W) → (b, 64, ⌊H/4⌋, ⌊W/4⌋). Kaiming normal weights over the fan-in, drawn from torch's global
    generator (see `featcx_core.seeds.seeded`).

    Args:
        n: ReLU layers, 0 or more.
        in_channels: of an image.
    """

    def __init__(self, n: int, in_channels: int = 3) -> None:
        super().__init__()
        if n < 0:
            raise ValueError(f"n must be 0 or more, not {n}")
        self.config = {"n": n, "in_channels": in_channels}
        layers: list[nn.Module] = [nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)]
        for _ in range(n):
            layers += [nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1, bias=False)]
        self.layers = nn.Sequential(*layers, nn.MaxPool2d(4), nn.Conv2d(16, 64, 1, bias=False))
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
                layer.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        # What a deep net's output varies by is a tenth of its size: the rounding of bf16 in 81 layers would drown it.
        with torch.autocast(x.device.type, enabled=False):
            return self.layers(x.float())


class Learned(NamedTuple):
    """How well a task was learned: R² = 1 − Var[task − learner] / Var[task], and both variances, summed over elements."""

    r2: float
    task_variance: float
    learner_variance: float


@torch.no_grad()
def measure_learner(
    task: Forward, learner: Forward, batches: Iterable[Tensor], n: int, device: torch.device | str = "cpu"
) -> Learned:
    """The learner's R² over n images, given as batches (b, C, H, W). A constant difference does not count."""
    pairs = (torch.stack([task(x).float(), learner(x).float()], 1) for x in batches)
    value, _ = covariance(pairs, n, device=device).variance(torch.tensor([[1.0, -1.0], [1.0, 0.0], [0.0, 1.0]]))
    error, own, learned = value.tolist()
    return Learned(1 - error / own if own > 0 else float("nan"), own, learned)


@torch.no_grad()
def measure_weights(
    learner: Forward,
    disentanglers: Mapping[int, Forward],
    batches: Iterable[Tensor],
    n: int,
    device: torch.device | str = "cpu",
) -> pd.DataFrame:
    """What each order holds of the learner's output f over n images, in one pass.

    Args:
        learner: images → f (b, C, H, W).
        disentanglers: order → Φ^(l), orders rising.
        batches: images (b, C, H, W), n in all.

    Returns:
        A row an order: order, blocks, variance_ratio Var[c^(l)] / Var[f], std_ratio, its root, and residual
        Var[f − Φ^(l)] / Var[f].
    """

    def split(x: Tensor) -> Tensor:
        f, phi = learner(x).float(), [net(x).float() for net in disentanglers.values()]
        return torch.stack([torch.zeros_like(f), *phi, f], 1).diff(dim=1)

    players = len(disentanglers)
    moments = covariance((split(x) for x in batches), n, device=device)
    whole = moments.variance(torch.ones(players + 1))[0]
    parts = moments.variance(torch.eye(players + 1)[:players])[0] / whole
    above = moments.variance(torch.triu(torch.ones(players + 1, players + 1), diagonal=1)[:players])[0] / whole
    orders = list(disentanglers)
    return pd.DataFrame(
        {
            "order": orders,
            "blocks": [(order - 1) // 3 for order in orders],
            "variance_ratio": parts.tolist(),
            "std_ratio": parts.clamp_min(0).sqrt().tolist(),
            "residual": above.tolist(),
            "rows": n,
        }
    )


def published_ratio(n: int, order: int) -> float:
    """std[c^(l)] / std[f] of the authors' Task-n at this order; NaN where they have none."""
    return PUBLISHED.get(n, {}).get(order, float("nan"))


def mean_orders(frame: pd.DataFrame) -> pd.DataFrame:
    """The significance-weighted mean order of each task: Σ_l l·ρ^(l) / Σ_l ρ^(l) with ρ^(l) = Var[c^(l)] / Var[f].

    One figure for how much weight lies on high orders: 4 when the order-4 component holds all, higher the more the deep
    components hold. What no disentangler reached, f − Φ^(L), has no order and takes no part.

    Args:
        frame: a row a (n, seed, order) with variance_ratio, and more that is the same for all orders of a net.

    Returns:
        A row a (n, seed) with mean_order, and learner_r2 where the frame has it.
    """
    weighted = frame.assign(weighted=frame["order"] * frame["variance_ratio"])
    sums = weighted.groupby(["n", "seed"], sort=True)[["weighted", "variance_ratio"]].sum()
    found = (sums["weighted"] / sums["variance_ratio"]).rename("mean_order").reset_index()
    if "learner_r2" in frame:
        found = found.merge(frame[["n", "seed", "learner_r2"]].drop_duplicates(), on=["n", "seed"])
    return found


class RankCorrelation(NamedTuple):
    """Spearman's rank correlation with n.

    Attributes:
        mean: over seeds.
        low, high: bootstrap interval of the mean, over seeds; NaN with a single one.
        pooled: of all nets together.
        seeds: seed → its own.
    """

    mean: float
    low: float
    high: float
    pooled: float
    seeds: dict[int, float]


def rank_correlation(
    frame: pd.DataFrame, bootstrap: int, confidence: float, seed: int, column: str = "mean_order"
) -> RankCorrelation:
    """Does more weight lie on high orders where the task net has more ReLU layers? Spearman's correlation says by rank.

    Per seed between n and the significance-weighted mean order (see `mean_orders`), then the mean over seeds with a
    percentile interval that resamples seeds. With five seeds such an interval is a little narrow; five depths alone can
    give ±1 by chance (2 orderings of 120).

    Args:
        frame: a row a (n, seed, order) with variance_ratio.
        bootstrap: draws of the interval.
        confidence: its coverage.
        seed: of the draws.
        column: of `mean_orders`; 'learner_r2' tells how the learning itself goes with n.
    """
    nets = mean_orders(frame)
    seeds = {int(str(s)): _spearman(rows["n"], rows[column]) for s, rows in nets.groupby("seed", sort=True)}
    values, low, high = np.array(list(seeds.values())), float("nan"), float("nan")
    if len(values) > 1 and np.isfinite(values).all():
        rng = np.random.default_rng(derive_seed(seed, "rank correlation"))
        draws = values[rng.integers(len(values), size=(bootstrap, len(values)))].mean(1)
        low, high = interval(draws, confidence)
    return RankCorrelation(float(values.mean()), low, high, _spearman(nets["n"], nets[column]), seeds)


def _spearman(a: pd.Series, b: pd.Series) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constant input, whose correlation is NaN
        return float(spearmanr(a, b).statistic)
