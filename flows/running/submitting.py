"""What every flow needs to run a recipe: where it works, what executes its tasks, and the futures of what it submitted."""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from prefect.exceptions import UpstreamTaskError
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from featcx_core.errors import InputError
from featcx_core.specs import RuntimeSpec
from featcx_core.store.artifacts import ArtifactRef, Store
from tasks.cached import submit
from tasks.devices import devices
from tasks.engine import Stage
from tasks.env import Env


class Placed(Protocol):
    """What says where it works, as every spec of a flow does."""

    @property
    def runtime(self) -> RuntimeSpec: ...


def new_env(spec: Placed, store: Path, shown: bool = False) -> Env:
    """Where this run works; `shown`: leave artifacts in the UI of a server of the user's own."""
    run = time.strftime("%Y%m%d-%H%M%S-") + uuid.uuid4().hex[:6]
    runtime = spec.runtime
    return Env(
        store=str(store.absolute()),
        run=run,
        device=runtime.device,
        threads=runtime.threads,
        exclusive=runtime.runner != "ray",
        shown=shown,
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
    """Hands a recipe's stages to Prefect and keeps their futures, each with those that it waits for.

    While there is one, nothing that its run has found or made is pruned.
    """

    def __init__(self, env: Env) -> None:
        self.env, self.futures = env, list[PrefectFuture[ArtifactRef]]()
        self.lease = Store(env.store).lease(env.run)
        self.inputs: dict[int, list[PrefectFuture[ArtifactRef]]] = {}

    def __call__(self, stage: Stage, scope: str = "", **arguments: Any) -> PrefectFuture[ArtifactRef]:
        future = submit(stage, self.env.model_copy(update={"turn": len(self.futures)}), scope, **arguments)
        self.futures.append(future)
        self.inputs[id(future)] = list(_futures(arguments))
        return future

    def failure(self, future: PrefectFuture[ArtifactRef]) -> Exception | None:
        """Why a finished future has no result: its own error, or that of the input that kept it from running."""
        if future.state.is_completed():
            return None
        if future.state.is_failed() or future.state.is_crashed():
            try:
                future.result()
            except Exception as error:
                return error
        return next(filter(None, map(self.failure, self.inputs[id(future)])), None)


def _futures(value: Any) -> Iterator[PrefectFuture[ArtifactRef]]:
    if isinstance(value, PrefectFuture):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for entry in value.values() if isinstance(value, Mapping) else value:
            yield from _futures(entry)


def finished(futures: list[PrefectFuture[ArtifactRef]]) -> None:
    """Waits for all. Of a stage that never ran since its input failed, the pool of processes raises; others do not."""
    for future in futures:
        with contextlib.suppress(UpstreamTaskError):
            future.wait()


def settled(futures: list[PrefectFuture[ArtifactRef]]) -> None:
    """Waits for all; raises the error of the first that failed, not of one that only waited for it."""
    finished(futures)
    for future in futures:
        if future.state.is_failed() or future.state.is_crashed():
            future.result()


def task_runner(spec: Placed) -> TaskRunner[Any]:
    """The Prefect runner that the spec names."""
    runtime = spec.runtime
    if runtime.runner == "processes":
        from flows.running.processes import ProcessPool

        return ProcessPool(max_workers=len(devices(runtime.device, runtime.threads)))
    if runtime.runner == "ray":
        import os

        from prefect_ray import RayTaskRunner

        # RAY_ADDRESS names a cluster; without it Ray starts on this machine.
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        return RayTaskRunner(address=os.environ.get("RAY_ADDRESS"), init_kwargs=quiet)
    # Unbounded: a task that waits for its inputs holds a thread, so a bound could block the DAG. Devices are leased.
    return ThreadPoolTaskRunner(max_workers=10_000)
