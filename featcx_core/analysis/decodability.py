"""Decodability: the share of a component's variance that a linear map of channels predicts from another net's feature."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from featcx_core.analysis.bootstrap import covariance, interval
from featcx_core.analysis.components import ComponentTable
from featcx_core.errors import InputError

Forward = Callable[[Tensor], Tensor]
FOLDS = 5


class Decodability(NamedTuple):
    """A row a quantity: 'component' and 'phi' of each order, and 'feature' (order 0).

    Columns: `decodability` 1 − Var[c − ĉ]/Var[c] on test samples, averaged over the exemplary nets, and `floor`, the same
    from an untrained net, each with its interval; `ridge` chosen for the first exemplary net. `draws`: the components'
    decodability in each bootstrap draw (B, L).
    """

    orders: pd.DataFrame
    draws: dict[str, Tensor]


def ridge_map(inputs: Tensor, cross: Tensor, targets: Tensor, ridges: Sequence[float]) -> tuple[Tensor, float]:
    """The linear map of least squared error, its ridge chosen by cross-validation, all from second moments.

    Args:
        inputs: float64 (folds, E, E), Σ e eᵀ of each fold.
        cross: float64 (folds, E, C), Σ e cᵀ.
        targets: float64 (folds,), Σ ‖c‖².
        ridges: candidates, relative to the mean of the inputs' variances.

    Returns:
        W (C, E) with ĉ = W e, fitted on all folds, and the chosen ridge.
    """
    whole, whole_cross = inputs.sum(0), cross.sum(0)
    scale, identity = torch.diagonal(whole).mean(), torch.eye(len(whole)).to(whole)

    def solve(gram: Tensor, right: Tensor, ridge: float) -> Tensor:
        return torch.linalg.solve(gram + ridge * scale * identity, right)

    def held_out(ridge: float) -> float:
        error = 0.0
        for gram, right, norm in zip(inputs, cross, targets, strict=True):
            w = solve(whole - gram, whole_cross - right, ridge)
            error += float(norm - 2 * (w * right).sum() + (w * (gram @ w)).sum())
        return error

    best = min(ridges, key=held_out)
    return solve(whole, whole_cross, best).T, best


@torch.no_grad()
def measure_decodability(
    fitted_on: ComponentTable,
    scored_on: ComponentTable,
    exemplary: Sequence[Forward],
    untrained: Forward,
    images: Callable[[str, Tensor], Tensor],
    *,
    ridges: Sequence[float],
    bootstrap: int,
    confidence: float,
    seed: int,
    device: torch.device | str = "cpu",
) -> Decodability:
    """Decodability of every component, every Φ^(l) and f (METHOD §5), fitted on the pool and scored on test samples.

    Args:
        fitted_on, scored_on: components of the pool and of the test split.
        exemplary: features of the exemplary nets, (n, C_k, H, W) of the target's H×W.
        untrained: the feature of a fresh net of the same architecture, for the floor.
        images: split name and sample numbers to normalised images.
    """
    nets = [*exemplary, untrained]
    players, folds = len(fitted_on.orders), torch.arange(len(fitted_on)) % FOLDS
    names = [("component", o) for o in fitted_on.orders] + [("phi", o) for o in fitted_on.orders] + [("feature", 0)]

    def stream(table: ComponentTable, split: str) -> Iterator[tuple[Tensor, list[Tensor]]]:
        for batch in table.batches([*table.tensor_columns, "sample"], 125):
            parts = torch.stack([batch[name].float() for name in table.tensor_columns], 1).to(device)
            sums = parts.cumsum(1)
            x = images(split, batch["sample"])
            features = [net(x).float() for net in nets]
            if features[0].shape[-2:] != parts.shape[-2:]:
                raise InputError(
                    "Target and exemplary features differ in height or width; choose layers of the same size."
                )
            yield torch.cat([parts[:, :-1], sums], 1), features

    means = _position_means(stream(fitted_on, "pool"))
    moments = _fold_moments(stream(fitted_on, "pool"), means, folds)
    fitted = [[ridge_map(*moments[k][q], ridges) for q in range(2 * players + 1)] for k in range(len(nets))]
    weights = [torch.stack([w for w, _ in maps]).float() for maps in fitted]

    def errors() -> Iterator[Tensor]:  # (b, (nets + 1)·Q, C, H, W): what is to be predicted, then each net's errors
        for wanted, features in stream(scored_on, "test"):
            predicted = [torch.einsum("qce,nehw->nqchw", w, f) for w, f in zip(weights, features, strict=True)]
            yield torch.cat([wanted, *(wanted - p for p in predicted)], 1)

    scored = covariance(errors(), len(scored_on), bootstrap, seed, device)
    value = torch.diagonal(scored.value).unflatten(0, (len(nets) + 1, -1))
    draws = torch.diagonal(scored.draws, dim1=1, dim2=2).unflatten(1, (len(nets) + 1, -1))
    share, share_draws = 1 - value[1:] / value[:1], 1 - draws[:, 1:] / draws[:, :1]
    rows = []
    for q, (quantity, order) in enumerate(names):
        row: dict[str, object] = {"quantity": quantity, "order": order}
        for name, nets_used in (("decodability", slice(0, -1)), ("floor", slice(-1, None))):
            low, high = interval(share_draws[:, nets_used, q].mean(1), confidence)
            row |= {name: float(share[nets_used, q].mean()), f"{name}_low": low, f"{name}_high": high}
        rows.append(row | {"ridge": fitted[0][q][1]})
    return Decodability(pd.DataFrame(rows), {"decodability": share_draws[:, :-1, :players].mean(1)})


def _position_means(batches: Iterator[tuple[Tensor, list[Tensor]]]) -> tuple[Tensor, list[Tensor]]:
    """Means over samples at each position of what is predicted (Q, C, H, W) and of each net's feature."""
    total, n = None, 0
    sums: list[Tensor] = []
    for wanted, features in batches:
        parts = [f.sum(0).double() for f in features]
        total = wanted.sum(0).double() if total is None else total + wanted.sum(0)
        sums = [a + b for a, b in zip(sums, parts, strict=True)] if sums else parts
        n += len(wanted)
    assert total is not None
    return (total / n).float(), [(s / n).float() for s in sums]


def _fold_moments(
    batches: Iterator[tuple[Tensor, list[Tensor]]], means: tuple[Tensor, list[Tensor]], folds: Tensor
) -> list[list[tuple[Tensor, Tensor, Tensor]]]:
    """Per net and quantity: Σ e eᵀ, Σ e cᵀ and Σ ‖c‖² of each fold, of centred maps."""
    inputs: list[Tensor] = []
    cross: list[Tensor] = []
    norms, start = None, 0
    for wanted, features in batches:
        fold = folds[start : start + len(wanted)].to(wanted.device)
        start += len(wanted)
        hot = torch.nn.functional.one_hot(fold, FOLDS).float()
        c = (wanted - means[0]).flatten(3)
        norm = hot.T.double() @ c.square().sum((2, 3)).double()
        norms = norm if norms is None else norms + norm
        for k, (feature, mean) in enumerate(zip(features, means[1], strict=True)):
            e = (feature - mean).flatten(2)
            gram = torch.einsum("nf,nij->fij", hot.double(), (e @ e.mT).double())
            right = torch.einsum("nf,nqij->fqij", hot.double(), (e[:, None] @ c.mT).double())
            if start == len(wanted):
                inputs.append(gram)
                cross.append(right)
            else:
                inputs[k] += gram
                cross[k] += right
    assert norms is not None
    return [[(inputs[k], cross[k][:, q], norms[:, q]) for q in range(norms.shape[1])] for k in range(len(inputs))]
