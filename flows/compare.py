"""The flow `compare`: two analysed targets, order by order."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from featcx_core.errors import InputError
from featcx_core.report.frames import plain
from featcx_core.specs import AnalysisSpec, RuntimeSpec
from featcx_core.store.artifacts import ArtifactRef, Store
from featcx_core.store.record import Record
from featcx_core.store.trust import as_written
from flows.job import Job
from flows.recipes import Node, Submit
from flows.running.submitting import submitter
from flows.showing import show_comparison
from tasks.compare import comparison
from tasks.env import Env, opened

Networks = dict[str, dict[str, ArtifactRef | None]]


@as_written("One of the two runs")
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


class Pair(NamedTuple):
    """Two runs' targets to compare: the keys that were given, and what they stand for."""

    a: str
    b: str
    networks: Networks
    settings: AnalysisSpec = AnalysisSpec()
    runtime: RuntimeSpec = RuntimeSpec()


def pair(store: Path, a: str, b: str) -> Pair:
    """The two runs with these keys, see `networks_of`."""
    return Pair(a, b, networks_of(store, a, b))


def stages(submit: Submit, given: Pair) -> Node:
    """The DAG: a single stage."""
    return submit(comparison, networks=given.networks, settings=given.settings)


def run_comparison(given: Pair, env: Env) -> dict[str, Any]:
    """The body of the flow: the differences B − A at every order, what they say, and where the figure lies."""

    from featcx_core.analysis.comparison import changes

    submit = submitter(env)
    folder = opened(env).path(stages(submit, given).result())
    frame = Record.load(folder).frames["comparison"]
    rows = [{name: plain(value) for name, value in row.items()} for row in frame.to_dict("records")]
    return {
        "differences": rows,
        "readings": changes(frame, "B"),
        "figure": str(folder / "comparison.png"),
        "table": str(folder / "comparison.parquet"),
        "stages": submit.counts(),
    }


def pair_name(given: Pair) -> str:
    """What runs: the keys as they begin."""
    return f"{given.b[:12]} against {given.a[:12]}"


def check_pair(given: Pair, store: Path) -> None:
    """A pair that was found can be compared."""


compare: Job[Pair] = Job("compare", pair_name, check_pair, stages, run_comparison, show_comparison)
