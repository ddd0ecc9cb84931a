"""Two analysed networks, order by order: differences with paired intervals, and p-values adjusted for their number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm
from torch import Tensor

from featcx_core.analysis.bootstrap import interval
from featcx_core.errors import InputError
from featcx_core.metrics import METRICS

COMPARED = {metric.name: metric for metric in METRICS if metric.noun}


class Measured(NamedTuple):
    """One network's metrics.

    Attributes:
        orders: L complexity orders.
        values: metric → L values.
        draws: metric → bootstrap draws (B, L). Networks whose samples and bootstrap seed agree share each draw, so the
            difference of their draws is a paired bootstrap.
    """

    orders: tuple[int, ...]
    values: Mapping[str, np.ndarray]
    draws: Mapping[str, Tensor]


def compare_networks(original: Measured, variants: Mapping[str, Measured], confidence: float) -> pd.DataFrame:
    """A row a (variant, metric, order): original, variant, difference with its interval, p and Holm-adjusted p.

    p-values are two-sided and normal, from the bootstrap's standard error: a percentile p cannot fall below 1/B, which
    adjusting over dozens of comparisons would make blind. `adjusted_over` says over how many p-values Holm's method went.
    A difference whose draws are not finite (an over-fitting ratio without a reading) gets no p-value.

    Raises:
        InputError: when the networks were not analysed at the same orders.
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
            for i, order in enumerate(original.orders):
                difference = float(variant.values[metric][i] - original.values[metric][i])
                error = float(apart[:, i].std(ddof=1))
                usable = bool(np.isfinite(apart[:, i]).all()) and error > 0 and math.isfinite(difference)
                low, high = interval(apart[:, i], confidence) if usable else (math.nan, math.nan)
                rows.append(
                    {
                        "variant": name,
                        "metric": metric,
                        "order": order,
                        "original": float(original.values[metric][i]),
                        "value": float(variant.values[metric][i]),
                        "difference": difference,
                        "difference_low": low,
                        "difference_high": high,
                        "p": float(2 * norm.sf(abs(difference) / error)) if usable else math.nan,
                    }
                )
    frame = pd.DataFrame(rows)
    frame["p_holm"] = holm(frame.p.to_numpy())
    frame["adjusted_over"] = int(frame.p.notna().sum())
    return frame


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
    """What a variant changed, in sentences, against claim 5 of the paper (METHOD §8)."""
    own = frame[frame.variant == variant]
    sentences = []
    for metric in COMPARED:
        part = own[own.metric == metric]
        if part.empty:
            continue
        clear = part[part.p_holm < level]
        ways = [(way, clear[clear.difference * sign > 0].order.to_list()) for way, sign in (("up", 1), ("down", -1))]
        words = [f"{way} at order {', '.join(map(str, orders))}" for way, orders in ways if orders]
        if words:
            sentences.append(f"{COMPARED[metric].noun} is {' and '.join(words)}.")
    if not sentences:
        sentences = ["No metric differs at any order by more than sampling explains."]
    return [*sentences, *_claim(own, variant, level)]


def _claim(own: pd.DataFrame, variant: str, level: float) -> list[str]:
    """Whether this run agrees with claim 5 of the paper, METHOD §8, judged by differences clear of sampling error."""
    clear = own[own.p_holm < level]
    if variant == "distilled":
        claim = "distillation makes features more reliable and more effective"
        changes = [clear[clear.metric == metric].difference for metric in ("decodability", "effectiveness")]
        held = [len(d) > 0 and bool((d > 0).all()) for d in changes]
    elif variant in ("pruned", "quantised"):
        claim = "compression touches mostly low orders and leaves reliability alone"
        moved = clear[clear.metric == "significance"]
        size = own[own.metric == "significance"].set_index("order").difference.abs()
        held = [not moved.empty and size.iloc[0] == size.max(), clear[clear.metric == "decodability"].empty]
    else:
        return []
    words = "agrees" if all(held) else "agrees in part" if any(held) else "does not agree"
    return [f"The paper reports that {claim}; this run {words} (reliability read as decodability)."]
