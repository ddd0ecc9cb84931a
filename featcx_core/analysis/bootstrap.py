"""Bootstrap draws shared by every interval: one matrix of weights a split, the same for all orders and metrics."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from featcx_core.analysis.components import ComponentTable
from featcx_core.seeds import derive_seed

COMBINED_BYTES = 16 << 20  # of linear functions of samples at a time
HELD_BYTES = {"cpu": 1 << 29, "cuda": 1 << 32}  # of the draws' means
PASSED = 64  # samples at a time, where they wait in a file


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
        return self.between(combination, combination)

    def between(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Covariance of Σ_k a_k x_k and Σ_k b_k x_k for a, b (…, K): value (…) and draws (B, …)."""
        a, b = first.double(), second.double()
        return (
            torch.einsum("...i,ij,...j->...", a, self.value, b),
            torch.einsum("...i,bij,...j->b...", a, self.draws, b),
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
    here: significance, residuals, explained variance. Maps are shifted by the first batch's mean against cancellation.

    Args:
        batches: float32 (b, K, …), n samples in all.
        draws: B bootstrap draws, 0 for none.
    """
    means, grams, maps = _Means(n, draws, seed, device), [], 0
    for batch in batches:
        x = means.add(batch).unflatten(1, (batch.shape[1], -1))
        grams.append((x @ x.mT).double())
        maps = x.shape[1]
    second = torch.einsum("bn,nij->bij", means.shares(), torch.cat(grams) if grams else torch.empty(0, 1, 1))
    drawn = (m.double() for few in means.found() for m in few.unflatten(1, (maps, -1)))
    first = torch.stack([m @ m.T for m in drawn])
    result = (second - first).cpu()
    return Covariance(result[0], result[1:])


class Variances(NamedTuple):
    """Variances summed over elements, float64: value (Q,), draws (B, Q)."""

    value: Tensor
    draws: Tensor


@torch.no_grad()
def variances(
    batches: Iterable[Tensor],
    combine: Callable[[Tensor], Tensor],
    n: int,
    draws: int = 0,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Variances:
    """Variances of Q linear functions of each sample, with bootstrap draws, in one pass.

    The mean of a linear function is the function of the mean, so that of a draw only the mean sample is kept, however many
    functions there are of it, and they are taken of few samples or draws at a time.

    Args:
        batches: float32 (b, …), n samples in all.
        combine: linear, samples (b, D) to their Q maps (b, Q, elements).
        draws: B bootstrap draws, 0 for none.
    """
    means = _Means(n, draws, seed, device)

    def squares(samples: Tensor) -> Tensor:
        few = max(1, COMBINED_BYTES // (4 * combine(samples[:1]).numel()))
        return torch.cat([combine(part).square().sum(2).double() for part in samples.split(few)])

    norms = [squares(means.add(batch)) for batch in batches]
    result = (means.shares() @ torch.cat(norms) - torch.cat([squares(few) for few in means.found()])).cpu()
    return Variances(result[0], result[1:])


class _Means:
    """The mean of all samples and of those of each draw, shifted by the first batch's mean: (1 + B, D).

    They are added up while samples come. Where they would take more than HELD_BYTES (a draw of ten nets' maps of 1,024
    channels is 2 MB), the shifted samples wait in a file instead, and are gone through once for every few draws.
    """

    def __init__(self, n: int, draws: int, seed: int, device: torch.device | str) -> None:
        weights = bootstrap_weights(n, draws, seed) if draws else torch.empty(0, n)
        self.weights, self.n, self.seen = torch.cat([torch.ones(1, n), weights]).to(device), n, 0
        self.few, self.sums, self.shift = len(self.weights), torch.empty(0), torch.empty(0)
        self.waiting: IO[bytes] | None = None

    def add(self, batch: Tensor) -> Tensor:
        """Takes the next samples (b, …) in; gives them shifted (b, D)."""
        x = batch.to(self.weights.device).flatten(1)
        if not self.seen:
            self.shift, self.few = x.mean(0), max(1, HELD_BYTES[x.device.type] // (4 * x.shape[1]))
            if self.few < len(self.weights):
                self.waiting = tempfile.NamedTemporaryFile(prefix="samples-")  # noqa: SIM115 — open until `found`
            else:
                self.sums = x.new_zeros(len(self.weights), x.shape[1])
        x = x - self.shift
        if self.waiting is None:
            self.sums.addmm_(self.weights[:, self.seen : self.seen + len(x)], x)
        else:
            self.waiting.write(x.contiguous().cpu().numpy().data)
        self.seen += len(x)
        return x

    def shares(self) -> Tensor:
        """float64 (1 + B, n): what each sample counts."""
        if not self.seen or self.seen != self.n:
            raise ValueError(f"{self.seen} samples came where {self.n} were announced")
        return self.weights.double() / self.n

    def found(self) -> Iterator[Tensor]:
        """The means of a few draws (few, D) after the other, once; the sums become them."""
        if self.waiting is None:
            yield self.sums.div_(self.n)
            return
        with self.waiting as file:
            file.flush()
            width = len(self.shift)
            samples = torch.from_file(file.name, size=self.n * width).view(self.n, width)
            for weights in self.weights.split(self.few):
                sums = self.shift.new_zeros(len(weights), width)
                for own, part in zip(weights.split(PASSED, 1), samples.split(PASSED), strict=True):
                    sums.addmm_(own, part.to(sums.device))
                yield sums.div_(self.n)
