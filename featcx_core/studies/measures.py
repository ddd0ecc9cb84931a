"""What the paper's claims are about, measured on a sweep: one value a (group, seed), from a row a (target, order).

A group is an architecture with its further settings; only sizes and seeds vary within. Sweeps have the columns that
`featcx_core.report.sweep.page` takes, and `group`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from featcx_core.wording import significance_of, unresolved


def targets_of(sweep: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """One row a target with `columns` that are the same on each of its rows."""
    return sweep.drop_duplicates("target")[["target", "group", "samples", "seed", *columns]].reset_index(drop=True)


def mean_reliability(sweep: pd.DataFrame, column: str) -> pd.DataFrame:
    """Σ_l ρ^(l)·r^(l) / Σ_l ρ^(l) of each target as `value`: ρ its significance, r the reliability or what decodability has
    above its floor.
    """
    sweep = sweep.assign(significance=_significance(sweep))
    r = sweep[column] - (sweep["decodability_floor"] if column == "decodability" else 0)
    rows = sweep.assign(weighted=sweep["significance"] * r)
    sums = rows[r.notna() & rows["significance"].notna()].groupby("target", sort=False)[["weighted", "significance"]]
    total = sums.sum()
    value = (total["weighted"] / total["significance"]).rename("value")
    return targets_of(sweep, []).merge(value, on="target")


def _significance(sweep: pd.DataFrame) -> pd.Series:
    """The significance of each row: what chains share, a share below zero being none; as published where there are none."""
    name = significance_of(sweep)
    return sweep[name].clip(lower=0) if name == "cross_seed" else sweep[name]


def reliability_slopes(sweep: pd.DataFrame) -> pd.DataFrame:
    """Slope of the mean reliability ratio on log2(samples)."""
    return slopes(mean_reliability(sweep, "reliability"), ["group", "seed"])


def decodability_slopes(sweep: pd.DataFrame) -> pd.DataFrame:
    """Slope of the mean decodability above its floor on log2(samples)."""
    return slopes(mean_reliability(sweep, "decodability"), ["group", "seed"])


def slopes(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Least-squares slope of `value` on log2(samples) for each `by` that has two sizes: value, targets."""
    found = []
    for keys, own in rows.dropna(subset="value").groupby(by, sort=False):
        x, y = np.log2(own["samples"].to_numpy(float)), own["value"].to_numpy(float)
        if np.ptp(x) > 0:
            x = x - x.mean()
            found.append((*keys, float(x @ y / (x @ x)), own["target"].nunique()))
    return pd.DataFrame(found, columns=[*by, "value", "targets"])


def distances(sweep: pd.DataFrame) -> pd.DataFrame:
    """How far apart distributions of significance lie: ½ Σ_l |p^(l) − q^(l)| with p^(l) = ρ^(l) / Σ ρ.

    Returns:
        A row a pair within a group: group, kind, samples, seed, other, distance. Kind 'sizes' is of the smallest against
        the largest size of one seed (samples 0, other = seed), 'seeds' of two seeds at one of these sizes.
    """
    found: list[tuple[str, str, int, int, int, float]] = []
    for group, own in sweep.groupby("group", sort=False):
        shares = own.assign(significance=_significance(own))
        wide = shares.pivot(index=["samples", "seed"], columns="order", values="significance").dropna()
        share = wide.div(wide.sum(axis=1), axis=0)
        sizes = share.index.get_level_values("samples")
        if len(share) == 0 or sizes.min() == sizes.max():
            continue
        small, large = share.loc[sizes.min()], share.loc[sizes.max()]
        seeds = [int(seed) for seed in small.index if seed in large.index]
        found += [(str(group), "sizes", 0, s, s, _variation(small.loc[s], large.loc[s])) for s in seeds]
        for size, at in ((int(sizes.min()), small), (int(sizes.max()), large)):
            found += [
                (str(group), "seeds", size, a, b, _variation(at.loc[a], at.loc[b]))
                for a, b in itertools.combinations(seeds, 2)
            ]
    return pd.DataFrame(found, columns=["group", "kind", "samples", "seed", "other", "distance"])


def _variation(p: pd.Series, q: pd.Series) -> float:
    return float((p - q).abs().sum() / 2)


def shift(sweep: pd.DataFrame) -> pd.DataFrame:
    """By how much the distance between sizes exceeds that between seeds, as a jackknife's pseudo-values.

    A pair's distance belongs to two seeds, so the mean over pairs B enters as n·B − (n−1)·B without the seed: its mean is
    B, and its spread that of a mean over pairs (Hoeffding 1948, doi:10.1214/aoms/1177730196).
    """
    found = []
    for group, own in distances(sweep).groupby("group", sort=False):
        sizes, pairs = own[own["kind"] == "sizes"], own[own["kind"] == "seeds"]
        n, between = len(sizes), pairs["distance"].mean()
        for row in sizes.to_dict("records"):
            rest = pairs[(pairs["seed"] != row["seed"]) & (pairs["other"] != row["seed"])]["distance"].mean()
            noise = n * between - (n - 1) * rest if n > 2 else between
            found.append((group, row["seed"], row["distance"] - noise, 2))
    return pd.DataFrame(found, columns=["group", "seed", "value", "targets"])


def peaks(sweep: pd.DataFrame) -> pd.DataFrame:
    """Where each target's effectiveness peaks among the resolved orders, against half its depth.

    Returns:
        A row a target of known depth: target, group, samples, seed, depth, half, nearest (the tested order nearest to half,
        by ratio), peak, hit (peak is nearest), tied (orders whose interval overlaps the peak's, in words), top (the peak
        between tested orders, by a parabola over log order), ratio (top / half), step (the factor to which a peak at the
        first or last order is known: half the way, by ratio, to the next one; 1 elsewhere), least and most (the orders
        between which the peak lies, those that are tied with it among them) and edge: the order nearest to half is the first
        or the last, where an effectiveness that only falls or only rises would look the same, so nothing is asked.
    """
    found = []
    sweep = sweep[~unresolved(sweep)]
    for _, rows in sweep.dropna(subset=["effectiveness", "depth"]).groupby("target", sort=False):
        rows = rows.sort_values("order")
        orders, half = rows["order"].to_numpy(float), float(rows["depth"].iloc[0]) / 2
        top = rows.iloc[int(rows["effectiveness"].to_numpy().argmax())]
        nearest = int(orders[np.abs(np.log(orders / half)).argmin()]) if half > 0 else int(orders[0])
        peak = int(top["order"])
        tied = rows[(rows["effectiveness_high"] >= top["effectiveness_low"]) & (rows["order"] != peak)]["order"]
        at = int((orders < peak).sum())
        inside = 0 < at < len(orders) - 1
        near = slice(at - 1, at + 2)
        best = _vertex(np.log(orders[near]), rows["effectiveness"].to_numpy(float)[near]) if inside else float(peak)
        beside = [orders[i] / peak for i in (at - 1, at + 1) if 0 <= i < len(orders)]
        found.append(
            {name: rows[name].iloc[0] for name in ("target", "group", "samples", "seed", "depth")}
            | {"half": half, "nearest": nearest, "peak": peak, "hit": peak == nearest}
            | {"tied": ", ".join(str(int(order)) for order in tied)}
            | {"top": best, "ratio": best / half if half > 0 else math.nan}
            | {"step": 1.0 if inside else math.exp(abs(math.log(beside[0])) / 2) if beside else math.inf}
            | {"least": min(tied, default=peak), "most": max(tied, default=peak)}
            | {"edge": nearest in (orders[0], orders[-1])}
        )
    names = [
        "target",
        "group",
        "samples",
        "seed",
        "depth",
        "half",
        "nearest",
        "peak",
        "hit",
        "tied",
        "top",
        "ratio",
        "step",
        "least",
        "most",
        "edge",
    ]
    return pd.DataFrame(found, columns=names)


def _vertex(x: np.ndarray, y: np.ndarray) -> float:
    """exp of where the parabola through three points (x, y), the middle one highest, is highest."""
    rise, fall = np.diff(y) / np.diff(x)
    if rise == fall:
        return float(np.exp(x[1]))
    return float(np.exp((x[0] + x[1]) / 2 + rise * (x[2] - x[0]) / (2 * (rise - fall))))


def peak_ratios(sweep: pd.DataFrame) -> pd.DataFrame:
    """log2 of peak / half depth where half is not at the edge, with the ends that its step and tied orders allow."""
    own = peaks(sweep)
    own = own[~own["edge"].astype(bool)]
    value, step = np.log2(own["ratio"].astype(float)), np.log2(own["step"].astype(float))
    low, high = (np.log2(own[name].astype(float) / own["half"]) for name in ("least", "most"))
    ends = {"value": value, "value_low": np.minimum(value - step, low), "value_high": np.maximum(value + step, high)}
    return (
        own.assign(**ends)
        .groupby(["group", "seed"], sort=False)
        .agg(**{name: (name, "mean") for name in ends}, targets=("value", "size"))
        .reset_index()
    )


def overfitting_slopes(sweep: pd.DataFrame) -> pd.DataFrame:
    """Slope of the over-fitting level on log2(samples), of resolved orders where it is stable: group, seed, order, low,
    value, targets.

    `low` marks the orders up to the median of the group's.
    """
    stable = sweep[sweep["overfitting_stable"] & ~unresolved(sweep)].assign(value=lambda rows: rows["overfitting"])
    median = sweep.groupby("group")["order"].agg(lambda orders: float(np.median(orders.unique())))
    found = slopes(stable, ["group", "seed", "order"])
    return found.assign(low=found["order"].astype(float) <= found["group"].map(median).astype(float))


def low_slopes(sweep: pd.DataFrame) -> pd.DataFrame:
    """The mean slope over low orders."""
    found = overfitting_slopes(sweep)
    return _by_seed(found[found["low"]])


def high_slopes(sweep: pd.DataFrame) -> pd.DataFrame:
    """The mean slope over high orders."""
    found = overfitting_slopes(sweep)
    return _by_seed(found[~found["low"]])


def gains(sweep: pd.DataFrame) -> pd.DataFrame:
    """Accuracy with Φ of the chosen order less that with f, mean over sizes."""
    return _by_seed(targets_of(sweep, ["gain"]).rename(columns={"gain": "value"}))


def middle_orders(sweep: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy with Φ over middle orders less that over the lowest and the highest, mean over sizes.

    Not less the better of these two: of noise alone that is too much.
    """
    found = []
    for _, rows in sweep.dropna(subset="substituted_accuracy").groupby("target", sort=False):
        accuracy = rows.sort_values("order")["substituted_accuracy"].to_numpy(float)
        if len(accuracy) > 2:
            ends = (accuracy[0] + accuracy[-1]) / 2
            found.append((rows["group"].iloc[0], rows["seed"].iloc[0], accuracy[1:-1].mean() - ends))
    return _by_seed(pd.DataFrame(found, columns=["group", "seed", "value"]))


def _by_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean of `value` a (group, seed), and how many targets it is of."""
    known = rows.dropna(subset="value")
    count = ("targets", "max") if "targets" in rows else ("value", "size")
    return known.groupby(["group", "seed"], sort=False).agg(value=("value", "mean"), targets=count).reset_index()


def spread(frame: pd.DataFrame, by: list[str], columns: list[str]) -> pd.DataFrame:
    """Means over seeds of `columns` for each value of `by`, with the lowest and highest seed as `_low` and `_high`."""

    def named() -> Iterator[tuple[str, tuple[str, str]]]:
        for column in columns:
            yield column, (column, "mean")
            yield f"{column}_low", (column, "min")
            yield f"{column}_high", (column, "max")

    return frame.groupby(by, sort=True).agg(**dict(named())).reset_index()
