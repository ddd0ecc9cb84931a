"""Claims 1–4 of the paper against a sweep: a measure for each seed, its mean with an interval over seeds, a verdict.

The paper (Ren et al. 2021, arXiv:2006.15920; METHOD §8) states its claims on curves of one net each. Here a claim has regions
of a measure in which it holds and fails, and the interval over seeds is judged by them (`studies.judging`). What 'rises',
'falls', 'little' and 'about' mean in numbers is not in the paper; the margins below are ours.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
from scipy.stats import t as student

from featcx_core.studies import measures
from featcx_core.studies.judging import OPEN, UNMEASURED, Regions, above, below, judge, within

FEW = 3  # seeds; two can agree to the last digit by chance, and then bound nothing
LITTLE = 0.1  # of the weight of all orders, moved beyond what another seed moves
RELIABLY = 0.01  # of the ratio, a doubling: to rise by less is not to rise
KEPT = 0.02  # of the over-fitting level, a doubling: to fall by less is not to fall
HELPS = 0.005  # of test accuracy: to gain less is not to gain
ABOUT = 1.5  # times or by; tested orders nearly double, so the nearest one is within a factor of 1.4
ALL = "all"  # in the column 'group': the mean over groups, which alone has a verdict
NO_NETS = "it was not measured, which takes exemplary nets"


class Estimate(NamedTuple):
    """A mean over seeds, its interval (NaN with fewer than two) and the number of seeds."""

    mean: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True)
class Statement:
    """One part of a claim.

    Attributes:
        name: '1a', …; the first letter is the claim's number.
        says: the claim in a few words.
        unit: of the value, to follow it.
        about: what the value is.
        measure: sweep → a row a (group, seed): value, targets; and value_low, value_high where it lies between them.
        regions: where the claim has the mean of `value`, and where it is wrong.
        shown: the value in its unit.
        absent: why there is no value, where there is none.
        sizes: whether it takes two sizes.
    """

    name: str
    says: str
    unit: str
    about: str
    measure: Callable[[pd.DataFrame], pd.DataFrame]
    regions: Regions
    shown: Callable[[float], float] = float
    absent: str = ""
    sizes: bool = True


def assess(sweep: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Every statement over the whole sweep, with a verdict, and in each group, without.

    A seed's value is the mean over the groups that it has. Seeds move subset, target and disentanglers; test images and
    exemplary nets are the same for all, so the intervals hold for these.

    Args:
        sweep: a row a (target, order), columns as `featcx_core.report.sweep.page` takes them, and `group`.
        confidence: of the intervals, a fraction.

    Returns:
        A row a (statement, group): statement, says, group, value, value_low, value_high, unit, seeds, targets, verdict,
        missing (what keeps it from being decided; empty where nothing does).
    """
    rows = []
    for statement in STATEMENTS:
        values = statement.measure(sweep).dropna(subset="value")
        parts = {ALL: values}
        if sweep["group"].nunique() > 1:
            parts |= {str(group): own for group, own in values.groupby("group", sort=False)}
        for group, own in parts.items():
            found = estimate(own, confidence)
            missing = _missing(statement, sweep, found.seeds) if group == ALL else ""
            value, low, high = (statement.shown(end) for end in found[:3])
            rows.append(
                {
                    "statement": statement.name,
                    "says": statement.says,
                    "group": group,
                    "value": value,
                    "value_low": low,
                    "value_high": high,
                    "unit": statement.unit,
                    "seeds": found.seeds,
                    "targets": int(own["targets"].sum()),
                    "verdict": "" if group != ALL else verdict(found, statement.regions, missing),
                    "missing": missing,
                }
            )
    return pd.DataFrame(rows)


def estimate(values: pd.DataFrame, confidence: float) -> Estimate:
    """The mean over groups, then over seeds; where a value is known only to lie between two, the interval is that of both."""
    names = ("value", "value_low", "value_high") if "value_low" in values else ("value",) * 3
    mean, low, high = (over_seeds(values.groupby("seed")[name].mean(), confidence) for name in names)
    return mean._replace(low=low.low, high=high.high)


def over_seeds(values: pd.Series, confidence: float) -> Estimate:
    """The mean of one value a seed with Student's t interval.

    A bootstrap over so few seeds is too narrow: of two or three it excludes zero whenever their signs agree.
    """
    x = values.to_numpy(float)
    if len(x) < 2:
        return Estimate(float(x.mean()) if len(x) else math.nan, math.nan, math.nan, len(x))
    half = float(student.ppf(0.5 + confidence / 2, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)))
    return Estimate(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half, len(x))


def verdict(found: Estimate, regions: Regions, missing: str = "") -> str:
    """What the interval over seeds says; nothing where there is no value, or where too few seeds bound it."""
    if not found.seeds or (missing and "--sizes" in missing):
        return UNMEASURED
    return OPEN if found.seeds < FEW else judge(found.low, found.high, regions)


def _missing(statement: Statement, sweep: pd.DataFrame, seeds: int) -> str:
    """What keeps a statement from being decided, and how to get it."""
    if statement.sizes and sweep.groupby("group")["samples"].nunique().max() < 2:
        size = int(sweep["samples"].iloc[0])
        return f"there is one size, so add others, e.g. --sizes {max(1, size // 2)},{size},{2 * size}"
    if not seeds and statement.absent:
        return statement.absent
    if seeds >= FEW:
        return ""
    own = [int(seed) for seed in sweep["seed"].unique()]
    more = sorted([*own, *itertools.islice((s for s in itertools.count() if s not in own), FEW - max(1, seeds))])
    told = f"{seeds} seeds bound too little" if seeds > 1 else "one seed bounds nothing"
    return f"{told}, so add others, e.g. --seeds {','.join(map(str, more))}"


def _points(value: float) -> float:
    return 100 * value


STATEMENTS = (
    Statement(
        "1a",
        "the reliability ratio rises with samples",
        "per doubling of samples",
        "slope of Σρr / Σρ on log2(samples), r the reliability ratio and ρ the significance of each order",
        measures.reliability_slopes,
        above(0, RELIABLY),
        absent=NO_NETS,
    ),
    Statement(
        "1b",
        "decodability above its floor rises with samples",
        "points per doubling of samples",
        "the same with r the decodability less its floor",
        measures.decodability_slopes,
        above(0, RELIABLY),
        _points,
        absent=NO_NETS,
    ),
    Statement(
        "1c",
        "the distribution of significance changes little",
        "points of weight beyond seeds",
        "weight of significance that moves from the smallest to the largest size (total variation), less what moves "
        f"between two seeds of one size; 'little': less than {100 * LITTLE:g} points",
        measures.shift,
        within(-math.inf, LITTLE),
        _points,
    ),
    Statement(
        "2",
        "effectiveness peaks at about half the target's depth",
        "times half the depth",
        "order of the highest effectiveness (a parabola over log order gives it between tested orders) over half the "
        f"depth, geometric mean; 'about': within a factor of {ABOUT:g}",
        measures.peak_ratios,
        within(-math.log2(ABOUT), math.log2(ABOUT)),
        lambda value: 2.0**value,
        absent="half of each depth is nearest to the lowest or the highest order tested, or no depth is known, so add "
        "targets whose half depth lies among the orders, e.g. deeper ones with --archs",
        sizes=False,
    ),
    Statement(
        "3a",
        "over-fitting of low orders falls with samples",
        "points per doubling of samples",
        "slope of the over-fitting level on log2(samples), mean over orders up to the median",
        measures.low_slopes,
        below(0, KEPT),
        _points,
        absent="no low order has stable values at two sizes",
    ),
    Statement(
        "3b",
        "that of high orders does not",
        "points per doubling of samples",
        f"the same over the orders above the median; 'does not': falls by less than {100 * KEPT:g} points",
        measures.high_slopes,
        within(-KEPT, math.inf),
        _points,
        absent="no high order has stable values at two sizes",
    ),
    Statement(
        "4a",
        "Φ of the chosen order in place of f raises test accuracy",
        "points of test accuracy",
        "accuracy with Φ less accuracy with f",
        measures.gains,
        above(0, HELPS),
        _points,
        sizes=False,
    ),
    Statement(
        "4b",
        "middle orders do so most",
        "points of test accuracy",
        "accuracy with Φ, mean of the middle orders less that of the lowest and the highest",
        measures.middle_orders,
        above(0, HELPS),
        _points,
        absent="it takes three orders or more",
        sizes=False,
    ),
)
