"""Claim 5 of the paper (Ren et al. 2021, METHOD §8), judged on one network and its variants.

The paper: distillation makes features more reliable and more effective; compression touches mostly low orders and leaves
reliability alone. What 'mostly', 'alone' and 'more' mean in numbers is not in the paper; the margins are ours:

1. Over orders a metric is weighted by the original's significance, over the orders that both networks resolve.
2. Reliability is read as decodability: by 5 points at least it is more, within 5 points either way it is left alone.
3. Effectiveness is more by a tenth of the original's at least.
4. 'Low' are the resolved orders up to their median, 'high' those above. Change of significance is relative, so that a
   tripling of a small component counts: high orders are left alone within a quarter, low ones are touched by 5% at least.

Intervals of a claim of m statements have the coverage 1 − (1 − c)/m (Bonferroni), so that the claim errs as rarely as one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from featcx_core.analysis.comparison import Measured
from featcx_core.analysis.spread import errors
from featcx_core.studies.judging import UNMEASURED, Regions, above, apart, judge, within
from featcx_core.wording import UNRESOLVED

Array = np.ndarray
MORE_RELIABLE, MORE_EFFECTIVE, HIGH_KEPT, LOW_TOUCHED = 0.05, 0.1, 0.25, 0.05


class Weights(NamedTuple):
    """How a number is made of a metric's differences order by order (L,), and why there is none."""

    value: Array | None
    missing: str = ""


class Statement(NamedTuple):
    """One part of the claim: a weighted sum of a metric's differences, and where it holds."""

    name: str
    says: str
    metric: str
    weigh: Callable[[Measured, Array], Weights]
    regions: Regions


def _by_significance(original: Measured, read: Array) -> Weights:
    weights = np.where(read, original.values["cross_seed"], 0.0).clip(0)
    return Weights(weights / weights.sum()) if weights.sum() > 0 else Weights(None, "no order is resolved in both")


def _relative(original: Measured, read: Array) -> Weights:
    """Of the sum over read orders: differences over the sum of the original's."""
    whole = float(np.abs(np.where(read, original.values["effectiveness"], 0)).sum())
    return Weights(np.where(read, 1 / whole, 0.0)) if whole > 0 else Weights(None, "no order is resolved in both")


def _relative_mean(low: bool) -> Callable[[Measured, Array], Weights]:
    """The mean over low or high orders of the change relative to the original."""

    def weigh(original: Measured, read: Array) -> Weights:
        orders, rho = np.array(original.orders), original.values["cross_seed"]
        if read.sum() < 2:
            return Weights(None, "it takes two orders that are resolved in both")
        chosen = read & ((orders <= np.median(orders[read])) == low) & (rho > 0)
        if not chosen.any():
            return Weights(None, "the original's significance is nothing there")
        return Weights(np.where(chosen, 1 / np.where(chosen, rho, 1), 0.0) / chosen.sum())

    return weigh


RELIABILITY = "decodability"
DISTILLED = (
    Statement("5a", "features are more reliable", RELIABILITY, _by_significance, above(0, MORE_RELIABLE)),
    Statement("5b", "features are more effective", "effectiveness", _relative, above(0, MORE_EFFECTIVE)),
)
COMPRESSED = (
    Statement("5c", "low orders change", "cross_seed", _relative_mean(low=True), apart(0, LOW_TOUCHED)),
    Statement("5d", "high orders do not", "cross_seed", _relative_mean(low=False), within(-HIGH_KEPT, HIGH_KEPT)),
    Statement("5e", "reliability is left alone", RELIABILITY, _by_significance, within(-MORE_RELIABLE, MORE_RELIABLE)),
)
CLAIMS = {
    "distilled": ("distillation makes features more reliable and more effective", DISTILLED),
    "pruned": ("compression touches mostly low orders and leaves reliability alone", COMPRESSED),
    "quantised": ("compression touches mostly low orders and leaves reliability alone", COMPRESSED),
}


def judge_variants(original: Measured, variants: Mapping[str, Measured], confidence: float) -> pd.DataFrame:
    """A row a (variant, statement): says, value, value_low, value_high, verdict, missing; values are fractions.

    A value's error has the images' part from the paired draws, and the chains' part as if all orders' moved together, which
    is the most that it can be. Of nets with one chain nothing is told apart.
    """
    rows = []
    for name, variant in variants.items():
        statements = CLAIMS[name][1] if name in CLAIMS else ()
        coverage = 1 - (1 - confidence) / max(1, len(statements))
        for statement in statements:
            value, ends, missing = _measured(statement, original, variant, coverage)
            rows.append(
                {
                    "variant": name,
                    "statement": statement.name,
                    "says": statement.says,
                    "value": value,
                    "value_low": ends[0],
                    "value_high": ends[1],
                    "verdict": UNMEASURED if missing else judge(*ends, statement.regions),
                    "missing": missing,
                }
            )
    names = ["variant", "statement", "says", "value", "value_low", "value_high", "verdict", "missing"]
    return pd.DataFrame(rows, columns=names)


def _measured(
    statement: Statement, original: Measured, variant: Measured, coverage: float
) -> tuple[float, tuple[float, float], str]:
    unknown, metric = (np.nan, (np.nan, np.nan)), statement.metric
    if metric not in original.draws or metric not in variant.draws:
        return *unknown, f"{metric} was not measured, which takes exemplary nets"
    weights, missing = statement.weigh(original, _read(original, variant))
    if weights is None:
        return *unknown, missing
    used = weights != 0
    difference = (variant.values[metric] - original.values[metric])[used]
    drawn = (variant.draws[metric] - original.draws[metric]).numpy()[:, used]
    lacking = np.full(len(weights), np.nan)
    moved = (variant.spread.get(metric, lacking) + original.spread.get(metric, lacking))[used]
    value, images = float(weights[used] @ difference), (drawn @ weights[used]).var(ddof=1)
    chains = (np.abs(weights[used]) @ np.sqrt(moved)) ** 2
    freedom = max(1, original.chains - 1) + max(1, variant.chains - 1)
    low, high = errors(np.array([images]), np.array([chains]), freedom).interval(np.array([value]), coverage)
    return value, (float(low[0]), float(high[0])), "" if np.isfinite(low[0]) else "one chain bounds nothing"


def _read(original: Measured, variant: Measured) -> Array:
    """Which orders neither network leaves unresolved."""
    lacking = [np.isin(np.array(net.resolved or [None] * len(net.orders)), UNRESOLVED) for net in (original, variant)]
    return ~(lacking[0] | lacking[1])
