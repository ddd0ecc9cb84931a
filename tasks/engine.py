"""What makes a stage of a body: its key, and computing and publishing its artifact. Prefect is not needed (`cached.py`).

A body is a function `body(work, *, …)`: its keyword arguments are settings and `ArtifactRef`s, and it fills `work.folder`.
The settings, the digests of the references and the version of the code that the body imports make the key.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import logging
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from featcx_core.store.artifacts import ArtifactRef, FileRef, Store, references
from featcx_core.store.code import CodeVersion, code_version
from featcx_core.store.keys import artifact_key, digest
from featcx_core.store.record import Record
from tasks.devices import Place, settled_allocator
from tasks.env import Env, on_this_node, opened
from tasks.progress import Progress

if TYPE_CHECKING:
    import torch

    from featcx_core.specs import Numerics
    from featcx_core.training.fit import Training

Body = Callable[..., dict[str, Any]]

log = logging.getLogger(__name__)


@dataclass
class Work:
    """What a body works with: the folder to fill, its device, and ways to reach inputs, seeds and the reader.

    A body whose rest computes on the CPU says so by `leave_gpu`, so that others can have its GPU.
    """

    folder: Path
    store: Store
    device: torch.device
    progress: Progress
    key: str
    stage: str
    checkpoint_seconds: float
    leave_gpu: Callable[[], None]
    remarks: list[str] = field(default_factory=list)

    def path(self, ref: ArtifactRef) -> Path:
        """The folder of an input."""
        return self.store.path(ref)

    def record(self, ref: ArtifactRef) -> Record:
        """What an input's stage found."""
        return Record.load(self.path(ref))

    def checkpoint(self) -> Any:
        """Where a training saves itself and resumes from; removed when the stage is published."""
        from featcx_core.training.checkpoint import Checkpoint

        folder = checkpoint_folder(self.store, self.stage, self.key)
        return Checkpoint(folder, self.key, self.checkpoint_seconds)

    def training(self, seed: int, numerics: Numerics) -> Training:
        """How a body's training runs: it saves itself and tells the reader of its progress."""
        told: Training = {"on_step": self.progress.step, "on_remark": self.remark}
        return {"seed": seed, "numerics": numerics, "checkpoint": self.checkpoint(), **told}

    def remark(self, text: str) -> None:
        """Something that went wrong and was mended: the log, the manifest and the report tell of it."""
        self.remarks.append(text)
        log.warning("%s %s.", self.progress.label, text)


def checkpoint_folder(store: Store, stage: str, key: str) -> Path:
    """The folder of a stage's checkpoint."""
    return store.root / ".checkpoints" / f"{stage}-{key}"


STAGES: dict[str, Stage] = {}


def stage_of(module: str, name: str) -> Stage:
    """The stage that a module declares. Processes find it so, by name: a stage that travelled would have lost its file."""
    importlib.import_module(module)
    return STAGES[name]


class Stage:
    """A stage of the DAG: a body and its key.

    Args:
        body: see the module's text.
        name: folder of its artifacts.
        label: says which one this is, from the arguments: 'm{blocks}'.
        computes: whether it needs a device.
        version: declares edits harmless: code of a version that starts with these twelve digits counts as another version.
            The next edit makes a version that is not in the table, so a declaration never outlives what it was made for.
    """

    def __init__(
        self, body: Body, name: str, label: str, computes: bool, version: Mapping[str, str] | None = None
    ) -> None:
        self.body, self.name, self.label, self.computes, self.version = body, name, label, computes, version or {}
        STAGES[name] = self

    def key(self, arguments: dict[str, Any]) -> str:
        """The artifact's key for these arguments, references resolved."""
        parts = self.key_parts(arguments)
        return artifact_key(self.name, parts["spec"], parts["inputs"], parts["code"])

    def key_parts(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """What goes into the key: spec, digests of the inputs, code version; and what that is made of."""
        inputs = {name: _digest(value) for name, value in arguments.items() if _has_refs(value)}
        spec = {name: _jsonable(value) for name, value in arguments.items() if name not in inputs}
        code = _code(self.body)
        version = self.version.get(code.digest[:12], code.digest)
        return {"spec": spec, "inputs": inputs, "code": version, "modules": code.modules}

    def describe(self, arguments: dict[str, Any], scope: str = "") -> str:
        """Scope, name and label: 'pruned disentangler m4'."""
        return f"{scope} {self.name} {self.label.format(**arguments)}".replace("n=None", "whole pool").strip()


@functools.cache
def defaults(body: Callable[..., Any]) -> dict[str, Any]:
    """The arguments that a stage need not be given."""
    given = inspect.signature(body).parameters.values()
    return {p.name: p.default for p in given if p.default is not inspect.Parameter.empty}


def stage(
    name: str, *, label: str = "", computes: bool = True, version: Mapping[str, str] | None = None
) -> Callable[[Body], Stage]:
    """Declares a function as the body of a stage."""
    return lambda body: Stage(body, name, label, computes, version)


def execute(stage: Stage, arguments: dict[str, Any], env: Env) -> ArtifactRef:
    """Computes and publishes a stage's artifact, unless someone else has while this one waited for its key."""
    env = on_this_node(env)
    store, key = opened(env), stage.key(arguments)
    progress = Progress(env, stage.name, key, stage.describe(arguments, env.scope))
    progress.note("waiting")
    inputs = references(_jsonable(arguments))
    with store.lock(stage.name, key), contextlib.ExitStack() as stack:
        found = store.find(stage.name, key)
        if found is not None:
            progress.finish(computed=False)
            return found
        place = stack.enter_context(Place(env)) if stage.computes else None
        progress.note("running")

        def fill(folder: Path) -> dict[str, Any]:
            all_whole(store, inputs)
            manifest = _fill(stage, arguments, env, store, key, place, progress, folder)
            all_whole(store, inputs)  # what it read it read whole
            return manifest

        try:
            ref = store.publish(stage.name, key, fill)
        except BaseException as error:
            progress.fail(error)
            raise
        _remove_checkpoint(store, stage.name, key)
        progress.finish(computed=True)
        return ref


def all_whole(store: Store, refs: list[ArtifactRef]) -> None:
    """Whether artifacts are there and whole, which they were when somebody found or made them.

    Raises:
        FileNotFoundError: when one is not. The run then begins again and computes it, see `flows.job`.
    """
    for ref in refs:
        if store.find(ref.stage, ref.key) != ref:
            raise FileNotFoundError(f"{ref.path} has been removed from {store.root} or damaged since the run found it")


def _fill(
    stage: Stage,
    arguments: dict[str, Any],
    env: Env,
    store: Store,
    key: str,
    place: Place | None,
    progress: Progress,
    folder: Path,
) -> dict[str, Any]:
    import torch

    from featcx_core.training.replay import reproducible

    torch.set_num_threads(env.threads)
    device = torch.device(place.device if place else "cpu")
    reproducible(device)
    started, clock = datetime.now(UTC), time.perf_counter()
    leave_gpu = place.leave_gpu if place else lambda: None
    work = Work(folder, store, device, progress, key, stage.name, env.checkpoint_seconds, leave_gpu)
    with settled_allocator():
        metrics = stage.body(work, **arguments)
    lineage = {name: _jsonable(value) for name, value in arguments.items() if _has_refs(value)}
    return {
        **stage.key_parts(arguments),
        "lineage": lineage,
        "label": stage.describe(arguments),
        "metrics": metrics,
        "remarks": work.remarks,
        "volatile": metrics.pop("volatile", []),
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - clock, 3),
        "device": _device_name(device),
        "threads": env.threads,
        "versions": _versions(),
    }


def _jsonable(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {str(name): _jsonable(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(entry) for entry in value]
    return value


def _digest(value: Any) -> Any:
    """The content digest of a reference, or one digest of a nest of them: keys and paths do not count."""

    def strip(value: Any) -> Any:
        if isinstance(value, ArtifactRef | FileRef):
            return value.digest
        if isinstance(value, dict):
            return {str(name): strip(entry) for name, entry in value.items()}
        return [strip(entry) for entry in value] if isinstance(value, list | tuple) else value

    plain = strip(value)
    return plain if isinstance(plain, str) else digest(plain)


def _has_refs(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_refs, value.values()))
    return any(map(_has_refs, value)) if isinstance(value, list | tuple) else isinstance(value, ArtifactRef | FileRef)


@functools.cache
def _code(body: Body) -> CodeVersion:
    return code_version(body)


def _remove_checkpoint(store: Store, stage: str, key: str) -> None:
    import shutil

    shutil.rmtree(checkpoint_folder(store, stage, key), ignore_errors=True)


def _device_name(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"


@functools.cache
def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("torch", "numpy", "pandas", "pyarrow", "prefect")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
