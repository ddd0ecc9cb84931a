"""The flow `analyze`: one target, end to end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from prefect import flow

from featcx_core.specs import RunSpec
from featcx_core.store import ArtifactRef, Store
from flows.preflight import check, numerics_for
from flows.recipes import notes, whole_run
from flows.results import network_results
from flows.running import Submitter, new_env, nothing_left, settled, task_runner
from tasks.engine import Env
from tasks.progress import counts

Refs = dict[str, dict[str, ArtifactRef | None]]


def run_name(spec: RunSpec) -> str:
    """What runs, in a few letters: resnet8-n200-s0."""
    return f"{spec.target.net.replace(':', '.')}-n{spec.target.samples}-s{spec.seed}"


@flow(name="analyze", flow_run_name="{name}", validate_parameters=False)
def analyze_flow(spec: RunSpec, env: Env, name: str) -> tuple[Refs, ArtifactRef]:
    """Trains, disentangles, extracts, fans out the analyses, reports; whatever the store holds is not computed again."""
    submit = Submitter(env)
    recipe = whole_run(submit, spec, numerics_for(spec))
    settled(submit.futures)
    refs = {
        name: {stage: None if node is None else node.result() for stage, node in nodes.items()}
        for name, nodes in recipe.networks.items()
    }
    return refs, recipe.report.result()


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
    place = Store(env.store)
    with nothing_left(place):
        refs, report = analyze_flow.with_options(task_runner=task_runner(spec))(spec, env, run_name(spec))
    networks = {name: network_results(place, nodes) for name, nodes in refs.items()}
    main = networks.pop("target")
    artifacts = {stage: str(place.path(ref)) for stage, ref in refs["target"].items() if ref is not None}
    return {
        "spec": spec.model_dump(mode="json"),
        "report": str(place.path(report) / "report.html"),
        "store": str(place.root),
        "seconds": round(time.monotonic() - began, 2),
        "stages": counts(env.store, env.run),
        **main,
        "variants": {name: networks.get(name) for name in ("distilled", "pruned", "quantised")},
        "notes": notes(spec),
        "artifacts": artifacts | {"report": str(place.path(report))},
    }
