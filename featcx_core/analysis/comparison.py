"""Two analysed networks, order by order: differences with paired intervals, and p-values adjusted for their number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from featcx_core.analysis.spread import errors
from featcx_core.errors import InputError
from featcx_core.metrics import METRICS
from featcx_core.wording import UNRESOLVED, unresolved

ALIKE = "No metric differs"  # how the sentence on a variant begins in which nothing is told apart
COMPARED = {metric.name: metric for metric in METRICS if metric.noun}


class Measured(NamedTuple):
    """One network's metrics.

    Attributes:
        orders: L complexity orders.
        values: metric → L values.
        draws: metric → bootstrap draws (B, L). Networks whose samples and bootstrap seed agree share each draw, so the
            difference of their draws is a paired bootstrap.
        spread: metric → estimated variance over chains of disentanglers (L,); a metric without has no p-value.
        chains: K, each variance's degrees of freedom being K − 1.
        resolved: whether each order is resolved, as significance tells it; empty where that was not asked.
    """

    orders: tuple[int, ...]
    values: Mapping[str, np.ndarray]
    draws: Mapping[str, Tensor]
    spread: Mapping[str, np.ndarray]
    chains: int
    resolved: tuple[str | None, ...] = ()


def compare_networks(original: Measured, variants: Mapping[str, Measured], confidence: float = 0.95) -> pd.DataFrame:
    """A row a (variant, metric, order): original, variant, difference with its interval, p, Holm-adjusted p, resolved.

    A difference has two sources of error: the images, by a paired bootstrap, and the disentanglers' seeds, by the spread
    over the chains of both networks, moderated over all orders and variants of a metric (see `spread`; over all metrics
    together, one that chains move more than others was called different too often). Intervals and two-sided p-values are
    Student's. `adjusted_over` says over how many p-values Holm's method went. Without a p-value: what has one chain, whose
    seeds' part is not known; and a difference whose draws are not finite (an over-fitting ratio without a reading).
    `resolved` is no where the order is not resolved in one of the networks; of significance where it is in none: a component
    that one network has and the other lacks is a difference, but what is no component has no other metric.

    Raises:
        InputError: when the networks were not analysed at the same orders.

    >>> import numpy as np, torch, featcx_core as fx
    >>> from featcx_core.analysis.comparison import Measured
    >>> one, other = (
    ...     Measured((4,), {"cross_seed": np.array([v])}, {"cross_seed": v + 0.01 * torch.randn(99, 1)},
    ...              {"cross_seed": np.array([1e-5])}, chains=2, resolved=("yes",))
    ...     for v in (0.5, 0.8)
    ... )
    >>> fx.compare_networks(one, {"pruned": other}).difference.round(3).tolist()
    [0.3]
    """
    rows = []
    for name, variant in variants.items():
        if variant.orders != original.orders:
            raise InputError(
                f"'{name}' was analysed at orders {variant.orders}, the other at {original.orders}; use the same."
            )
        for metric in COMPARED:
            if metric not in original.draws or metric not in variant.draws:
                continue
            apart = (variant.draws[metric] - original.draws[metric]).numpy()
            unknown = np.full(len(original.orders), np.nan)
            moved = variant.spread.get(metric, unknown) + original.spread.get(metric, unknown)
            with np.errstate(invalid="ignore"):  # of ratios without a reading
                images = apart.var(0, ddof=1)
            rows += [
                {
                    "variant": name,
                    "metric": metric,
                    "order": order,
                    "original": float(original.values[metric][i]),
                    "value": float(variant.values[metric][i]),
                    "images": images[i],
                    "chains": moved[i],
                    "resolved": _together(metric, original.resolved[i : i + 1] + variant.resolved[i : i + 1]),
                }
                for i, order in enumerate(original.orders)
            ]
    frame = pd.DataFrame(rows)
    frame.insert(5, "difference", frame.value - frame.original)
    freedom = max(1, original.chains - 1) + max(1, min(v.chains for v in variants.values()) - 1)
    for _, own in frame.groupby("metric"):
        error = errors(own.images.to_numpy(), own.chains.to_numpy(), freedom)
        difference = own.difference.to_numpy()
        ends = error.interval(difference, confidence)
        frame.loc[own.index, ["difference_low", "difference_high", "p"]] = np.stack([*ends, error.p(difference)], 1)
    frame = frame.drop(columns=["images", "chains"])
    frame["resolved"] = frame.pop("resolved")
    frame["p_holm"] = holm(frame.p.to_numpy())
    frame["adjusted_over"] = int(frame.p.notna().sum())
    return frame


def _together(metric: str, resolved: tuple[str | None, ...]) -> str | None:
    """Whether an order's difference is read, by what both networks tell of the order."""
    lacking, found = any(word in UNRESOLVED for word in resolved), "yes" in resolved
    if lacking and not (found and metric == "cross_seed"):
        return "no"
    return "yes" if found else None


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down adjusted p-values (Holm 1979); NaN stays NaN and does not count."""
    adjusted, usable = np.full(len(p), np.nan), np.flatnonzero(~np.isnan(p))
    ranked = usable[np.argsort(p[usable], kind="stable")]
    running = 0.0
    for rank, i in enumerate(ranked):
        running = max(running, min(1.0, (len(ranked) - rank) * p[i]))
        adjusted[i] = running
    return adjusted


def changes(frame: pd.DataFrame, variant: str, level: float = 0.05) -> list[str]:
    """What a variant changed at orders that are resolved, in sentences, the metric with the clearest change first."""
    own = frame[frame.variant == variant]
    sentences = []
    for metric in sorted(own.metric.unique(), key=lambda metric: own[own.metric == metric].p_holm.min()):
        part = own[own.metric == metric]
        clear = _clear(part, level)
        ways = [(way, clear[clear.difference * sign > 0].order.to_list()) for way, sign in (("up", 1), ("down", -1))]
        words = [f"{way} at order {', '.join(map(str, orders))}" for way, orders in ways if orders]
        if words:
            sentences.append(f"{COMPARED[metric].noun} is {' and '.join(words)}.")
    if not sentences:
        some = "resolved order" if unresolved(own).any() else "order"
        sentences = [f"{ALIKE} at any {some} by more than images and seeds of the disentanglers explain."]
    return sentences


def _clear(rows: pd.DataFrame, level: float) -> pd.DataFrame:
    """Differences of resolved orders that images and seeds do not explain."""
    return rows[(rows.p_holm < level) & ~unresolved(rows)]
