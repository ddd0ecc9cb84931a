"""Bootstrap draws shared by every interval: one matrix of weights a split, the same for all orders and metrics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from featcx_core.analysis.components import ComponentTable
from featcx_core.seeds import derive_seed


def bootstrap_weights(n: int, draws: int, seed: int) -> Tensor:
    """float32 (draws, n): how often each of n samples is drawn with replacement; each row sums to n."""
    rng = np.random.default_rng(derive_seed(seed, "bootstrap", n))
    weights = np.empty((draws, n), dtype=np.float32)
    for row in weights:
        row[:] = np.bincount(rng.integers(n, size=n), minlength=n)
    return torch.from_numpy(weights)


def interval(draws: Tensor | np.ndarray, confidence: float) -> tuple[float, float]:
    """The percentile interval of bootstrap draws (B,)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.asarray(draws, dtype=np.float64), [tail, 1 - tail])
    return float(low), float(high)


class Covariance(NamedTuple):
    """Covariances between the K maps x_k of a sample, summed over elements.

    Attributes:
        value: float64 (K, K), Σ_elements Cov(x_k, x_k'); for components and residual the diagonal holds Var[c^(l)], Var[Δf].
        draws: float64 (B, K, K), the same in each bootstrap draw.
    """

    value: Tensor
    draws: Tensor

    def variance(self, combination: Tensor) -> tuple[Tensor, Tensor]:
        """Variance of Σ_k a_k x_k for a (…, K): value (…) and draws (B, …)."""
        a = combination.double()
        return (
            torch.einsum("...i,ij,...j->...", a, self.value, a),
            torch.einsum("...i,bij,...j->b...", a, self.draws, a),
        )


def component_covariance(
    table: ComponentTable, draws: int = 0, seed: int = 0, device: torch.device | str = "cpu", batch_size: int = 128
) -> Covariance:
    """Covariances between the L components and the residual (the last) over the rows of a table."""
    return covariance((maps for maps, _ in table.stacked(batch_size)), len(table), draws, seed, device)


@torch.no_grad()
def covariance(
    batches: Iterable[Tensor], n: int, draws: int = 0, seed: int = 0, device: torch.device | str = "cpu"
) -> Covariance:
    """Covariances, summed over elements, between the K maps of each sample, with bootstrap draws, in one pass.

    A variance over samples is E‖x‖² − ‖E x‖². Of a sample only the K² inner products between its maps enter the first
    term, and of a draw only the mean maps the second, so any linear combination's variance follows from what is kept
    here: significance, residuals, reliable parts, explained variance. Maps are shifted by the first batch's mean against
    cancellation.

    Args:
        batches: float32 (b, K, …), n samples in all.
        draws: B bootstrap draws, 0 for none.
    """
    weights = bootstrap_weights(n, draws, seed) if draws else torch.empty(0, n)
    weights = torch.cat([torch.ones(1, n), weights]).to(device)
    grams, sums, shift, start = [], None, None, 0
    for batch in batches:
        x = batch.to(device).flatten(2)
        shift = x.mean(0) if shift is None else shift
        x = x - shift
        grams.append((x @ x.mT).double())
        part = weights[:, start : start + len(x)] @ x.flatten(1)
        sums = part if sums is None else sums.add_(part)
        start += len(x)
    if sums is None or start != n:
        raise ValueError(f"{start} samples came where {n} were announced")
    share = weights.double() / n
    second = torch.einsum("bn,nij->bij", share, torch.cat(grams))
    mean = (sums / n).unflatten(1, (second.shape[1], -1))
    first = torch.stack([m @ m.T for m in mean.double()])
    result = (second - first).cpu()
    return Covariance(result[0], result[1:])
