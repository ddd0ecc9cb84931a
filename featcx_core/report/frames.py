"""The tidy tables of an analysed network, gathered from its artifacts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featcx_core.metrics import METRICS
from featcx_core.store.artifacts import ArtifactRef, Store
from featcx_core.store.record import Record
from featcx_core.wording import UNRESOLVED

if TYPE_CHECKING:
    import pandas as pd

# What the control's substitution is called beside the target's own.
CONTROL = {"substitution": "control", "gain": "control_gain"}


def read_frames(refs: Mapping[str, ArtifactRef | None], path: Callable[[ArtifactRef], Path]) -> dict[str, pd.DataFrame]:
    """The tables that exist, by name; `path` finds an artifact's folder. An order's metrics carry whether it is resolved."""
    found = {stage: Record.load(path(ref)).frames for stage, ref in refs.items() if ref is not None}
    control = found.pop("control", {})
    frames = {name: frame for tables in found.values() for name, frame in tables.items()}
    frames |= {name: control[own] for own, name in CONTROL.items() if own in control}
    return with_resolved(frames)


def with_resolved(frames: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The frames, those of an order's or a pair of orders' metrics with `resolved`: what significance tells of the orders.

    A pair is as resolved as the less resolved of its orders; Φ and f are no components, and are not asked.
    """
    if "significance" not in frames or "resolved" not in frames["significance"]:
        return frames
    told = frames["significance"].set_index("order")["resolved"]
    found = dict(frames)
    for name in {"reliability", "decodability", "effectiveness", "interactions", "substitution", "image_orders"} & set(
        frames
    ):
        frame, orders = frames[name], ("a", "b") if name == "interactions" else ("order",)
        parts = [frame[order].map(told) for order in orders]
        resolved = parts[0] if len(parts) == 1 else parts[0].where(parts[0].isin(UNRESOLVED), parts[1])
        if "quantity" in frame:
            resolved = resolved.where(frame["quantity"] == "component", None)
        found[name] = frame.assign(resolved=resolved.astype(object).where(resolved.notna(), None))
    return found


def order_rows(frames: Mapping[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """One object an order, as DESIGN's contract names the fields; None where an analysis is missing."""
    tables = {
        name: frames[name].set_index("order") for name in frames if "order" in frames[name] and name != "decodability"
    }
    if "decodability" in frames:
        frame = frames["decodability"]
        tables["decodability"] = frame[frame.quantity == "component"].set_index("order")
    return [_row(tables, order) for order in tables["significance"].index]


def _row(tables: Mapping[str, pd.DataFrame], order: int) -> dict[str, Any]:
    row: dict[str, Any] = {"order": int(order)}
    for metric in METRICS:
        if metric.told:
            columns = [metric.source, *(f"{metric.source}_{end}" for end in ("low", "high") if metric.interval)]
            table = tables.get(metric.frame)
            own: Any = {} if table is None else table.loc[order]
            row[metric.name], *ends = [plain(own[name]) if name in own else None for name in columns]
            row |= {f"{metric.name}_ci": ends} if ends else {}
    return row


def row_of(frame: pd.DataFrame) -> dict[str, Any]:
    """The frame's one row, the ends of an interval as `x_ci`."""
    row = {str(name): plain(value) for name, value in frame.to_dict("records")[0].items()}
    ends = [name.removesuffix("_low") for name in row if name.endswith("_low")]
    pairs = {f"{name}_ci": [row.pop(f"{name}_low"), row.pop(f"{name}_high")] for name in ends}
    return row | pairs


def plain(value: Any) -> Any:
    """A NumPy scalar as Python's own; NaN and infinities, which JSON lacks, as None."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def target_rows(refs: Mapping[str, ArtifactRef | None], store: Store) -> list[dict[str, Any]]:
    """A row an order as `order_rows` gives it, intervals as two columns, with what is known of the target on each row."""
    path = store.path
    frames = read_frames(refs, path)
    target, significance, substitution = refs["target"], refs["significance"], refs["substitution"]
    assert target is not None
    assert significance is not None
    assert substitution is not None
    scores = dict(Record.load(path(target)).numbers["scores"])
    chosen = Record.load(path(substitution)).numbers
    gain = {f"gain{end}": chosen["gain"][name] for end, name in (("", "gain"), ("_low", "low"), ("_high", "high"))}
    scores["feature_variance"] = Record.load(path(significance)).numbers["feature_variance"]
    own = scores | gain | {"chosen_order": chosen["chosen_order"]}
    rows = [_flat(row) for row in order_rows(frames)]
    for row in rows:  # beside the gain in accuracy of the order chosen for substitution
        row |= {f"order_{name}": row.pop(name) for name in ("gain", "gain_low", "gain_high")}
    return [row | own | {"chosen": row["order"] == chosen["chosen_order"]} for row in rows]


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """`x_ci: [low, high]` as x_low and x_high."""
    ends = {
        f"{name[:-3]}_{end}": value
        for name, pair in row.items()
        if name.endswith("_ci")
        for end, value in zip(("low", "high"), pair, strict=True)
    }
    return {name: value for name, value in row.items() if not name.endswith("_ci")} | ends
