"""Garbage collection: which artifacts no kept report was made from."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import time
from pathlib import Path
from typing import Any

from featcx_core.errors import InputError
from featcx_core.store.artifacts import ArtifactRef, Store

Manifest = dict[str, Any]
REPORTS = frozenset({"report", "complexity_report", "sweep_report"})


def superfluous(store: Store, keep_last: int | None, max_megabytes: float | None) -> list[Manifest]:
    """The manifests that may go, oldest first.

    Args:
        keep_last: keep this many newest reports and all that they were made from; None keeps every artifact on this count.
        max_megabytes: beyond that, keep only the newest artifacts up to this size.

    Raises:
        InputError: for negative limits.
    """
    if (keep_last or 0) < 0 or (max_megabytes or 0) < 0:
        raise InputError("--keep-last and --max-size cannot be negative; give 0 or more.")
    manifests = store.manifests()
    kept = {_path(m) for m in manifests}
    if keep_last is not None:
        reports = [m for m in manifests if m["stage"] in REPORTS]
        newest = [_ref(m) for m in reports[len(reports) - min(keep_last, len(reports)) :]]
        kept = {_path(m) for m in store.lineage(newest)}
    if max_megabytes is not None:
        room = max_megabytes * 1e6
        for m in reversed(manifests):
            if _path(m) in kept:
                room -= sum(entry["bytes"] for entry in m["files"].values())
                if room < 0:
                    kept.discard(_path(m))
    return [m for m in manifests if _path(m) not in kept]


def left_over(store: Store, older_than: float = 3600.0) -> list[Path]:
    """Folders and notes of runs that were killed, untouched for `older_than` seconds."""
    now = time.time()
    found = [p for name in (".partial", ".runs", ".checkpoints") for p in (store.root / name).glob("*")]
    return [path for path in found if now - _touched(path) > older_than and not _in_work(store, path)]


def _touched(path: Path) -> float:
    """When a file, or anything in a folder, last changed: the rounds of a pruning have folders of their own."""
    return max(part.stat().st_mtime for part in (path, *path.rglob("*")))


def _in_work(store: Store, path: Path) -> bool:
    """Whether someone holds the key that a folder of `.partial` or `.checkpoints` is named after."""
    stage, _, key = path.name.partition("-")
    for lock in (store.root / ".locks").glob(f"{stage}-{key[:12]}*"):
        with open(lock) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False


def remove(store: Store, manifests: list[Manifest], scraps: list[Path]) -> None:
    """Removes artifacts, each under its lock: one that a run is just using or making is left alone."""
    for m in manifests:
        with contextlib.suppress(BlockingIOError, FileNotFoundError), _free(store, m):
            shutil.rmtree(store.root / _path(m))
            (store.root / ".checks" / f"{m['stage']}-{m['key']}.json").unlink(missing_ok=True)
            (store.root / ".prefect" / "results" / f"{m['stage']}-{m['key']}").unlink(missing_ok=True)
    for path in scraps:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _free(store: Store, manifest: Manifest):  # type: ignore[no-untyped-def]
    path = store.root / ".locks" / f"{manifest['stage']}-{manifest['key']}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _path(manifest: Manifest) -> str:
    return f"{manifest['stage']}/{manifest['key']}"


def _ref(manifest: Manifest) -> ArtifactRef:
    return ArtifactRef(stage=manifest["stage"], key=manifest["key"], digest=manifest["digest"])
