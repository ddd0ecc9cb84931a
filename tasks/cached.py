"""A stage as a cached Prefect task.

The store is the truth: Prefect's own record of a stage is made anew from it each time that Prefect asks.
"""

from __future__ import annotations

import functools
import inspect
import os
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import Task
from prefect._internal.result_records import ResultRecord, ResultRecordMetadata
from prefect.cache_policies import CachePolicy
from prefect.serializers import JSONSerializer

from featcx_core.store.artifacts import ArtifactRef, Store
from featcx_core.store.trust import inside
from tasks.devices import placement
from tasks.engine import Stage, execute, stage_of
from tasks.env import Env, on_this_node, opened
from tasks.progress import Progress

if TYPE_CHECKING:
    from prefect.futures import PrefectFuture


def submit(stage: Stage, env: Env, scope: str = "", **arguments: Any) -> PrefectFuture[ArtifactRef]:
    """Has the stage's task run when its inputs exist; the future of its reference."""
    env = env.model_copy(update={"scope": scope})
    name = stage.describe(arguments, scope).replace("{", "(").replace("}", ")")
    task = task_of(stage).with_options(task_run_name=name, result_storage=records(env))
    with placement(env, stage.computes, ray=not env.exclusive):
        return task.submit(env=env, **arguments)


@functools.cache
def task_of(stage: Stage) -> Task[..., ArtifactRef]:
    """The Prefect task of a stage, which finds the stage by name wherever it runs."""
    body, module, name = stage.body, stage.body.__module__, stage.name

    def run(*, env: Env, **arguments: Any) -> ArtifactRef:
        return execute(stage_of(module, name), arguments, env)

    own = list(inspect.signature(body).parameters.values())[1:]
    env = inspect.Parameter("env", inspect.Parameter.KEYWORD_ONLY, annotation=Env)
    run.__name__, run.__qualname__, run.__doc__ = body.__name__, body.__qualname__, body.__doc__
    run.__signature__ = inspect.Signature([env, *own])  # type: ignore[attr-defined]
    run.__annotations__ = {}
    return Task(
        run,
        name=name,
        cache_policy=StoreCache(stage=name, module=module),
        persist_result=True,
        result_serializer="json",
        log_prints=False,
    )


@dataclass
class StoreCache(CachePolicy):
    """Prefect's record of a stage is made anew from the store each time: it counts while the payload is there whole."""

    stage: str = ""
    module: str = ""

    def compute_key(
        self, task_ctx: Any, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        """The stage's name and key, which is also the record's file name."""
        stage, env = stage_of(self.module, self.stage), inputs["env"]
        arguments = {name: value for name, value in inputs.items() if name != "env"}
        env = on_this_node(env)
        key, store = stage.key(arguments), opened(env)
        progress = Progress(env, stage.name, key, stage.describe(arguments, env.scope))
        progress.note("waiting")  # before it looks: what a run has noted is not pruned
        found = store.find(stage.name, key)
        write_record(records(env), f"{stage.name}-{key}", found)
        if found is not None:
            progress.finish(computed=False)
        return f"{stage.name}-{key}"


def records(env: Env) -> Path:
    """The folder of Prefect's own records, which are made anew each time: one that is the same on all machines of a run."""
    if not env.scattered:
        folder = inside(Store(env.store).root, ".prefect", "results")
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    folder = Path(tempfile.gettempdir()) / f"featcx-records-{env.run}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} is somebody else's, who could have Prefect read what they like")
    return folder


def write_record(folder: Path, name: str, found: ArtifactRef | None) -> None:
    """Has Prefect's record say what the store says, whatever stood there: one from a stranger could name a serializer that
    runs code, and Prefect would use it. Where there is no artifact there is no record.
    """
    path = folder / name
    if found is None:
        path.unlink(missing_ok=True)
        return
    about = ResultRecordMetadata(serializer=JSONSerializer(), storage_key=str(path))
    fresh = path.with_name(f"{name}.{uuid.uuid4().hex[:8]}")
    fresh.write_bytes(ResultRecord(result=found, metadata=about).serialize())
    fresh.rename(path)
