"""Shapley values of any number of components, from sampled orders of arrival, with their standard errors.

Beyond some fourteen players the 2^L coalitions are too many. The value of a player is its mean marginal contribution over
all orders of arrival (Shapley 1953); orders drawn at random estimate it without bias (Castro, Gómez, Tejada 2009,
doi:10.1016/j.cor.2008.04.004). They are drawn in antithetic pairs, an order and its reverse: a player that comes early in
the one comes late in the other, which cancels most of what its place does to its contribution (Mitchell et al. 2022,
arXiv:2104.12199).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from featcx_core.analysis.components import ComponentTable
from featcx_core.errors import InputError
from featcx_core.game.values import Head, LossOfEach, loss_of_each, repeated
from featcx_core.nets.split import evaluated
from featcx_core.seeds import derive_seed

Value = Callable[[Tensor], Tensor]  # features of a batch, or of it several times over, to losses
PERMUTATIONS = 64
ROWS = 64  # rows a batch, fixed as in values.py
BLOCK_BYTES = {"cpu": 16 << 20, "cuda": 512 << 20}  # of summed features at a time


class SampledValues(NamedTuple):
    """φ float64 (n, L) of each sample and its standard error (n, L); loss(∅) and loss(all), float32 (n,).

    Every sample has orders of its own, so over a mean of samples the errors are independent: its standard error is
    √(Σ errors²)/n, and a bootstrap over samples contains it already.
    """

    values: Tensor
    errors: Tensor
    loss_empty: Tensor
    loss_full: Tensor


def sampled_permutations(sample: int, players: int, pairs: int, seed: int) -> np.ndarray:
    """int64 (pairs, players): orders of arrival for one sample, a function of its number and the seed alone."""
    rng = np.random.Generator(np.random.Philox(derive_seed(seed, f"permutations of {sample}")))
    return rng.permuted(np.tile(np.arange(players), (pairs, 1)), axis=1)


@torch.no_grad()
def sampled_shapley_values(
    table: ComponentTable,
    head: Head,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    labels: Tensor | None = None,
    device: torch.device | str = "cpu",
    loss: LossOfEach | None = None,
) -> SampledValues:
    """Values φ of each sample's game v(S) = −loss(head(Δf + Σ_{i∈S} c^(i)), y), from sampled permutations.

    For each permutation the values sum to loss(∅) − loss(all), so they do so in the mean. The error falls as one over the
    root of `permutations`; each costs L − 1 passes of the head a sample.

    Args:
        table: components and residual; its sample numbers choose the permutations, so shards may be cut anywhere.
        head: feature (n, C, H, W) to logits (n, K); a module in training mode is asked as a copy in evaluation mode.
        permutations: orders of arrival a sample, an even number of at least 4: half of them reverse the others.
        labels: int64 (n,), or what `loss` takes, one a sample; the table's own if None.
        loss: of each sample; None: cross-entropy.

    Raises:
        InputError: for an odd number of permutations or fewer than four, which leave no error to estimate.

    >>> table = ComponentTable.from_tensors(torch.randn(5, 2, 3, 4, 4), torch.zeros(5, 3, 4, 4), torch.zeros(5))
    >>> sampled_shapley_values(table, lambda f: f.mean((2, 3)), permutations=8).values.shape
    torch.Size([5, 2])
    """
    if permutations < 4 or permutations % 2:
        raise InputError(f"{permutations} permutations make no antithetic pairs; give an even number of at least 4.")
    head, found, start = evaluated(head, device), [], 0
    columns = table.tensor_columns
    for batch in table.batches([*columns, "label", "sample"], ROWS):
        maps = torch.stack([batch[name].float() for name in columns], 1).to(device)
        y = batch["label"] if labels is None else labels[start : start + len(maps)]
        orders = np.stack(
            [sampled_permutations(int(s), len(columns) - 1, permutations // 2, seed) for s in batch["sample"]]
        )
        value = partial(_value, head=head, labels=y.to(device), loss=loss)
        found.append(_batch_values(maps, value, torch.from_numpy(orders).to(device)))
        start += len(maps)
    return SampledValues(*(torch.cat(columns).cpu() for columns in zip(*found, strict=True)))


def sampling_errors(train: Tensor, test: Tensor) -> dict[str, np.ndarray]:
    """Standard errors of the mean values by sampling orders alone, (L,) each, from those of the samples (n, L)."""
    means = {"train": train, "test": test}
    return {f"shapley_{name}_sampling": (e.square().sum(0).sqrt() / len(e)).numpy() for name, e in means.items()}


def _value(features: Tensor, head: Head, labels: Tensor, loss: LossOfEach | None) -> Tensor:
    return loss_of_each(head(features), repeated(labels, len(features) // len(labels)), loss)


def _batch_values(maps: Tensor, value: Value, orders: Tensor) -> tuple[Tensor, ...]:
    """values, errors (b, L), loss of no and of all components (b,); maps (b, L + 1, …), orders (b, pairs, L)."""
    (b, pairs, players), residual = orders.shape, maps[:, -1]
    whole = residual + maps[:, :-1].sum(1)
    ends = [value(f.clone()) for f in (residual, whole)]
    mean = torch.zeros(b, players, dtype=torch.float64, device=maps.device)
    squares = torch.zeros_like(mean)
    for pair in range(pairs):
        marginal = torch.zeros_like(mean)
        for order in (orders[:, pair], orders[:, pair].flip(1)):
            losses = torch.stack([ends[0], *_losses_on_the_way(maps, value, order), ends[1]], 1).double()
            marginal.scatter_add_(1, order, losses[:, :-1] - losses[:, 1:])
        marginal /= 2
        step = marginal - mean  # Welford's update: a difference of large squares would lose the digits
        mean += step / (pair + 1)
        squares += step * (marginal - mean)
    return mean, (squares / (pairs - 1) / pairs).sqrt(), ends[0], ends[1]


def _losses_on_the_way(maps: Tensor, value: Value, order: Tensor) -> list[Tensor]:
    """Losses (b,) after the arrival of the first, the second, … but not the last of each row's order (b, L)."""
    (b, players), rows = order.shape, torch.arange(len(order), device=order.device)
    at_once = max(1, BLOCK_BYTES.get(maps.device.type, BLOCK_BYTES["cpu"]) // (4 * maps[:, 0].numel()))
    total = maps[:, -1]
    losses: list[Tensor] = []
    for first in range(0, players - 1, at_once):
        sums = []
        for place in range(first, min(first + at_once, players - 1)):
            total = total + maps[rows, order[:, place]]
            sums.append(total)
        losses += value(torch.cat(sums)).view(len(sums), b).unbind()
    return losses
