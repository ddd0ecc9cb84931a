"""Which device a stage computes on. On one machine stages lease devices by file locks, which the kernel frees on death."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import heapq
import itertools
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from featcx_core.errors import InputError
from tasks.env import Env

BESIDE, ROOM = 3, 20 << 30  # trainings side by side on one GPU at most; bytes of its memory for each


class Lease(NamedTuple):
    """A device held by a stage, such as 'cpu' or 'cuda:1'."""

    device: str


class Wanted(Protocol):
    """What says where stages are to compute: an Env, a RuntimeSpec."""

    @property
    def device(self) -> str: ...

    @property
    def threads(self) -> int: ...

    @property
    def per_gpu(self) -> int | None: ...


def devices(wanted: Wanted) -> list[str]:
    """The places where stages can compute side by side: each GPU so many times, or the CPU once for every `threads` cores.

    Small nets leave most of a GPU idle, and all of it while a stage reads and writes. So a GPU counts `per_gpu` times: by
    default once for every 20 GiB of its memory, at most three times.

    Raises:
        InputError: for a device that is not there.
    """
    import torch

    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    cpu = ["cpu"] * max(1, len(os.sched_getaffinity(0)) // wanted.threads)
    if wanted.device == "cpu" or (wanted.device == "auto" and not gpus):
        return cpu
    chosen = gpus if wanted.device in ("auto", "cuda") else [gpu for gpu in gpus if gpu == wanted.device]
    if not chosen:
        there = ", ".join(["cpu", *gpus])
        raise InputError(f"There is no device '{wanted.device}' here; choose auto or one of: {there}.")
    counts = {gpu: wanted.per_gpu or _room(gpu) for gpu in chosen}
    # Those of one GPU do not stand side by side, so that stages go to an empty GPU first.
    return [gpu for turn in range(max(counts.values())) for gpu in chosen if turn < counts[gpu]]


@functools.cache
def _room(gpu: str) -> int:
    import torch

    return max(1, min(BESIDE, torch.cuda.get_device_properties(gpu).total_memory // ROOM))


@contextlib.contextmanager
def placement(wanted: Wanted, computes: bool, ray: bool) -> Iterator[None]:
    """Has Ray place what is submitted inside on cores of its own, and on a GPU, or its share of one, where GPUs are wanted.

    Nothing on other runners. A stage that does not compute asks for no core, since it waits on others' bytes only.
    """
    if not ray:
        yield
        return
    import ray as cluster
    from prefect_ray.context import remote_options

    there = cluster.cluster_resources().get("GPU", 0) if computes and wanted.device != "cpu" else 0
    share = 1 / (wanted.per_gpu or 1) if there else 0
    # Ray runs a task of a node that died again; more than its three times, since a stage that had finished costs nothing.
    with remote_options(num_cpus=wanted.threads if computes else 0, num_gpus=share, max_retries=5):
        yield


@contextlib.contextmanager
def lease(env: Env) -> Iterator[Lease]:
    """Holds one place for a stage, waiting until one is free; shared by all runs of this user on this machine."""
    places = devices(env)
    if not env.exclusive:
        yield Lease(places[0])
        return
    folder = Path(tempfile.gettempdir()) / f"featcx-devices-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with _turns(tuple(places)).taken(env.turn), contextlib.closing(_claims(folder, places)) as claims:
        yield next(claims)


class Place(contextlib.ExitStack):
    """What a stage holds while it computes."""

    def __init__(self, env: Env) -> None:
        super().__init__()
        self.env, self.device = env, self.enter_context(lease(env)).device

    def leave_gpu(self) -> None:
        """The rest computes on the CPU: gives a GPU back and waits for a core."""
        if self.env.exclusive and self.device != "cpu":
            self.close()
            self.device = self.enter_context(lease(self.env.model_copy(update={"device": "cpu"}))).device


class Turns:
    """Gives so many places to those who wait, the first in the recipe first.

    A place that has just been given back stands idle for a moment before someone from far down the recipe gets it: what its
    last holder made possible comes at once, and should not wait for the end of a training that could have waited.
    """

    NEAR = 8  # stages further down the recipe
    MOMENT = 0.3  # seconds, of which Prefect takes most to start a stage whose inputs are there

    def __init__(self, places: int) -> None:
        self.free, self.waiting, self.numbers = places, list[tuple[int, int]](), itertools.count()
        self.changed, self.last, self.until = threading.Condition(), 0, 0.0

    def take(self, turn: int) -> Callable[[], None]:
        """Waits for a place; what is given back gives it back."""
        with self.changed:
            ticket = (turn, next(self.numbers))
            heapq.heappush(self.waiting, ticket)
            while (patience := self._patience(ticket)) != 0:
                self.changed.wait(patience)
            heapq.heappop(self.waiting)
            self.free -= 1
            self.changed.notify_all()
        return functools.partial(self._give_back, turn)

    @contextlib.contextmanager
    def taken(self, turn: int) -> Iterator[None]:
        """Holds a place for the block."""
        give_back = self.take(turn)
        try:
            yield
        finally:
            give_back()

    def _patience(self, ticket: tuple[int, int]) -> float | None:
        """Seconds that a ticket has to wait: 0 for none, None until something changes."""
        if not self.free or self.waiting[0] != ticket:
            return None
        return 0 if ticket[0] <= self.last + self.NEAR else max(0, self.until - time.monotonic())

    def _give_back(self, turn: int) -> None:
        with self.changed:
            self.free += 1
            self.last, self.until = turn, time.monotonic() + self.MOMENT
            self.changed.notify_all()


@functools.cache
def _turns(places: tuple[str, ...]) -> Turns:
    """Lets as many threads of this process ask for a device as there are: dozens of polling threads slow the trainings."""
    return Turns(len(places))


def _claims(folder: Path, places: list[str]) -> Generator[Lease, None, None]:
    """Yields a device once it is free, and holds it until closed."""
    # Cores are counted, and so are the places of each GPU, whose name is the same in all runs, whichever others they may use.
    names = [f"{device.replace(':', '-')}-{places[:number].count(device)}" for number, device in enumerate(places)]
    while True:
        for name, device in zip(names, places, strict=True):
            with open(folder / name, "w", encoding="utf-8") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield Lease(device)
                return
        time.sleep(0.05)


@contextlib.contextmanager
def settled_allocator() -> Iterator[None]:
    """Has glibc keep freed activations for the next step, and hand all of them back when the stage ends; digits stay.

    Page faults are a fifth of a CPU step otherwise (batch 128, one block a stage: 37.5 → 29.6 ms; teacher 14.1 → 10.2).
    Without glibc it does nothing.
    """
    libc = _glibc()
    try:
        yield
    finally:
        if libc is not None:
            libc.malloc_trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt"):
        return None
    libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD: no mapping of its own for a tensor
    libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD: the heap does not shrink by itself
    libc.mallopt(-2, 1 << 26)  # M_TOP_PAD: it grows by 64 MiB at a time
    libc.mallopt(-8, 4)  # M_ARENA_MAX: a run has a thread a stage, each of which would keep a heap of its own
    return libc
