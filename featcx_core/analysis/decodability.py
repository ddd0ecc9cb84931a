"""Decodability: the share of a component's variance that a linear map of channels predicts from another net's feature."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from featcx_core.analysis.bootstrap import interval, variances
from featcx_core.analysis.components import ComponentTable, maps_at_once
from featcx_core.analysis.spread import errors
from featcx_core.errors import InputError
from featcx_core.specs import RIDGES

Forward = Callable[[Tensor], Tensor]
FOLDS = 5


class Decodability(NamedTuple):
    """A row a quantity: 'component' and 'phi' of each order, and 'feature' (order 0).

    Columns: `decodability` 1 − Var[c − ĉ]/Var[c] on test samples, averaged over the exemplary nets, and `floor`, the same
    from untrained nets (NaN without any), each with its interval over images, the floor's over several untrained nets too;
    `ridge` chosen for the first exemplary net. `draws`: the components' decodability in each bootstrap draw (B, L).
    """

    orders: pd.DataFrame
    draws: dict[str, Tensor]


def ridge_maps(
    inputs: Tensor, quantities: Sequence[tuple[Tensor, Tensor]], ridges: Sequence[float]
) -> list[tuple[Tensor, float]]:
    """Of each quantity the linear map of least squared error, its ridge chosen by cross-validation, from second moments.

    In the eigenvectors V of what a fold leaves out, w = d ∘ b with b = Vᵀ Σ e cᵀ and d = 1/(λ + ridge), so that the error
    on the fold, ‖c‖² − 2⟨w, r⟩ + ⟨w, G w⟩, is a quadratic form in d: all ridges together take little more than one.

    Args:
        inputs: float64 (folds, E, E), Σ e eᵀ of each fold.
        quantities: of each float64 (folds, E, C), Σ e cᵀ, and (folds,), Σ ‖c‖².
        ridges: candidates, relative to the mean of the inputs' variances.

    Returns:
        Of each quantity W (C, E) with ĉ = W e, fitted on all folds, and the chosen ridge.
    """
    whole = inputs.sum(0)
    scale = torch.diagonal(whole).mean()
    offsets = scale * torch.tensor(tuple(ridges)).to(whole)
    totals = [cross.sum(0) for cross, _ in quantities]
    held_out = whole.new_zeros(len(quantities), len(offsets))
    for fold, gram in enumerate(inputs):
        values, vectors = torch.linalg.eigh(whole - gram)
        shrunk = 1 / (values.clamp(min=0) + offsets[:, None])
        turned = vectors.T @ gram @ vectors
        for error, total, (cross, norms) in zip(held_out, totals, quantities, strict=True):
            right = vectors.T @ cross[fold]
            b = vectors.T @ total - right
            error += norms[fold] - 2 * shrunk @ (b * right).sum(1) + (shrunk @ (turned * (b @ b.T)) * shrunk).sum(1)
    best, identity = held_out.argmin(1), torch.eye(len(whole)).to(whole)
    return [
        (torch.linalg.solve(whole + offsets[i] * identity, total).T, ridges[i])
        for i, total in zip(best.tolist(), totals, strict=True)
    ]


@torch.no_grad()
def measure_decodability(
    fitted_on: ComponentTable,
    scored_on: ComponentTable,
    exemplary: Sequence[Forward],
    untrained: Sequence[Forward],
    images: Callable[[str, Tensor], Tensor],
    *,
    ridges: Sequence[float] = RIDGES,
    bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Decodability:
    """Decodability of every component, every Φ^(l) and f (METHOD §5), fitted on the pool and scored on test samples.

    Args:
        fitted_on, scored_on: components of the pool and of the test split.
        exemplary: features of the exemplary nets, (n, C_k, H, W) of the target's H×W.
        untrained: features of fresh nets of the same architecture, for the floor.
        images: split name and sample numbers to normalised images.
        ridges: candidates, relative to tr Σ / C, of which cross-validation takes one a quantity.
        bootstrap, confidence, seed: draws, coverage and seed of the intervals, which resample test images.

    >>> import torch, featcx_core as fx
    >>> images, net, fresh = torch.rand(60, 1, 8, 8), torch.nn.Conv2d(1, 3, 3, 2, 1), torch.nn.Conv2d(1, 3, 3, 2, 1)
    >>> table = fx.decompose(net, {4: net}, images, torch.zeros(60))  # f and Φ are linear in A's feature: A is the net itself
    >>> with torch.no_grad():
    ...     found = fx.measure_decodability(table, table, [net], [fresh], lambda split, rows: images[rows], bootstrap=50)
    >>> found.orders.query("quantity == 'component'").decodability.round(3).tolist()
    [1.0]
    """
    nets = [*exemplary, *untrained]
    players, shape = len(fitted_on.orders), fitted_on.shape
    names = [("component", o) for o in fitted_on.orders] + [("phi", o) for o in fitted_on.orders] + [("feature", 0)]

    def stream(table: ComponentTable, split: str, nets: Sequence[Forward]) -> Iterator[list[Tensor]]:
        """Maps (b, C, H·W): each part's, each net's."""
        for batch in table.batches([*table.tensor_columns, "sample"], maps_at_once(players + 1 + len(nets), shape)):
            x = images(split, batch["sample"])
            features = [net(x).float() for net in nets]
            if features[0].shape[-2:] != shape[-2:]:
                raise InputError(
                    "Target and exemplary features differ in height or width; choose layers of the same size."
                )
            parts = [batch[name].float().to(device) for name in table.tensor_columns]
            yield [maps.flatten(2) for maps in (*parts, *features)]

    fitted = [ridge_maps(*_fold_moments(stream(fitted_on, "pool", [net])), ridges) for net in nets]
    weights = [torch.cat([w for w, _ in maps]).float() for maps in fitted]
    sizes = [(players + 1) * math.prod(shape), *(w.shape[1] * math.prod(shape[1:]) for w in weights)]

    def errors(samples: Tensor) -> Tensor:  # (b, (1 + nets)·Q, C·H·W): what is to be predicted, then each net's errors
        parts, *features = samples.split(sizes, 1)
        wanted = _quantities(parts.unflatten(1, (players + 1, -1)), 1)
        predicted = [
            (w @ f.unflatten(1, (w.shape[1], -1))).view_as(wanted) for w, f in zip(weights, features, strict=True)
        ]
        return torch.cat([wanted, *(wanted - p for p in predicted)], 1)

    samples = (torch.cat([maps.flatten(1) for maps in batch], 1) for batch in stream(scored_on, "test", nets))
    scored = variances(samples, errors, len(scored_on), bootstrap, seed, device)
    value, draws = (part.unflatten(-1, (len(nets) + 1, -1)) for part in scored)
    share, share_draws = 1 - value[1:] / value[:1], 1 - draws[:, 1:] / draws[:, :1]
    own, own_draws = share[: len(exemplary)].mean(0), share_draws[:, : len(exemplary)].mean(1)
    frame = pd.DataFrame(names, columns=["quantity", "order"]).assign(decodability=own.numpy())
    ends = [interval(column, confidence) for column in own_draws.T]
    frame[["decodability_low", "decodability_high"]] = ends
    floor = _floor(share[len(exemplary) :].numpy(), share_draws[:, len(exemplary) :].numpy(), confidence)
    frame[["floor", "floor_low", "floor_high"]] = np.stack(floor, 1)
    frame["ridge"] = [ridge for _, ridge in fitted[0]]
    return Decodability(frame, {"decodability": own_draws[:, :players]})


def _floor(share: np.ndarray, draws: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean, low, high) of what J untrained nets reach, (J, Q) with draws (B, J, Q): over images, and over nets if J > 1."""
    count, mean, drawn = (
        len(share),
        share.mean(0) if len(share) else np.full(share.shape[1], np.nan),
        draws.mean(1) if len(share) else draws,
    )
    if count > 1:
        low, high = errors(drawn.var(0, ddof=1), share.var(0, ddof=1) / count, count - 1).interval(mean, confidence)
    elif count:
        low, high = np.array([interval(column, confidence) for column in drawn.T]).T
    else:
        low = high = mean
    return mean, low, high


def _quantities(parts: Tensor, dim: int) -> Tensor:
    """Of L components and the residual along `dim` the L components, the Φ^(l), which are their sums, and f."""
    return torch.cat([parts.narrow(dim, 0, parts.shape[dim] - 1), parts.cumsum(dim)], dim)


def _fold_moments(batches: Iterable[list[Tensor]]) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Σ e eᵀ, and per quantity Σ e cᵀ and Σ ‖c‖², of each fold, of maps centred at each position, in one pass.

    Moments of maps shifted by the first batch's mean, and the folds' sums, give those of centred maps; and since they are
    linear in c, those of sums of components are sums of moments. They are added up, and centred, where they lie.

    Args:
        batches: maps (b, C, P) of each of the parts, then (b, E, P) of a net; sample i is of fold i mod FOLDS.
    """
    shifts: list[Tensor] = []
    found: list[Tensor] = []
    start = 0
    for batch in batches:
        shifts = shifts or [maps.mean(0) for maps in batch]
        maps = [maps - shift for maps, shift in zip(batch, shifts, strict=True)]
        for fold in range(FOLDS):
            moments = _moments([m[(fold - start) % FOLDS :: FOLDS] for m in maps])
            found = found or [m.new_zeros(FOLDS, *m.shape, dtype=torch.float64) for m in moments]
            for total, moment in zip(found, moments, strict=True):
                total[fold] += moment
        start += len(maps[0])
    *sums, e, second, norms = found
    n = torch.tensor([len(range(f, start, FOLDS)) for f in range(FOLDS)]).to(norms)[:, None, None]

    def centre(second: Tensor, a: Tensor, b: Tensor) -> None:  # of Σ a bᵀ, and the folds' sums of a and of b
        of_a, of_b = a.sum(0) / start, b.sum(0) / start
        for fold, count, of_fold, of_other in zip(second, n, a, b, strict=True):
            fold += count * (of_a @ of_b.T) - of_fold @ of_b.T - of_a @ of_other.T

    c, channels = torch.cat(sums, 1), e.shape[1]
    flat = c.view(FOLDS, len(sums), -1)
    centre(norms, flat, flat)
    centre(second, e, torch.cat([e, c], 1))
    norms = torch.diagonal(_quantities(_quantities(norms, 1), 2), dim1=1, dim2=2)
    cross = _quantities(second[:, :, channels:].unflatten(2, (len(sums), -1)).transpose(1, 2), 1)
    return second[:, :, :channels], [(cross[:, q], norms[:, q]) for q in range(cross.shape[1])]


def _moments(maps: list[Tensor]) -> list[Tensor]:
    """The sums of all maps over samples, (C, P), Σ e [e, c]ᵀ of the last, and Σ ⟨c, c'⟩ between the others, the parts."""
    *parts, e = (m.transpose(0, 1).flatten(1) for m in maps)
    c = torch.cat(parts)
    among = c.view(len(parts), -1)
    return [*(m.sum(0) for m in maps), e @ torch.cat([e, c]).T, among @ among.T]
