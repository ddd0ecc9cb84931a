"""The flow `analyze`: one target, end to end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from prefect import flow

from featcx_core.specs import RunSpec
from featcx_core.store.artifacts import ArtifactRef, Store
from flows.grid import run_name
from flows.recipes import notes, whole_run
from flows.results import network_results
from flows.running.preflight import check, numerics_for
from flows.running.submitting import Submitter, new_env, nothing_left, settled, task_runner
from tasks.env import Env
from tasks.progress import counts

Refs = dict[str, dict[str, ArtifactRef | None]]


@flow(name="analyze", flow_run_name="{name}", validate_parameters=False)
def analyze_flow(spec: RunSpec, env: Env, name: str) -> dict[str, Any]:
    """Trains, disentangles, extracts, fans out the analyses, reports; whatever the store holds is not computed again."""
    return run_analysis(spec, env)


def run_analysis(spec: RunSpec, env: Env) -> dict[str, Any]:
    """The body of the flow; its results in the form of `--json`."""
    began, submit, place = time.monotonic(), Submitter(env), Store(env.store)
    recipe = whole_run(submit, spec, numerics_for(spec))
    settled(submit.futures)
    refs = {
        name: {stage: None if node is None else node.result() for stage, node in nodes.items()}
        for name, nodes in recipe.networks.items()
    }
    effort = {"seconds": round(time.monotonic() - began, 2), "stages": counts(env.store, env.run)}
    results = analysed(spec, place, refs, recipe.report.result(), effort)
    if env.shown:
        from flows.showing import show_analysis

        show_analysis(run_name(spec), results)
    return results


def analyze(spec: RunSpec, store: Path, env: Env | None = None) -> dict[str, Any]:
    """Runs the flow on the Prefect API in force and gives the results in the form of `--json`.

    Args:
        env: where it works, for a spec that has been checked; made, and the spec checked, if None.

    Raises:
        InputError: for a spec that cannot run here.
    """
    began = time.monotonic()
    if env is None:
        check(spec, store)
        env = new_env(spec, store)
    with nothing_left(Store(env.store)):
        results = analyze_flow.with_options(task_runner=task_runner(spec))(spec, env, run_name(spec))
    return results | {"seconds": round(time.monotonic() - began, 2)}


def analysed(spec: RunSpec, place: Store, refs: Refs, report: ArtifactRef, effort: dict[str, Any]) -> dict[str, Any]:
    """One analysed target and its variants in the form of `--json`; `effort` holds the seconds and stages it took."""
    networks = {name: network_results(place, nodes) for name, nodes in refs.items()}
    main = networks.pop("target")
    artifacts = {stage: str(place.path(ref)) for stage, ref in refs["target"].items() if ref is not None}
    return {
        "spec": spec.model_dump(mode="json"),
        "report": str(place.path(report) / "report.html"),
        "store": str(place.root),
        **effort,
        **main,
        "variants": {name: networks.get(name) for name in ("distilled", "pruned", "quantised")},
        "notes": notes(spec),
        "artifacts": artifacts | {"report": str(place.path(report))},
    }
