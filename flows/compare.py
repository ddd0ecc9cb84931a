"""The flow `compare`: two analysed targets, order by order."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

from prefect import flow

from featcx_core.errors import InputError
from featcx_core.specs import AnalysisSpec
from featcx_core.store.artifacts import ArtifactRef, Store
from tasks.compare import comparison
from tasks.env import Env
from tasks.frames import plain
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
def compare_flow(networks: Networks, settings: AnalysisSpec, env: Env, name: str) -> dict[str, Any]:
    """B against A in every metric at every order."""
    return run_comparison(networks, settings, env, name)


def run_comparison(networks: Networks, settings: AnalysisSpec, env: Env, name: str) -> dict[str, Any]:
    """The body of the flow: the differences B − A, what they say, and where the figure lies."""
    import pandas as pd

    from featcx_core.analysis.comparison import changes

    folder = Store(env.store).path(comparison.submit(env, networks=networks, settings=settings).result())
    frame = pd.read_parquet(folder / "comparison.parquet")
    rows = [{name: plain(value) for name, value in row.items()} for row in frame.to_dict("records")]
    results = {
        "differences": rows,
        "readings": changes(frame, "B"),
        "figure": str(folder / "comparison.png"),
        "table": str(folder / "comparison.parquet"),
        "stages": counts(env.store, env.run),
    }
    if env.shown:
        from flows.showing import show_comparison

        show_comparison(name, results)
    return results


def compare_env(store: Path, shown: bool = False) -> Env:
    """Where a comparison works."""
    run = f"compare-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    return Env(store=str(Store(store).root), run=run, shown=shown)


def compare_runs(store: Path, networks: Networks, env: Env | None = None) -> dict[str, Any]:
    """Runs the flow on the Prefect API in force and gives the results in the form of `--json`."""
    return compare_flow(networks, AnalysisSpec(), env or compare_env(store), "B against A")
