"""The claims of the paper in words: each statement's verdict, what was measured, what it lacks and what lies behind it."""

from __future__ import annotations

import math

from featcx_core.studies.claims import ALL
from featcx_core.studies.judging import together
from featcx_core.wording import (
    Frames,
    Row,
    listed,
    number,
    percent,
    plural,
    records,
    significance_of,
    with_interval,
    words,
)


def claim(frames: Frames, number_of: str) -> str:
    """Each statement of a claim with its verdict, measure and what it lacks."""
    parts = []
    for row in overall(frames, number_of):
        text = f"{row['statement']}, “{row['says']}”: {row['verdict']}"
        if math.isfinite(row["value"]):
            n = f"{plural(row['seeds'], 'seed')}, {plural(row['targets'], 'target')}"
            text += f"; measured {value_of(row)} {row['unit']} ({n})"
        parts.append(f"{text}{'; ' + row['missing'] if row['missing'] else ''}.")
    detail = {"1": _moved, "2": _peaks, "3": _slopes, "4": _chosen}[number_of](frames)
    return "\n".join([*parts, *([detail] if detail else [])])


def verdict(frames: Frames, number_of: str) -> tuple[str, str]:
    """A claim's verdict in a word or two, and that of each of its statements."""
    rows = overall(frames, number_of)
    each = ", ".join(f"{row['statement']} {row['verdict']}" for row in rows)
    return together([row["verdict"] for row in rows]), each if len(rows) > 1 else rows[0]["says"]


def drawable(frames: Frames, number_of: str) -> bool:
    """Whether there is anything to draw for a claim."""
    if number_of == "1":
        return len(frames["distances"]) > 0 or bool(
            frames["mean_reliability"][["reliability", "decodability"]].notna().any(axis=None)
        )
    if number_of == "4":
        return bool(frames["targets"]["gain"].notna().any())
    return len(frames[{"2": "peaks", "3": "slopes"}[number_of]]) > 0


def overall(frames: Frames, number_of: str) -> list[Row]:
    """A claim's statements over the whole sweep."""
    return [row for row in records(frames, f"claim_{number_of}") if row["group"] == ALL]


def value_of(row: Row) -> str:
    """The measure with its interval, or alone where one seed gives none."""
    return with_interval(row, "value", number) if math.isfinite(row["value_low"]) else number(row["value"])


def _moved(frames: Frames) -> str:
    """From which order significance moves to which, and how far."""
    frame, far = frames["significance"], frames["distances"]
    means = far.groupby("kind")["distance"].mean()
    if far.empty:
        return ""
    wide = frame.groupby(["samples", "order"])[significance_of(frame)].mean().unstack("order")
    share = wide.div(wide.sum(axis=1), axis=0)
    change = share.iloc[-1] - share.iloc[0]
    order = int(change.index[int(change.abs().to_numpy().argmax())])
    beside = f", two seeds at one size by {percent(means['seeds'])}" if "seeds" in means else ""
    return (
        f"The smallest and the largest size differ by {percent(means['sizes'])} of the weight{beside}; most of it moves "
        f"{'to' if change[order] > 0 else 'away from'} order {order} ({percent(change[order], sign=True)})."
    )


def _peaks(frames: Frames) -> str:
    peaks = frames["peaks"]
    if peaks.empty:
        return ""
    hits, edge, tied = int(peaks["hit"].sum()), int(peaks["edge"].sum()), int((peaks["tied"] != "").sum())
    at = peaks["peak"].value_counts().sort_index()
    return (
        f"Of {plural(len(peaks), 'target')} with known depth {hits} {'peaks' if hits == 1 else 'peak'} at the tested order "
        f"nearest to half of it; of {edge} that order is the first or the last, where a mere fall or rise looks the same "
        f"and no ratio is taken; peaks stand at {words(f'order {order} ({count})' for order, count in at.items())}, "
        f"{tied} of them with an interval that overlaps another order's."
    )


def _slopes(frames: Frames) -> str:
    slopes, sweep = frames["slopes"], frames["sweep"]
    if slopes.empty:
        return ""
    parts = []
    for low, name in ((True, "low"), (False, "high")):
        own = slopes[slopes["low"] == low]
        if len(own):
            orders = listed(sorted({int(order) for order in own["order"]}))
            parts.append(f"{number(100 * own['value'].mean())} points a doubling at {name} {orders}")
    left = int((~sweep["overfitting_stable"]).sum())
    levels = sweep[sweep["overfitting_stable"] & sweep["order"].isin(slopes[slopes["low"]]["order"])]["overfitting"]
    lie = f"; at low orders it lies between {percent(levels.min())} and {percent(levels.max())}" if len(levels) else ""
    return (
        f"On average the level changes by {words(parts)}{lie}; {left} of {len(sweep)} values are unstable and left out."
    )


def _chosen(frames: Frames) -> str:
    targets = frames["targets"].dropna(subset="gain")
    if targets.empty:
        return ""
    above, below = int((targets["gain_low"] > 0).sum()), int((targets["gain_high"] < 0).sum())
    top = targets.iloc[int(targets["gain"].to_numpy().argmax())]
    chosen = targets["chosen_order"].dropna().astype(int).value_counts().sort_index()
    return (
        f"The gain's own interval lies above zero in {above} and below in {below} of {plural(len(targets), 'target')}; the "
        f"largest is {number(100 * float(top['gain']))} points ({top['target']}); chosen are "
        f"{words(f'order {order} ({count})' for order, count in chosen.items())}."
    )
