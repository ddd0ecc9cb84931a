"""A recipe's stages in this process, without Prefect: for a notebook, which waits for them and shows how far they are."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any, Protocol, Self

from featcx_core.store.artifacts import ArtifactRef, Store
from tasks.engine import Stage, execute
from tasks.env import Env
from tasks.progress import Note, Stopped, read_notes, stop


class Waited(Protocol):
    """What stands for an artifact that may not be there yet."""

    def result(self) -> ArtifactRef: ...


class Here:
    """Runs what it is handed, as many stages at a time as there are devices; a context.

    An error or an interruption ends all stages when they next tell of themselves; what is finished stays in the store.
    """

    def __init__(self, env: Env) -> None:
        self.env, self.futures = env, list[Future[ArtifactRef]]()

    def __enter__(self) -> Self:
        # Unbounded: a stage that waits for its inputs holds a thread. Devices are leased.
        self.pool, self.lease = ThreadPoolExecutor(10_000, "featcx"), Store(self.env.store).lease(self.env.run)
        return self

    def __call__(self, stage: Stage, scope: str = "", **arguments: Any) -> Future[ArtifactRef]:
        env = self.env.model_copy(update={"turn": len(self.futures), "scope": scope})
        self.futures.append(self.pool.submit(lambda: execute(stage, resolved(arguments, Future), env)))
        return self.futures[-1]

    def settled(self) -> None:
        """Waits for all; raises the error of the first that failed."""
        wait(self.futures, return_when=FIRST_EXCEPTION)
        failed = [error for future in self.futures if future.done() and (error := future.exception()) is not None]
        if failed:
            raise next((error for error in failed if not isinstance(error, Stopped)), failed[0])

    def __exit__(self, kind: Any, *error: Any) -> None:
        if kind is not None:
            stop(self.env)
        self.pool.shutdown(cancel_futures=kind is not None)
        self.lease.close()


def resolved(value: Any, kind: type[Waited]) -> Any:
    """Arguments with references in place of what stands for them, futures or others of this kind, once they are there."""
    if isinstance(value, kind):
        return value.result()
    if isinstance(value, Mapping):
        return {name: resolved(entry, kind) for name, entry in value.items()}
    return [resolved(entry, kind) for entry in value] if isinstance(value, list) else value


@contextlib.contextmanager
def told(env: Env, stages: int) -> Iterator[None]:
    """Shows in one line how far a run is until the block ends, in a notebook or a terminal; nothing in a file."""
    write, done, began = _line(), threading.Event(), time.monotonic()

    def watch() -> None:
        while not done.wait(0.5):
            write(progress_line(read_notes(env.store, env.run), stages, time.monotonic() - began))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        write("")


def progress_line(notes: list[Note], stages: int, seconds: float) -> str:
    """'12 of 41 stages, 63 s: disentangler m4 43%, 12 s left; components'."""
    finished = sum(note.state in ("computed", "cached") for note in notes)
    running = []
    for note in notes:
        if note.state == "running":
            share = f" {note.done / note.total:.0%}" if note.total else ""
            left = f", {note.left:.0f} s left" if note.left is not None else ""
            running.append(f"{note.label}{share}{left}")
    return f"{finished} of {stages} stages, {seconds:.0f} s{': ' if running else ''}{'; '.join(running)}"


def _line() -> Callable[[str], None]:
    """Writes a line in place of the last one."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None and getattr(shell, "kernel", None) is not None:
        from IPython.display import display

        handle = display({"text/plain": ""}, raw=True, display_id=True)
        return lambda text: handle.update({"text/plain": text}, raw=True)
    if not sys.stderr.isatty():
        return lambda text: None

    def write(text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text[:160]}")
        sys.stderr.flush()

    return write
