"""Shapley values of components: which of them lower the loss on seen samples, and which only there.

A coalition is a bitmask s over the L components: component i takes part iff s >> i & 1. The game of one sample is
v(s) = −L(g(Δf + Σ_{i∈s} c^(i)), y); by linearity the Shapley value of the mean game is the mean of the samples' values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from featcx_core.analysis.bootstrap import Covariance, bootstrap_weights, interval
from featcx_core.analysis.components import ROW_GROUP_BYTES, ComponentTable, whole_rows
from featcx_core.errors import InputError
from featcx_core.game.coalitions import cross_entropies, members_sum, pooled_losses, subset_sums
from featcx_core.game.pooled import pooled_head
from featcx_core.nets.split import evaluated
from featcx_core.seeds import derive_seed

EXACT_PLAYERS = 14
BLOCK_BYTES = {"cpu": 16 << 20, "cuda": 512 << 20}  # of summed features at a time, for heads that do not pool


def shapley_weights(players: int) -> np.ndarray:
    """W float64 (players, 2**players) with φ = W v for any game v over coalition bitmasks (Shapley 1953).

    W[i, s] is (|s|−1)! (L−|s|)! / L! where i ∈ s and −|s|! (L−|s|−1)! / L! where not.

    Raises:
        InputError: for fewer than one player or more than 20, where the table would not fit.

    >>> shapley_weights(1)
    array([[-1.,  1.]])
    """
    if not 1 <= players <= 20:
        raise InputError(f"Exact Shapley values need 1 to 20 players, not {players}; sample permutations beyond.")
    coalition = np.arange(2**players)
    member = (coalition >> np.arange(players)[:, None] & 1).astype(bool)
    size = member.sum(0)
    factorial = np.array([math.factorial(k) for k in range(players + 1)], dtype=np.float64)
    joined = factorial[np.maximum(size - 1, 0)] * factorial[players - size]
    left = factorial[size] * factorial[np.maximum(players - size - 1, 0)]
    return np.where(member, joined, -left) / factorial[players]


Head = Callable[[Tensor], Tensor]
LossOfEach = Callable[[Tensor, Tensor], Tensor]  # what the head gives (b, …) and labels (b, …) to (b,)


@torch.no_grad()
def coalition_losses(
    table: ComponentTable,
    head: Head,
    labels: Tensor | None = None,
    device: torch.device | str = "cpu",
    loss: LossOfEach | None = None,
) -> Tensor:
    """The loss of every sample and coalition, float32 (n, 2**L), on the CPU; in nats by default.

    Coalitions are summed by doubling: each further component is added to all sums so far, one addition an element and
    coalition, and no sum is the end of a chain longer than L. A head that averages over places is taken apart
    (coalitions.py); any other runs on blocks of coalitions × samples.

    The way is chosen by the head's structure, the shapes, the device and whether a compiler works, never by time:
    on one machine the same input gives the same bytes. Between the ways the losses differ by rounding, some 1e-6 of the
    largest term.

    Args:
        table: components and residual, one split or a part of it.
        head: feature (n, C, H, W) to logits (n, K); a module in training mode is asked as a copy in evaluation mode.
        labels: int64 (n,), or what `loss` takes, one a sample; the table's own if None.
        device: where it is computed.
        loss: of each sample; None: cross-entropy.

    Raises:
        InputError: for more than EXACT_PLAYERS orders; `sampled_shapley_values` takes any number.

    >>> table = ComponentTable.from_tensors(torch.randn(5, 2, 3, 4, 4), torch.zeros(5, 3, 4, 4), torch.zeros(5))
    >>> coalition_losses(table, lambda f: f.mean((2, 3))).shape
    torch.Size([5, 4])
    """
    players = len(table.orders)
    if players > EXACT_PLAYERS:
        raise InputError(
            f"{players} orders make 2^{players} coalitions; choose {EXACT_PLAYERS} orders or fewer, or sample them: "
            "sampled_shapley_values, or shapley, which does so by itself."
        )
    head = evaluated(head, device)
    pooled = pooled_head(head) if loss is None else None
    losses, start = torch.empty(len(table), 2**players), 0
    for parts, own in batches_on(table, batch_rows(table), device):
        rows = slice(start, start + len(own))
        y = own if labels is None else labels[rows].to(device)
        losses[rows] = pooled_losses(parts, y, pooled) if pooled else _head_losses(parts, y, head, loss)
        start = rows.stop
    return losses


def batch_rows(table: ComponentTable) -> int:
    """Rows a batch, 16 to 256 and a power of 2, by their size alone: last digits must not depend on how rows are shared."""
    a_row = 4 * (len(table.orders) + 1) * math.prod(table.shape)
    return max(16, min(256, whole_rows(ROW_GROUP_BYTES, a_row)))


def batches_on(table: ComponentTable, rows: int, device: torch.device | str) -> Iterator[tuple[list[Tensor], Tensor]]:
    """Batches as (components and residual, float32 (b, C, H, W) each; labels (b,)) on the device."""
    columns = table.tensor_columns
    for batch in table.batches([*columns, "label"], rows):
        yield [batch[name].float().to(device) for name in columns], batch["label"].to(device)


def loss_of_each(given: Tensor, labels: Tensor, loss: LossOfEach | None) -> Tensor:
    """The losses (b,) of what a head gives.

    Raises:
        InputError: for a loss that does not give one value a sample.
    """
    if loss is None:
        return F.cross_entropy(given.float(), labels, reduction="none")
    found = loss(given, labels)
    if found.shape != given.shape[:1]:
        raise InputError(
            f"The loss gives {tuple(found.shape)} for {len(given)} samples; let it give one value a sample, "
            "such as F.mse_loss(a, b, reduction='none').mean(1)."
        )
    return found


def _head_losses(parts: list[Tensor], labels: Tensor, head: Head, loss: LossOfEach | None) -> Tensor:
    """Losses of every coalition (b, 2^L) for any head, in blocks of 2^k coalitions × b samples."""
    players, (b, *shape) = len(parts) - 1, parts[0].shape
    fitting = BLOCK_BYTES.get(labels.device.type, BLOCK_BYTES["cpu"]) // (4 * math.prod(parts[0].shape))
    low = min(players, max(0, fitting.bit_length() - 1))
    sums = parts[0].new_empty(2**low, b, *shape)
    losses = torch.empty(b, 2**players, device=labels.device)
    for start in range(0, 2**players, 2**low):
        subset_sums(members_sum(parts, start), parts[:low], sums)
        given = head(sums.flatten(0, 1))
        if loss is None:
            found = cross_entropies(given.T.unflatten(1, (-1, b)), labels)
        else:
            found = loss_of_each(given, repeated(labels, 2**low), loss).unflatten(0, (-1, b))
        losses[:, start : start + 2**low] = found.T
    return losses


def repeated(labels: Tensor, times: int) -> Tensor:
    """Labels (b, …) one batch after the other: (times·b, …)."""
    return labels.repeat(times, *[1] * (labels.ndim - 1))


def shapley_values(losses: Tensor) -> Tensor:
    """Values φ float64 (n, L) of each sample's game, from losses (n, 2**L); φ sums over L to loss(∅) − loss(all).

    >>> shapley_values(torch.tensor([[3.0, 2.0, 1.0, 0.0]])).tolist()
    [[1.0, 2.0]]
    """
    players = losses.shape[1].bit_length() - 1
    return -(losses.double() @ torch.from_numpy(shapley_weights(players)).T.to(losses.device))


class Effectiveness(NamedTuple):
    """Tidy table, a row an order: shapley_train, shapley_test, shapley_overfit, effectiveness, overfitting, intervals.

    `overfitting` is the plain ratio φ^overfit / φ^train. `overfitting_stable` is false where φ^train lies within three
    standard errors of zero; there the interval may be unbounded (NaN ends), and with φ^train ≤ 0 the ratio has no reading.
    `draws` holds bootstrap draws (B, L) of effectiveness and overfitting.
    """

    orders: pd.DataFrame
    draws: dict[str, Tensor]


def measure_effectiveness(
    orders: tuple[int, ...],
    train: Tensor,
    test: Tensor,
    covariance: Covariance,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Effectiveness:
    """Effectiveness φ^train/√Var[c] and over-fitting 1 − φ^test/φ^train (METHOD §6; Ren et al. 2021, eqs. 8, 10).

    Seen samples, test samples and the pool, over which the variances are taken, are resampled independently; within each,
    one draw serves all orders.

    Args:
        orders: L complexity orders.
        train, test: per-sample Shapley values (n, L) on seen and on test samples.
        covariance: of the components over the pool, with its draws.

    >>> from featcx_core.analysis.bootstrap import component_covariance
    >>> pool = ComponentTable.from_tensors(torch.randn(50, 2, 3, 1, 1), torch.zeros(50, 3, 1, 1), torch.zeros(50))
    >>> seen, test = torch.rand(20, 2), torch.rand(30, 2)
    >>> found = measure_effectiveness((4, 7), seen.double(), test.double(), component_covariance(pool, 100))
    >>> found.orders.order.tolist()
    [4, 7]
    """
    draws = len(covariance.draws)
    phi, phi_draws = _means(train, draws, derive_seed(seed, "seen"))
    phi_test, test_draws = _means(test, draws, derive_seed(seed, "test"))
    variance = torch.diagonal(covariance.value)[:-1]
    variance_draws = torch.diagonal(covariance.draws, dim1=1, dim2=2)[:, :-1]
    error = train.std(0) / math.sqrt(len(train))
    effective = phi / variance.clamp_min(1e-30).sqrt()  # a component of zeros has no effect, not 0/0
    effective_draws = phi_draws / variance_draws.clamp_min(1e-30).sqrt()
    rows = []
    for i, order in enumerate(orders):
        over, over_draws = 1 - phi_test[i] / phi[i], 1 - test_draws[:, i] / phi_draws[:, i]
        stable = bool(phi[i] > 0 and phi[i] >= 3 * error[i])
        # A ratio whose denominator changes sign between draws has no bounded interval (Fieller's case).
        bounded = stable or float((phi_draws[:, i] <= 0).double().mean()) <= (1 - confidence) / 2
        low, high = interval(over_draws, confidence) if bounded else (math.nan, math.nan)
        row: dict[str, object] = {"order": order}
        for name, value, values in (
            ("shapley_train", phi[i], phi_draws[:, i]),
            ("shapley_test", phi_test[i], test_draws[:, i]),
            ("shapley_overfit", phi[i] - phi_test[i], phi_draws[:, i] - test_draws[:, i]),
            ("effectiveness", effective[i], effective_draws[:, i]),
        ):
            ends = interval(values, confidence)
            row |= {name: float(value), f"{name}_low": ends[0], f"{name}_high": ends[1]}
        row |= {
            "overfitting": float(over),
            "overfitting_low": low,
            "overfitting_high": high,
            "overfitting_stable": stable,
        }
        rows.append(row)
    over_fitted = 1 - test_draws / phi_draws
    over_fitted[:, [math.isnan(row["overfitting_low"]) for row in rows]] = math.nan  # type: ignore[arg-type]
    return Effectiveness(pd.DataFrame(rows), {"effectiveness": effective_draws, "overfitting": over_fitted})


def _means(values: Tensor, draws: int, seed: int) -> tuple[Tensor, Tensor]:
    weights = bootstrap_weights(len(values), draws, seed).double()
    return values.mean(0), weights @ values / len(values)
