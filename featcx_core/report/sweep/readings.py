"""What a sweep says, in words: the summary, and a sentence for each figure over sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pandas as pd

from featcx_core.report.sweep.claim_readings import overall, value_of
from featcx_core.studies.judging import AGREES, DISAGREES, OPEN, UNMEASURED
from featcx_core.wording import (
    CIRCLE,
    Frames,
    listed,
    number,
    percent,
    plural,
    records,
    significance_of,
    unresolved,
    words,
)

FULL = 3  # statements whose measures the summary gives
MANY = 6  # names that a sentence lists


def summary(frames: Frames, failed: Mapping[str, str], source: str) -> list[str]:
    """What was swept, what was found, what is doubtful."""
    if "sweep" not in frames:
        return [f"No target of this sweep on {source} could be analysed; {len(failed)} failed, for the reasons above."]
    targets = frames["targets"]
    sizes, seeds = sorted(targets["samples"].unique()), sorted(targets["seed"].unique())
    ends = [
        f"{percent(_mean(targets, 'test_accuracy', n))} at {n:,} samples" for n in dict.fromkeys((sizes[0], sizes[-1]))
    ]
    swept = (
        f"This sweep analysed {plural(len(targets), 'target')} on {source}: {_nets(frames)} with "
        f"{words(f'{n:,}' for n in sizes)} training samples and {'seeds' if len(seeds) > 1 else 'seed'} "
        f"{words(map(str, seeds))}, at {listed(sorted(int(order) for order in frames['sweep']['order'].unique()))}; "
        f"mean test accuracy is {' and '.join(ends)}."
    )
    return [swept, findings(frames), doubts(frames, failed)]


def profile(frames: Frames) -> str:
    """From which layer on more than half of what is found lies beyond the first order, net by net."""
    told = []
    for net, own in frames["profile"].groupby("net", sort=False):
        first = own["order"].min()
        rows = own.assign(high=own["significance"].where(own["order"] > first, 0.0)).groupby(["place", "layer"])
        sums = rows[["significance", "high"]].sum().reset_index()
        share = (sums["high"] / sums["significance"]).clip(0, 1)
        at = [f"{percent(float(share.iloc[i]))} at {sums['layer'].iloc[i]}" for i in (0, -1)]
        top = sums["layer"].iloc[int(share.argmax())]
        told.append(f"in {net} the share of significance beyond order {first} is {at[0]} and {at[1]}, highest at {top}")
    return f"In this sweep {words(told)}."


def findings(frames: Frames) -> str:
    """Which statements the sweep agrees with, which not, and of which it cannot tell."""
    rows = [row for k in "1234" for row in overall(frames, k)]
    brief = sum(row["verdict"] in (AGREES, DISAGREES) for row in rows) > FULL
    parts = []
    for verdict in (AGREES, DISAGREES):
        own = [
            f"{row['statement']} ({row['says']}{'' if brief else f': {value_of(row)} ' + row['unit']})"
            for row in rows
            if row["verdict"] == verdict
        ]
        if own:
            parts.append(f"{verdict} with {words(own)}")
    for verdict, told in ((OPEN, "cannot tell of"), (UNMEASURED, "did not measure")):
        if own := [row["statement"] for row in rows if row["verdict"] == verdict]:
            parts.append(f"{told} {words(own)}")
    first = f"Of {len(rows)} statements in the paper's claims 1 to 4 it {words(parts)}"
    gain = {row["statement"]: row for row in rows}["4a"]
    if gain["verdict"] == OPEN and math.isfinite(gain["value"]):
        first += f"; Φ of the chosen order changes test accuracy by {value_of(gain)} points on average"
    return f"{first}."


def doubts(frames: Frames, failed: Mapping[str, str]) -> str:
    """What to know before believing any of it."""
    sweep, targets = frames["sweep"], frames["targets"]
    found = []
    if failed:
        found.append(f"{plural(len(failed), 'target')} failed and averages run over the rest")
    few = [row["statement"] for k in "1234" for row in overall(frames, k) if "--seeds" in row["missing"]]
    if few:
        found.append(f"there are too few seeds to decide {words(few)}")
    unstable, rises = int((~sweep["overfitting_stable"]).sum()), int(targets["residual_rises"].sum())
    if unstable:
        found.append(f"{unstable} of {len(sweep)} over-fitting levels are unstable and left out")
    if open_ := int(unresolved(sweep).sum()):
        found.append(f"{open_} of {len(sweep)} orders are not resolved at this budget and width, and not read")
    if rises:
        found.append(f"the residual rises with the order in {plural(rises, 'target')}, a failure of optimisation")
    if "reliability" not in frames and "decodability" not in frames:
        found.append("reliability was not measured")
    if targets["samples"].nunique() == 1:
        found.append("one size shows nothing of others")
    if targets["group"].nunique() == 1:
        found.append("one architecture shows nothing of others")
    found.append("intervals over seeds hold for these test images and are not adjusted for the number of statements")
    return f"In doubt: {'; '.join(found)}."


def over_sizes(frames: Frames, name: str, noun: str, show: Callable[[float], str] = percent) -> str:
    """What the lowest and highest order have at the smallest and largest size, averaged over groups."""
    column = significance_of(frames[name]) if name == "significance" else name
    frame = frames[name].dropna(subset=column)
    if frame.empty:
        return f"In this sweep {noun} has no stable value at any order."
    if name != "significance":  # whose value says how little is there
        frame = frame[~unresolved(frame)]
    sizes = sorted(frame["samples"].unique())
    mean = frame.groupby(["samples", "order"])[column].mean()
    if not sizes:
        return f"In this sweep no order is resolved, so {noun} is read at none."

    def at(size: int) -> str:
        orders = sorted(frame[frame["samples"] == size]["order"].unique())
        known = dict.fromkeys((orders[0], orders[-1]))
        return " and ".join(f"{show(float(mean[size, order]))} at order {order}" for order in known)

    groups = frame["group"].nunique()
    settings = "" if (frames["sweep"]["group"] == frames["sweep"]["arch"]).all() else " and settings"
    over = f"On average over {groups} architectures{settings}" if groups > 1 else "In this sweep"
    parts = [f"{at(size)} with {size:,} samples" for size in dict.fromkeys((sizes[0], sizes[-1]))]
    means = " (means over seeds)" if frame["seeds"].max() > 1 else ""
    return f"{over} {noun} is {', and '.join(parts)}{means}."


def decodability(frames: Frames) -> str:
    """Decodability beside its floor."""
    floor = frames["decodability"]["decodability_floor"]
    text = over_sizes(frames, "decodability", "decodability").rstrip(".")
    return f"{text}; the untrained nets' floor lies between {percent(floor.min())} and {percent(floor.max())}."


def accuracy(frames: Frames) -> str:
    """What the target and its substitution reach at each end of the sizes."""
    targets = frames["targets"]
    parts = []
    for size in dict.fromkeys((targets["samples"].min(), targets["samples"].max())):
        f, phi = (percent(_mean(targets, name, size)) for name in ("test_accuracy", "substituted_accuracy"))
        parts.append(f"{f} with f and {phi} with Φ of the chosen order at {size:,} samples")
    return f"Mean test accuracy is {', and '.join(parts)}."


def prediction(frames: Frames) -> str:
    """How well the shares predict accuracy, beside the sample count alone."""
    rows = {row["model"]: row for row in records(frames, "prediction") if row["performance"] == "test accuracy"}
    if not rows:
        return "Test accuracy could not be predicted; the table has test loss."
    parts = [
        f"{r_squared(rows[model]['leave_one_out_r2'])} by {what}"
        for model, what in (
            ("shares", "the reliable and unreliable shares"),
            ("log_samples", "log(samples) alone"),
            ("combined", "both"),
        )
    ]
    base = rows["log_samples"]
    more = (
        f"; of what log(samples) leaves unexplained the shares take {percent(base['partial_r2'])} in a fit to all, where as "
        f"many columns of noise take {percent(base['partial_r2_by_chance'])} (p = {base['partial_p']:.2g})"
        if base["partial_r2"] == base["partial_r2"]
        else ""
    )
    targets = rows["shares"]["targets"]
    left_out = "leaving out one architecture and size at a time"
    return f"Of {targets} targets, {left_out}, R² of test accuracy is {words(parts)}{more}."


def few_rows(frames: Frames) -> list[str]:
    """A fit with almost as many coefficients as targets."""
    rows = records(frames, "prediction")
    orders = frames["sweep"]["order"].nunique()
    if rows and rows[0]["targets"] < 3 * (2 * orders + 1):
        return [
            f"{rows[0]['targets']} targets are few for {2 * orders} shares: the fit to all flatters, so read the held-out R² "
            "alone, and that with care."
        ]
    return []


def open_orders(frames: Frames) -> list[str]:
    """How many orders of how many targets are not resolved, which are left out where orders are read or ranked."""
    sweep = frames["sweep"]
    rows = sweep[unresolved(sweep)]
    if rows.empty:
        return []
    own = [f"order {order} in {plural(int(count), 'target')}" for order, count in rows.groupby("order").size().items()]
    return [f"{CIRCLE}: not resolved at this budget and width, and not read or ranked: {words(own)}."]


def rising(frames: Frames) -> list[str]:
    """Targets whose deeper disentanglers fit worse than a shallower one."""
    names = [str(row["target"]) for row in records(frames, "targets") if row["residual_rises"]]
    shown = names if len(names) <= MANY else [*names[:MANY], f"{len(names) - MANY} more"]
    return (
        [f"The residual rises with the order in {words(shown)}: a failure of optimisation, not a finding."]
        if names
        else []
    )


def above_one(frames: Frames) -> list[str]:
    """Targets whose 'reliable part' varies more than what it is a part of."""
    rows = frames["sweep"][frames["sweep"]["reliability"] > 1]
    if rows.empty:
        return []
    return [
        f"Var[Φ reli] / Var[Φ] is above 1 in {plural(rows['target'].nunique(), 'target')} (up to "
        f"{number(rows['reliability'].max())}): the trunk is trained apart from Φ and may vary more than it, so read it as a "
        "ratio, not as a share."
    ]


def unstable(frames: Frames) -> list[str]:
    """Sizes and orders that lost values because φ(seen) is too near zero."""
    rows = [row for row in records(frames, "overfitting") if row["unstable"]]
    if not rows:
        return []
    total, orders = sum(row["unstable"] for row in rows), sorted({int(row["order"]) for row in rows})
    return [
        f"{total} of {len(frames['sweep'])} over-fitting levels, at {listed(orders)}, are unstable (φ(seen) within three "
        "standard errors of zero) and left out, so what is left may not stand for all."
    ]


def r_squared(value: float) -> str:
    """R² of predictions, which has no lower end; below −1 its size says nothing more."""
    return "below −1" if value < -1 else f"{value:.2f}".replace("-", "−")


def _mean(targets: pd.DataFrame, name: str, size: int) -> float:
    return float(targets.loc[targets["samples"] == size, name].mean())


def _nets(frames: Frames) -> str:
    """The architectures, and how many groups further settings make of them."""
    groups = frames["targets"]["group"].nunique()
    archs = words(frames["sweep"]["arch"].unique())
    return archs if groups == frames["sweep"]["arch"].nunique() else f"{archs} in {groups} groups of settings"
