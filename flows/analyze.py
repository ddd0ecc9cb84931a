"""The flow `analyze`: one target, end to end."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.futures import PrefectFuture, wait
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from featcx_core.specs import RunSpec
from featcx_core.store import ArtifactRef, Store
from flows.preflight import check, numerics_for
from flows.recipes import notes, whole_run
from flows.results import network_results
from tasks.devices import devices
from tasks.engine import Env
from tasks.progress import counts

Refs = dict[str, dict[str, ArtifactRef | None]]


def run_name(spec: RunSpec) -> str:
    """What runs, in a few letters: resnet8-n200-s0."""
    return f"{spec.target.net.replace(':', '.')}-n{spec.target.samples}-s{spec.seed}"


def new_env(spec: RunSpec, store: Path) -> Env:
    """Where this run works."""
    run = time.strftime("%Y%m%d-%H%M%S-") + uuid.uuid4().hex[:6]
    runtime = spec.runtime
    return Env(
        store=str(store.absolute()),
        run=run,
        device=runtime.device,
        threads=runtime.threads,
        exclusive=runtime.runner != "ray",
    )


@flow(name="analyze", flow_run_name="{name}", validate_parameters=False)
def analyze_flow(spec: RunSpec, env: Env, name: str) -> tuple[Refs, ArtifactRef]:
    """Trains, disentangles, extracts, fans out the analyses, reports; whatever the store holds is not computed again."""

    def submit(stage: Any, scope: str = "", **arguments: Any) -> PrefectFuture[ArtifactRef]:
        submitted.append(stage.submit(env, scope, **arguments))
        return submitted[-1]

    submitted: list[PrefectFuture[ArtifactRef]] = []
    recipe = whole_run(submit, spec, numerics_for(spec))
    settled(submitted)
    refs = {
        name: {stage: None if node is None else node.result() for stage, node in nodes.items()}
        for name, nodes in recipe.networks.items()
    }
    return refs, recipe.report.result()


def settled(futures: list[PrefectFuture[ArtifactRef]]) -> None:
    """Waits for all; raises the error of the first that failed, not of one that only waited for it."""
    wait(futures)
    for future in futures:
        if future.state.is_failed() or future.state.is_crashed():
            future.result()


def analyze(spec: RunSpec, store: Path, env: Env | None = None) -> dict[str, Any]:
    """Runs the flow on the Prefect API in force and gives the results in the form of `--json`.

    Raises:
        InputError: for a spec that cannot run here.
    """
    began = time.monotonic()
    check(spec, store)
    env = env or new_env(spec, store)
    runner = task_runner(spec)
    refs, report = analyze_flow.with_options(task_runner=runner)(spec, env, run_name(spec))
    place = Store(env.store)
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
        "variants": networks,
        "notes": notes(spec),
        "artifacts": artifacts | {"report": str(place.path(report))},
    }


def task_runner(spec: RunSpec) -> TaskRunner[Any]:
    """The Prefect runner that the spec names."""
    runtime = spec.runtime
    if runtime.runner == "processes":
        return ProcessPoolTaskRunner(max_workers=len(devices(runtime.device, runtime.threads)))
    if runtime.runner == "ray":
        import os

        from prefect_ray import RayTaskRunner

        # RAY_ADDRESS names a cluster; without it Ray starts on this machine.
        return RayTaskRunner(address=os.environ.get("RAY_ADDRESS"), init_kwargs={"include_dashboard": False})
    # Unbounded: a task that waits for its inputs holds a thread, so a bound could block the DAG. Devices are leased.
    return ThreadPoolTaskRunner(max_workers=10_000)
