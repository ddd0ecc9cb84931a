"""Each chain of disentanglers as a replicate of the whole analysis: how far a metric moves with their seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from featcx_core.analysis.bootstrap import component_covariance
from featcx_core.analysis.components import ComponentTable
from featcx_core.analysis.decodability import measure_decodability
from featcx_core.game.sampling import sampled_shapley_values
from featcx_core.game.values import EXACT_PLAYERS, coalition_losses, shapley_values

Forward = Callable[[Tensor], Tensor]


def measure_chain(
    tables: Mapping[str, ComponentTable],
    head: nn.Module,
    exemplary: Sequence[Forward],
    images: Callable[[str, Tensor], Tensor],
    *,
    ridges: Sequence[float],
    device: torch.device | str = "cpu",
) -> dict[str, np.ndarray]:
    """Effectiveness, over-fitting and (with exemplary nets) decodability of one chain's components, metric → (L,).

    Args:
        tables: the chain's own components of 'pool', 'seen' and 'test'.
        images: split and sample numbers to normalised images.
    """
    orders = tables["pool"].orders

    def values(table: ComponentTable) -> Tensor:
        if len(orders) > EXACT_PLAYERS:
            return sampled_shapley_values(table, head, seed=0, device=device).values.mean(0)
        return shapley_values(coalition_losses(table, head, device=device)).mean(0)

    train, test = (values(tables[split]).double().cpu() for split in ("seen", "test"))
    variance = torch.diagonal(component_covariance(tables["pool"], device=device).value)[:-1].clamp_min(1e-30)
    found = {"effectiveness": train / variance.sqrt(), "overfitting": 1 - test / train}
    if exemplary:
        rows = measure_decodability(
            tables["pool"], tables["test"], exemplary, (), images,
            ridges=ridges, bootstrap=2, confidence=0.9, seed=0, device=device,
        ).orders  # fmt: skip
        share = rows[rows.quantity == "component"].decodability
        found["decodability"] = torch.tensor(share.to_numpy())
    return {name: value.numpy() for name, value in found.items()}


def variance_over_chains(orders: Sequence[int], chains: Sequence[Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """A row a (metric, order): the estimated variance over chains of the mean of K, NaN for one chain."""
    rows = []
    for metric in chains[0]:
        each = np.stack([chain[metric] for chain in chains])
        moved = each.var(0, ddof=1) / len(each) if len(each) > 1 else np.full(len(orders), np.nan)
        rows += [{"metric": metric, "order": o, "variance": float(v)} for o, v in zip(orders, moved, strict=True)]
    return pd.DataFrame(rows)
