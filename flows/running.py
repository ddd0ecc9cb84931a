"""What every flow needs to run a recipe: where it works, what executes its tasks, and the futures of what it submitted."""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefect.futures import PrefectFuture, wait
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from featcx_core.errors import InputError
from featcx_core.specs import RunSpec
from featcx_core.store import ArtifactRef, Store
from tasks.devices import devices
from tasks.engine import Env, Stage


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


@contextlib.contextmanager
def nothing_left(store: Store) -> Iterator[None]:
    """Removes the store's folder again when bad input ends a run that made it, before it held an artifact."""
    there = store.root.exists()
    try:
        yield
    except InputError:
        if not there and not store.manifests():
            shutil.rmtree(store.root, ignore_errors=True)
        raise


class Submitter:
    """Hands a recipe's stages to Prefect and keeps their futures."""

    def __init__(self, env: Env) -> None:
        self.env, self.futures = env, list[PrefectFuture[ArtifactRef]]()

    def __call__(self, stage: Stage, scope: str = "", **arguments: Any) -> PrefectFuture[ArtifactRef]:
        self.futures.append(stage.submit(self.env, scope, **arguments))
        return self.futures[-1]


def settled(futures: list[PrefectFuture[ArtifactRef]]) -> None:
    """Waits for all; raises the error of the first that failed, not of one that only waited for it."""
    wait(futures)
    for future in futures:
        if future.state.is_failed() or future.state.is_crashed():
            future.result()


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
