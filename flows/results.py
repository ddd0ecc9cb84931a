"""What a run found, as the JSON that `--json` writes and as the table that the terminal shows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from featcx_core.errors import InputError
from featcx_core.store import ArtifactRef, Store
from tasks.frames import read_frames

Refs = Mapping[str, ArtifactRef | None]


def network_results(store: Store, refs: Refs) -> dict[str, Any]:
    """One analysed network: its scores, a row an order, the order chosen for substitution."""
    frames = read_frames(refs, store.path)
    target, significance, substitution = refs["target"], refs["significance"], refs["substitution"]
    assert target is not None
    assert significance is not None
    assert substitution is not None
    stored = json.loads((store.path(target) / "scores.json").read_text())
    scores = stored["scores"]
    scores["feature_variance"] = store.manifest(significance)["metrics"]["feature_variance"]
    chosen = json.loads((store.path(substitution) / "chosen.json").read_text())
    found = {"target": scores, "orders": order_rows(frames), **chosen}
    if "size" in stored:
        found["size"] = stored["size"]
    if control := refs.get("control"):
        found["control"] = json.loads((store.path(control) / "chosen.json").read_text())
    return found


def order_rows(frames: Mapping[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """One object an order, as DESIGN's contract names the fields; None where an analysis is missing."""
    tables = {
        name: frames[name].set_index("order") for name in frames if "order" in frames[name] and name != "decodability"
    }
    if "decodability" in frames:
        frame = frames["decodability"]
        tables["decodability"] = frame[frame.quantity == "component"].set_index("order")
    rows = []
    for order in tables["significance"].index:

        def read(table: str, column: str, order: int = order) -> Any:
            return plain(tables[table].at[order, column]) if table in tables else None

        def ends(table: str, column: str) -> list[Any]:
            return [read(table, f"{column}_{end}") for end in ("low", "high")]

        rows.append(
            {
                "order": int(order),
                "blocks": read("significance", "blocks"),
                "significance": read("significance", "significance"),
                "significance_ci": ends("significance", "significance"),
                "residual": read("significance", "residual"),
                "residual_rises": read("significance", "residual_rises"),
                "reliability": read("reliability", "reliability"),
                "effectiveness": read("effectiveness", "effectiveness"),
                "effectiveness_ci": ends("effectiveness", "effectiveness"),
                "overfitting": read("effectiveness", "overfitting"),
                "overfitting_ci": ends("effectiveness", "overfitting"),
                "overfitting_stable": read("effectiveness", "overfitting_stable"),
                "shapley_train": read("effectiveness", "shapley_train"),
                "shapley_overfit": read("effectiveness", "shapley_overfit"),
                "substituted_accuracy": read("substitution", "substituted_accuracy"),
                "decodability": read("decodability", "decodability"),
                "decodability_ci": ends("decodability", "decodability"),
                "decodability_floor": read("decodability", "floor"),
                "reliable_share": read("reliability", "reliable_share"),
                "unreliable_share": read("reliability", "unreliable_share"),
                "fit": read("reliability", "fit"),
                "shrinkage": read("reliability", "shrinkage"),
            }
        )
    return rows


def plain(value: Any) -> Any:
    """A NumPy scalar as Python's own; NaN and infinities, which JSON lacks, as None."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Writes JSON with None for what is unknown."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_table(path: Path) -> pd.DataFrame:
    """A CSV or Parquet table.

    Raises:
        InputError: when it is missing or neither.
    """
    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except FileNotFoundError:
        raise InputError(f"There is no table {path}; give a CSV or Parquet file.") from None
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as {path.suffix or 'CSV'} ({error}); give CSV or Parquet.") from error
