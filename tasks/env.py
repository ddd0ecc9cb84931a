"""Where a run works."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from featcx_core.store.artifacts import Store

NODE_STORE = "FEATCX_NODE_STORE"  # on a machine whose disk the others do not see: the folder of its own store


class Env(BaseModel):
    """Where a run works; none of it is in a key.

    Attributes:
        store: the store's root.
        run: names the run's progress notes; empty for who only looks, and leaves none.
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads of each stage.
        per_gpu: stages side by side on one GPU; None: by its memory, see `devices`.
        checkpoint_seconds: how often a training saves itself.
        turn: the stage's place in the recipe; of stages that wait for a device the first goes ahead.
        scope: which of the run's networks a stage belongs to, for the reader.
        exclusive: lease a device before computing; false where Ray has placed the task on one already.
        shown: leave progress, tables and pictures as artifacts in Prefect's UI.
        remote: address of the team's cache; empty: none.
        read_only: send nothing there.
        patient: at its end a run waits until all is sent.
        scattered: workers share no folder with whoever started the run; what they make reaches it by the remote.
    """

    model_config = ConfigDict(frozen=True)

    store: str
    run: str
    device: str = "auto"
    threads: int = 1
    per_gpu: int | None = None
    exclusive: bool = True
    checkpoint_seconds: float = 20.0
    turn: int = 0
    scope: str = ""
    shown: bool = False
    remote: str = ""
    read_only: bool = False
    patient: bool = True
    scattered: bool = False


def on_this_node(env: Env) -> Env:
    """Where a run works on this machine, which may have a folder of its own."""
    own = os.environ.get(NODE_STORE, "")
    return env.model_copy(update={"store": str(Path(own).absolute())}) if env.scattered and own else env


def opened(env: Env) -> Store:
    """The store that a run works in, with the remote behind it if there is one; a store that cannot be written has none."""
    if not (env.remote and Store(env.store).can_be_written):
        return Store(env.store)
    return _shared(env.store, env.remote, env.read_only, env.run, env.scattered, os.getpid())


@functools.lru_cache(maxsize=16)
def _shared(root: str, url: str, read_only: bool, run: str, scattered: bool, process: int) -> Store:
    from featcx_core.store.remote.journal import Journal
    from featcx_core.store.remote.shared import SharedStore

    journal = Journal(Path(root) / ".runs" / run / "remote.log" if run else None)
    return SharedStore(root, remote_of(url, read_only, process), journal, at_once=scattered)


@functools.lru_cache(maxsize=4)
def remote_of(url: str, read_only: bool, process: int) -> Any:
    """The remote of this process, to which it connects meanwhile.

    Raises:
        InputError: for an address that no driver opens.
    """
    from featcx_core.store.remote.cache import Remote
    from featcx_core.store.remote.envelope import secret_here

    remote = Remote(url, read_only, secret_here())
    remote.address.warm()
    return remote
