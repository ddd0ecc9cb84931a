"""What a run found, as the JSON that `--json` writes and as the table that the terminal shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from featcx_core.errors import InputError
from featcx_core.report.frames import order_rows, read_frames, row_of
from featcx_core.store.artifacts import ArtifactRef, Store
from featcx_core.store.record import Record

Refs = Mapping[str, ArtifactRef | None]


def network_results(store: Store, refs: Refs) -> dict[str, Any]:
    """One analysed network: its scores, a row an order, the order chosen for substitution."""
    frames = read_frames(refs, store.tables)
    target, significance, substitution = refs["target"], refs["significance"], refs["substitution"]
    assert target is not None
    assert significance is not None
    assert substitution is not None
    stored = Record.load(store.tables(target)).numbers
    scores = stored["scores"] | Record.load(store.tables(significance)).numbers
    found = {"target": scores, "orders": order_rows(frames), **Record.load(store.tables(substitution)).numbers}
    if "size" in stored:
        found["size"] = stored["size"]
    found["wide_control"] = row_of(frames["wide_control"]) if "wide_control" in frames else None
    found["images"] = row_of(frames["image_ranks"]) if "image_ranks" in frames else None
    if control := refs.get("control"):
        found["control"] = Record.load(store.tables(control)).numbers
    return found


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
