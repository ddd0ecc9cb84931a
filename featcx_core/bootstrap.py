"""Bootstrap draws shared by every interval: one matrix of weights a split, the same for all orders and metrics."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from featcx_core.components import ComponentTable
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
    """Covariances between the L components and the residual (the last), summed over elements.

    Attributes:
        value: float64 (L + 1, L + 1), Σ_elements Cov(x_k, x_k'); the diagonal holds Var[c^(l)] and Var[Δf].
        draws: float64 (B, L + 1, L + 1), the same in each bootstrap draw.
    """

    value: Tensor
    draws: Tensor

    def variance(self, combination: Tensor) -> tuple[Tensor, Tensor]:
        """Variance of Σ_k a_k x_k for a (…, L + 1): value (…) and draws (B, …)."""
        a = combination.double()
        return (
            torch.einsum("...i,ij,...j->...", a, self.value, a),
            torch.einsum("...i,bij,...j->b...", a, self.draws, a),
        )


@torch.no_grad()
def component_covariance(
    table: ComponentTable, draws: int = 0, seed: int = 0, device: torch.device | str = "cpu", batch_size: int = 128
) -> Covariance:
    """Covariances between components over the rows of a table, with bootstrap draws, in one pass.

    A variance over samples is E‖x‖² − ‖E x‖². Of a sample only the (L + 1)² inner products between its components enter
    the first term, and of a draw only the mean maps the second, so any linear combination's variance follows from what is
    kept here: significance, residuals, covariances, explained variance. Maps are shifted by the first batch's mean
    against cancellation.
    """
    weights = bootstrap_weights(len(table), draws, seed) if draws else torch.empty(0, len(table))
    weights = torch.cat([torch.ones(1, len(table)), weights]).to(device)
    grams, sums, shift, start = [], None, None, 0
    for x, _ in table.stacked(batch_size):
        x = x.to(device).flatten(2)
        shift = x.mean(0) if shift is None else shift
        x = x - shift
        grams.append(torch.einsum("nie,nje->nij", x, x).double())
        part = weights[:, start : start + len(x)] @ x.flatten(1)
        sums = part if sums is None else sums + part
        start += len(x)
    assert sums is not None
    share = weights.double() / weights.sum(1, keepdim=True).double()
    second = torch.einsum("bn,nij->bij", share, torch.cat(grams))
    mean = (sums / weights.sum(1, keepdim=True)).unflatten(1, (second.shape[1], -1))
    first = torch.stack([m @ m.T for m in mean.double()])
    result = (second - first).cpu()
    return Covariance(result[0], result[1:])
