"""The flow `compare`: two analysed targets, order by order."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

from prefect import flow

from featcx_core.errors import InputError
from featcx_core.specs import AnalysisSpec
from featcx_core.store import ArtifactRef, Store
from flows.results import plain
from tasks.compare import comparison
from tasks.engine import Env
from tasks.progress import counts

Networks = dict[str, dict[str, ArtifactRef | None]]


def networks_of(store: Path, a: str, b: str) -> Networks:
    """The artifacts of two runs' targets, by the keys of their reports.

    Raises:
        InputError: for keys that are no report's, or the same.
    """
    place, found = Store(store), {}
    for name, key in (("A", a), ("B", b)):
        manifest = place.resolve(key)
        if manifest["stage"] != "report":
            raise InputError(
                f"'{key}' is a {manifest['stage']}; give the keys of two reports, see `featcx artifacts list`."
            )
        stages = manifest["lineage"]["networks"]["target"]
        found[name] = {stage: None if ref is None else ArtifactRef(**ref) for stage, ref in stages.items()}
    if found["A"]["components"] == found["B"]["components"]:
        raise InputError(f"'{a}' and '{b}' analyse the same target; give the keys of two different runs.")
    orders = {name: place.manifest(refs["components"])["metrics"]["orders"] for name, refs in found.items()}  # type: ignore[arg-type]
    if orders["A"] != orders["B"]:
        raise InputError(
            f"A has the orders {orders['A']}, B {orders['B']}; compare runs with the same disentangler.blocks."
        )
    settings = [place.manifest(refs["significance"])["spec"]["settings"] for refs in found.values()]  # type: ignore[arg-type]
    if settings[0] != settings[1]:
        raise InputError("The two runs have different analysis settings; run one of them again with the other's.")
    return found


@flow(name="compare", flow_run_name="{name}", validate_parameters=False)
def compare_flow(networks: Networks, settings: AnalysisSpec, env: Env, name: str) -> ArtifactRef:
    """B against A in every metric at every order."""
    return comparison.submit(env, networks=networks, settings=settings).result()


def compare_runs(store: Path, networks: Networks) -> dict[str, Any]:
    """Runs the flow; the differences B − A, what they say, and where the figure lies."""
    import pandas as pd

    from featcx_core.comparison import changes

    place, run = Store(store), f"compare-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    env = Env(store=str(place.root), run=run)
    ref = compare_flow(networks, AnalysisSpec(), env, "B against A")
    folder = place.path(ref)
    frame = pd.read_parquet(folder / "comparison.parquet")
    rows = [{name: plain(value) for name, value in row.items()} for row in frame.to_dict("records")]
    return {
        "differences": rows,
        "readings": changes(frame, "B"),
        "figure": str(folder / "comparison.png"),
        "table": str(folder / "comparison.parquet"),
        "stages": counts(env.store, env.run),
    }
