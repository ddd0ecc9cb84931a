"""What every flow needs to run a recipe: where it works, what executes its tasks, and the futures of what it submitted."""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from prefect.exceptions import UpstreamTaskError
from prefect.futures import PrefectFuture
from prefect.states import Completed, State
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from featcx_core.errors import InputError
from featcx_core.specs import RuntimeSpec
from featcx_core.store.artifacts import ArtifactRef, Store
from flows.running.here import resolved
from tasks.cached import submit
from tasks.devices import devices
from tasks.engine import Stage, defaults
from tasks.env import Env
from tasks.progress import counts


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
        per_gpu=runtime.per_gpu,
        exclusive=runtime.runner != "ray",
        shown=shown,
        remote=runtime.remote,
        read_only=runtime.remote_read_only,
        patient=runtime.wait,
        scattered=runtime.runner == "ray" and bool(runtime.remote) and not runtime.remote_read_only,
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


def submitter(env: Env) -> Submitter | Reader:
    """What takes a recipe's stages: hands them to Prefect, or only finds them where the store cannot be written."""
    return Submitter(env) if Store(env.store).can_be_written else Reader(env)


class Submitter:
    """Hands a recipe's stages to Prefect and keeps their futures, each with those that it waits for.

    While there is one, nothing that its run has found or made is pruned.
    """

    def __init__(self, env: Env) -> None:
        self.env, self.futures = env, list[PrefectFuture[ArtifactRef]]()
        self.lease = Store(env.store).lease(env.run)
        self.inputs: dict[int, list[PrefectFuture[ArtifactRef]]] = {}
        self.labels = list[str]()

    def __call__(self, stage: Stage, scope: str = "", **arguments: Any) -> PrefectFuture[ArtifactRef]:
        future = submit(stage, self.env.model_copy(update={"turn": len(self.futures)}), scope, **arguments)
        self.futures.append(future)
        self.labels.append(stage.describe(arguments, scope))
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

    def counts(self, scope: str = "") -> dict[str, int]:
        """How many stages the run computed and found; of those whose label begins with `scope`."""
        if self.env.scattered:  # the notes lie where the stages ran
            names = [
                f.state.name for f, label in zip(self.futures, self.labels, strict=True) if label.startswith(scope)
            ]
            return {"run": names.count("Completed"), "cached": names.count("Cached")}
        return counts(self.env.store, self.env.run, scope)


class Found(NamedTuple):
    """Stands for the future of a stage that is there."""

    ref: ArtifactRef
    label: str
    state: State[Any] = Completed()

    def result(self) -> ArtifactRef:
        """Its artifact."""
        return self.ref

    def wait(self) -> None:
        """There is nothing to wait for."""


class Reader:
    """Finds a recipe's stages in a store that cannot be written; nothing is computed, noted, locked or pruned there."""

    def __init__(self, env: Env) -> None:
        self.store, self.futures = Store(env.store), list[Any]()

    def __call__(self, stage: Stage, scope: str = "", **arguments: Any) -> Any:
        arguments = resolved(defaults(stage.body) | arguments, Found)
        ref, label = self.store.find(stage.name, stage.key(arguments), remember=False), stage.describe(arguments, scope)
        if ref is None:
            raise InputError(
                f"The store {self.store.root} cannot be written, and {label} is not in it; make it writable, or "
                "choose another folder with --store."
            )
        self.futures.append(Found(ref, label))
        return self.futures[-1]

    def failure(self, future: Any) -> Exception | None:
        """Nothing fails that is there."""
        return None

    def counts(self, scope: str = "") -> dict[str, int]:
        """How many stages were found; of those whose label begins with `scope`."""
        return {"run": 0, "cached": len({f.ref.path for f in self.futures if f.label.startswith(scope)})}


def is_there(stages: Callable[[Reader], object], store: Path) -> bool:
    """Whether a store holds all of a recipe."""
    try:
        stages(Reader(Env(store=str(store), run="")))
    except InputError:
        return False
    return True


def _futures(value: Any) -> Iterator[PrefectFuture[ArtifactRef]]:
    if isinstance(value, PrefectFuture):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for entry in value.values() if isinstance(value, Mapping) else value:
            yield from _futures(entry)


def finished(futures: Sequence[PrefectFuture[ArtifactRef]]) -> None:
    """Waits for all. Of a stage that never ran since its input failed, the pool of processes raises; others do not."""
    for future in futures:
        with contextlib.suppress(UpstreamTaskError):
            future.wait()


def has_computed(submit: Submitter | Reader, last: PrefectFuture[ArtifactRef]) -> bool:
    """Whether the run has had to compute anything, as soon as that is known: at the latest when its last stage has ended.

    A last stage that never ran, since an input of it failed, has no final state: Prefect calls it not ready.
    """
    pace = 0.2  # seconds between two questions, which a server is asked
    while not submit.counts()["run"]:
        try:
            last.wait(timeout=pace)
        except UpstreamTaskError:
            return False
        if last.state.is_final() or last.state.name == "NotReady":
            return False
        pace = min(2 * pace, 5.0)
    return True


def settled(futures: Sequence[PrefectFuture[ArtifactRef]]) -> None:
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

        return ProcessPool(max_workers=len(devices(runtime)))
    if runtime.runner == "ray":
        import os

        from prefect_ray import RayTaskRunner

        # RAY_ADDRESS names a cluster; without it Ray starts on this machine.
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        return RayTaskRunner(address=os.environ.get("RAY_ADDRESS"), init_kwargs=quiet)
    # Unbounded: a task that waits for its inputs holds a thread, so a bound could block the DAG. Devices are leased.
    return ThreadPoolTaskRunner(max_workers=10_000)
