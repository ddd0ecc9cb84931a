"""The tidy tables of an analysed network, gathered from its artifacts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from featcx_core.store import ArtifactRef

if TYPE_CHECKING:
    import pandas as pd

# frame → (stage, file)
FRAMES = {
    "significance": ("significance", "orders"),
    "splits": ("significance", "splits"),
    "covariance": ("significance", "covariance"),
    "effectiveness": ("effectiveness", "orders"),
    "interactions": ("effectiveness", "interactions"),
    "substitution": ("substitution", "orders"),
    "substitution_splits": ("substitution", "splits"),
    "reliability": ("reliability", "orders"),
    "decodability": ("decodability", "orders"),
    "comparison": ("comparison", "comparison"),
    "control": ("control", "orders"),
    "gain": ("substitution", "gain"),
    "control_gain": ("control", "gain"),
}


def read_frames(refs: Mapping[str, ArtifactRef | None], path: Callable[[ArtifactRef], Path]) -> dict[str, pd.DataFrame]:
    """The tables that exist, by name; `path` finds an artifact's folder."""
    import pandas as pd

    return {
        name: pd.read_parquet(path(ref) / f"{file}.parquet")
        for name, (stage, file) in FRAMES.items()
        if (ref := refs.get(stage)) is not None
    }
