"""How numbers and orders are put into words, the same in figures, sentences and tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

Frames = Mapping[str, pd.DataFrame]
Row = dict[Any, Any]


def percent(value: float, sign: bool = False) -> str:
    """A fraction in per cent with one digit: '12.3%'."""
    return f"{100 * value:{'+' if sign else ''}.1f}%".replace("-", "−")


def number(value: float) -> str:
    """Three significant digits, trailing zeros kept."""
    return f"{value:#.3g}".rstrip(".").replace("-", "−")


def with_interval(row: Mapping[Any, Any], name: str, show: Callable[[float], str] = percent) -> str:
    """'18.9% [18.7%, 19.2%]', the value alone where the row has no interval."""
    value = show(row[name])
    if f"{name}_low" not in row:
        return value
    low, high = float(row[f"{name}_low"]), float(row[f"{name}_high"])
    return f"{value} [{show(low)}, {show(high)}]" if math.isfinite(low + high) else f"{value} [unbounded]"


def listed(orders: Iterable[int]) -> str:
    """'order 4', 'orders 4, 7 and 13'."""
    names = [str(order) for order in orders]
    return f"order {names[0]}" if len(names) == 1 else f"orders {', '.join(names[:-1])} and {names[-1]}"


def plural(count: int, noun: str) -> str:
    """'one seed', '3 seeds'."""
    return f"one {noun}" if count == 1 else f"{count} {noun}s"


def words(parts: Iterable[object]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    names = [str(part) for part in parts]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def records(frames: Frames, name: str) -> list[Row]:
    """A frame's rows as dictionaries."""
    return frames[name].to_dict("records")


def counts(frames: Frames) -> dict[str, int]:
    """Images a split, as far as the frames tell."""
    found: dict[str, int] = {}
    for name in ("splits", "substitution_splits"):
        if name in frames:
            found |= {str(row["split"]): int(row["rows"]) for row in records(frames, name)}
    return found


def reached(frame: pd.DataFrame) -> pd.DataFrame:
    """What each order and all below it explain of Var[f], 1 − residual, with its interval."""
    columns = {"reached": "residual", "reached_low": "residual_high", "reached_high": "residual_low"}
    return pd.DataFrame({"order": frame["order"]} | {name: 1 - frame[source] for name, source in columns.items()})


def best_order(frames: Frames) -> int | None:
    """The order of highest validation accuracy, the lower of two equals; None without a substitution frame."""
    if "substitution" not in frames:
        return None
    frame = frames["substitution"]
    return int(frame["order"].iloc[int(frame["validation_accuracy"].to_numpy().argmax())])


def accuracy_interval(accuracy: float, rows: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of an accuracy over `rows` images, fractions (doi:10.1080/01621459.1927.10502953)."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre, scale = accuracy + z**2 / (2 * rows), 1 + z**2 / rows
    half = z * math.sqrt(accuracy * (1 - accuracy) / rows + (z / (2 * rows)) ** 2)
    return (centre - half) / scale, (centre + half) / scale


def one_sentence(text: str) -> str:
    """The text as one sentence: inner full stops become semicolons."""
    return text.strip().rstrip(".").replace(". ", "; ") + "."


UNRESOLVED = ("no", "negative")


def readable(rows: list[Row]) -> list[Row]:
    """The rows of orders that may be read as what they are called: all that are not known to be unresolved."""
    return [row for row in rows if row.get("resolved") not in UNRESOLVED]


def unresolved(frame: pd.DataFrame) -> np.ndarray:
    """bool (n,): the rows of orders that this budget and width do not resolve."""
    return frame["resolved"].isin(UNRESOLVED).to_numpy() if "resolved" in frame else np.zeros(len(frame), dtype=bool)


CIRCLE = "○"


def mark(resolved: Any) -> str:
    """' ○' behind an order that is not resolved."""
    return f" {CIRCLE}" if resolved in UNRESOLVED else ""


def open_orders(frames: Frames) -> list[str]:
    """A warning that names the orders which are not resolved, for what tells of them elsewhere than under significance."""
    frame = frames.get("significance", pd.DataFrame())
    orders = frame["order"][unresolved(frame)].tolist() if len(frame) else []
    if not orders:
        return []
    is_, it = ("is", "its") if len(orders) == 1 else ("are", "their")
    return [
        f"{CIRCLE}: {listed(orders)} {is_} not resolved at this budget and width; nothing is read from {it} values."
    ]


def significance_of(frame: pd.DataFrame) -> str:
    """The column that is the significance: what two chains share of it, or as published where there are none."""
    return "cross_seed" if "cross_seed" in frame and frame["cross_seed"].notna().all() else "significance"


def top_row(rows: list[Row], name: str) -> tuple[Row, list[int]]:
    """The row of the highest value, and the orders whose intervals overlap its own."""
    top = max(rows, key=lambda row: float(row[name]))
    low, high = (f"{name}_{end}" if f"{name}_{end}" in top else name for end in ("low", "high"))
    return top, [row["order"] for row in rows if row is not top and not row[high] < top[low]]


def ranked(rows: list[Row], tied: list[int]) -> str:
    """How sure it is that an order is the highest of `rows`."""
    if len(rows) == 1:
        return "the only order read"
    return f"not told apart from {listed(tied)}" if tied else "its interval above all others"
