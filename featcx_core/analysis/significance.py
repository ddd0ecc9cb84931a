"""Significance ρ_c^(l) = Var[c^(l)] / Var[f], and what is left unexplained at each order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from featcx_core.analysis.bootstrap import Covariance, component_covariance, interval
from featcx_core.analysis.chains import Chains, cross_seed
from featcx_core.analysis.components import ComponentTable
from featcx_core.analysis.depth import chain_frame
from featcx_core.store.record import Record

GAP_FLAG = 0.10
NOT_LEARNED = 0.90  # residual of the deepest order from which nothing is read as complex


class Significance(NamedTuple):
    """Tidy tables of one target's components.

    Attributes:
        orders: a row an order: significance, residual, explained (the increment of explained variance; the increments and
            the last residual sum to one), each with the ends of its interval; residual_rises flags an order that fits
            worse than a shallower one. With chains also what `chain_frame` gives, whose interval of the residual counts,
            and reproducible_share, cross_seed / significance.
        splits: a row a (split, order): residual Var[f − Φ^(l)] / Var[f] within that split, and gap, by how much the
            test residual exceeds it relatively; gap_flag where that passes 10%.
        covariance: a row a pair of components: covariance as a share of Var[f], 'residual' being one of them.
        feature_variance: Var[f] over the pool.
        moments: covariances over the pool with their bootstrap draws.
        draws: metric → bootstrap draws (B, L).
    """

    orders: pd.DataFrame
    splits: pd.DataFrame
    covariance: pd.DataFrame
    feature_variance: float
    moments: Covariance
    draws: dict[str, Tensor]

    def record(self) -> Record:
        """As a stage keeps it."""
        frames = {"significance": self.orders, "splits": self.splits, "covariance": self.covariance}
        numbers = {"feature_variance": self.feature_variance}
        return Record(frames, {"moments": self.moments._asdict(), "draws": self.draws}, numbers)


def measure_significance(
    tables: Mapping[str, ComponentTable],
    *,
    bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    device: torch.device | str = "cpu",
    chains: Chains | None = None,
    nulls: Sequence[Chains] = (),
) -> Significance:
    """Significance over the pool, and the residual within each split (METHOD §4; Ren et al. 2021, eq. 4).

    Args:
        tables: the components of 'pool' and of any other splits.
        bootstrap: draws of the intervals, which resample the images of the pool.
        confidence: coverage of the intervals.
        chains: what the chains of these components share, over the same images.
        nulls: the same of the null targets.

    >>> import torch, featcx_core as fx
    >>> c = torch.randn(60, 2, 3, 1, 1) * torch.tensor([3.0, 1.0])[:, None, None, None]
    >>> pool = fx.ComponentTable.from_tensors(c, torch.zeros(60, 3, 1, 1), torch.zeros(60))
    >>> int(fx.measure_significance({"pool": pool, "test": pool}, bootstrap=50).orders.significance.argmax())
    0
    """
    pool = tables["pool"]
    moments = component_covariance(pool, bootstrap, seed, device)
    frame, draws = order_frame(pool.orders, moments, confidence)
    if chains is not None:
        more = chain_frame(chains, nulls, confidence)
        if chains.chains == 1:  # its spread is not known: the images' own interval stays
            more = more.drop(columns=["residual_low", "residual_high"])
        frame = frame.assign(**more.drop(columns=["order", "residual"]))
        frame["reproducible_share"] = frame.cross_seed / frame.significance
        draws |= {"cross_seed": torch.from_numpy(cross_seed(chains).draws)}
    total = float(moments.value.sum())
    names = [*map(str, pool.orders), "residual"]
    pairs = [
        {"a": a, "b": b, "covariance": float(moments.value[i, j]) / total}
        for i, a in enumerate(names)
        for j, b in enumerate(names)
    ]
    return Significance(frame, _by_split(tables, moments, device), pd.DataFrame(pairs), total, moments, draws)


def order_frame(
    orders: tuple[int, ...], moments: Covariance, confidence: float
) -> tuple[pd.DataFrame, dict[str, Tensor]]:
    """A row an order with significance, residual and explained increment as shares of Var[f], and their draws (B, L)."""
    players = len(orders)
    whole, whole_draws = moments.variance(torch.ones(players + 1))
    above = torch.triu(torch.ones(players + 1, players + 1), diagonal=1)[:players]
    residual, residual_draws = moments.variance(above)
    parts, parts_draws = moments.variance(torch.eye(players + 1)[:players])
    residual, residual_draws = residual / whole, residual_draws / whole_draws[:, None]
    parts, parts_draws = parts / whole, parts_draws / whole_draws[:, None]
    before = torch.cat([torch.ones(1), residual[:-1]])
    before_draws = torch.cat([torch.ones(len(residual_draws), 1), residual_draws[:, :-1]], 1)
    columns = {
        "significance": (parts, parts_draws),
        "residual": (residual, residual_draws),
        "explained": (before - residual, before_draws - residual_draws),
    }
    rows = []
    for i, order in enumerate(orders):
        row: dict[str, object] = {"order": order, "blocks": (order - 1) // 3}
        for name, (value, draws) in columns.items():
            low, high = interval(draws[:, i], confidence)
            row |= {name: float(value[i]), f"{name}_low": low, f"{name}_high": high}
        row["residual_rises"] = bool(i and residual[i] > residual[:i].min())
        rows.append(row)
    return pd.DataFrame(rows), {name: draws for name, (_, draws) in columns.items()}


def _by_split(tables: Mapping[str, ComponentTable], pool: Covariance, device: torch.device | str) -> pd.DataFrame:
    rows = []
    for split, table in tables.items():
        moments = pool if split == "pool" else component_covariance(table, device=device)
        players = len(table.orders)
        above = torch.triu(torch.ones(players + 1, players + 1), diagonal=1)[:players]
        residual = moments.variance(above)[0] / moments.value.sum()
        rows += [
            {"split": split, "rows": len(table), "order": order, "residual": float(value)}
            for order, value in zip(table.orders, residual, strict=True)
        ]
    frame = pd.DataFrame(rows)
    if "test" in tables:
        test = frame[frame.split == "test"].set_index("order").residual
        frame["gap"] = frame.order.map(test) / frame.residual - 1
        frame["gap_flag"] = frame.gap > GAP_FLAG
    return frame
