"""Sends what is due at a remote, in the background and in a few transfers at a time; what was not sent stays due."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

from pydantic import ValidationError

from featcx_core.store.artifacts import ArtifactRef
from featcx_core.store.remote.address import Unreachable
from featcx_core.store.remote.cache import TRANSFERS, Sent
from featcx_core.store.remote.shared import SharedStore, client_of, today, uses

PACE = 0.5  # seconds between two looks into the outbox
Jobs = dict[str, Future[Sent | None]]


def due(store: SharedStore) -> list[ArtifactRef]:
    """What was published here and not sent yet, oldest first; references without digests."""
    found = []
    with contextlib.suppress(OSError):
        for file in sorted(store.due.iterdir(), key=lambda file: file.lstat().st_mtime):
            stage, _, key = file.name.partition("-")
            with contextlib.suppress(ValidationError):
                found.append(ArtifactRef(stage=stage, key=key, digest=""))
    return found


@contextlib.contextmanager
def sending(store: SharedStore, patient: bool, tell: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """Sends what becomes due while the block runs.

    Args:
        patient: wait at the end until all is sent; else it stays due, for the next run or `featcx remote push`.
        tell: is told at the end, from time to time, how much is still to be sent.
    """
    over, jobs, pool = threading.Event(), Jobs(), ThreadPoolExecutor(TRANSFERS, "featcx-send")

    def look() -> None:
        for ref in due(store):
            if ref.path not in jobs:
                jobs[ref.path] = pool.submit(store.send, ref.stage, ref.key)

    def watch() -> None:
        while not over.wait(PACE):
            look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    ended = False
    try:
        yield
        ended = True
    finally:
        over.set()
        watcher.join()
        if ended and patient:
            look()
            _wait(jobs, store.remote.url, tell)
            _note_use(store)
        pool.shutdown(wait=ended and patient, cancel_futures=True)


def _wait(jobs: Jobs, url: str, tell: Callable[[str], None]) -> None:
    began = time.monotonic()
    while left := wait(jobs.values(), timeout=2.0).not_done:
        tell(f"Sending to {url}: {len(jobs) - len(left)} of {len(jobs)} artifacts, {time.monotonic() - began:.0f} s")


def _note_use(store: SharedStore) -> None:
    """Tells the remote what this store has had of it today: one small file a day, none where nothing was had."""
    with contextlib.suppress(OSError, Unreachable):
        paths = set(uses(store, store.remote).read_text(encoding="utf-8").split())
        store.remote.note_use(today(), client_of(store), sorted(paths))
