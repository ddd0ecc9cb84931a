"""Garbage collection: which artifacts no kept report was made from."""

from __future__ import annotations

import contextlib
import itertools
import math
import shutil
import time
import uuid
from pathlib import Path
from typing import Any

from featcx_core.errors import InputError
from featcx_core.store.artifacts import ArtifactRef, Store
from featcx_core.store.trust import below, inside

Manifest = dict[str, Any]
REPORTS = frozenset({"report", "analysis", "complexity_report", "sweep_report"})
SCRAPS = (".partial", ".runs", ".checkpoints", ".views")


def superfluous(store: Store, keep_last: int | None, max_megabytes: float | None) -> list[Manifest]:
    """The manifests that may go, oldest first. What a run under way has found or made stays, and what that was made from.

    Args:
        keep_last: keep this many newest reports and all that they were made from; None keeps every artifact on this count.
        max_megabytes: keep only the newest artifacts up to this size; beside `keep_last` fewer reports, at least one, each
            still with all that it was made from.

    Raises:
        InputError: for negative limits.
    """
    if (keep_last or 0) < 0 or (max_megabytes or 0) < 0:
        raise InputError("--keep-last and --max-size cannot be negative; give 0 or more.")
    manifests, room = store.manifests(), float("inf") if max_megabytes is None else max_megabytes * 1e6
    if keep_last is not None:
        kept = set(_reports_within(store, [m for m in manifests if m["stage"] in REPORTS], keep_last, room))
    else:
        sizes = itertools.accumulate(map(_size, reversed(manifests)))
        kept = {_path(m) for m, size in zip(reversed(manifests), sizes, strict=True) if size <= room}
    live = [_ref(m) for m in manifests if _noted(store, m)]
    kept |= {_path(m) for m in store.lineage(live)}
    return [m for m in manifests if _path(m) not in kept]


def _reports_within(store: Store, reports: list[Manifest], count: int, room: float) -> dict[str, int]:
    """Sizes of the newest reports, at most `count`, and of what they were made from; fewer, but not none, beyond `room`."""
    kept: dict[str, int] = {}
    for report in list(reversed(reports))[:count]:
        whole = kept | {_path(m): _size(m) for m in store.lineage([_ref(report)])}
        if kept and sum(whole.values()) > room:
            break
        kept = whole
    return kept


def _size(manifest: Manifest) -> int:
    return sum(entry["bytes"] for entry in manifest["files"].values())


def left_over(store: Store, older_than: float = 3600.0) -> list[Path]:
    """Folders and notes of runs that were killed, untouched for `older_than` seconds."""
    now, live = time.time(), store.live_runs()
    found = [p for name in SCRAPS if not (store.root / name).is_symlink() for p in (store.root / name).glob("*")]
    return [p for p in found if now - _touched(p) > older_than and p.name not in live and not _in_work(store, p)]


def _touched(path: Path) -> float:
    """When a file, or anything in a folder, last changed: the rounds of a pruning have folders of their own.

    Infinity where something of it vanishes meanwhile: a run is at work there.
    """
    try:
        parts = (path,) if path.is_symlink() else (path, *below(path))
        return max(part.lstat().st_mtime for part in parts)
    except FileNotFoundError:
        return math.inf


def _in_work(store: Store, path: Path) -> bool:
    """Whether someone holds the key that a folder of `.partial` or `.checkpoints` is named after."""
    stage, _, key = path.name.partition("-")
    for lock in (store.root / ".locks").glob(f"{stage}-{key[:12]}*"):
        try:
            with store.alone(stage, lock.name.removeprefix(f"{stage}-")):
                pass
        except BlockingIOError:
            return True
    return False


def remove(store: Store, manifests: list[Manifest], scraps: list[Path]) -> tuple[list[Manifest], list[Path]]:
    """Removes artifacts, each under its lock, and left-overs: what is gone afterwards.

    One that a run is making, or has taken note of meanwhile, is left alone: a run notes an artifact before it looks for it,
    and here an artifact is put aside before the notes are read, so either the run misses it or it comes back.
    """
    gone = []
    for m in manifests:
        aside = inside(store.root, ".partial", f"pruned-{uuid.uuid4().hex[:12]}")
        aside.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError, InputError), store.alone(m["stage"], m["key"]):
            place = store.path(_ref(m))
            place.rename(aside)
            if _noted(store, m):
                aside.rename(place)
                continue
            for note in (f".checks/{m['stage']}-{m['key']}.json", f".prefect/results/{m['stage']}-{m['key']}"):
                with contextlib.suppress(InputError):
                    inside(store.root, note).unlink(missing_ok=True)
            gone.append(m)
            shutil.rmtree(aside, ignore_errors=True)
    for path in scraps:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return gone, [path for path in scraps if not path.exists() and not path.is_symlink()]


def _noted(store: Store, manifest: Manifest) -> bool:
    """Whether a run under way has noted an artifact."""
    return any(
        (store.root / ".runs" / run / f"{manifest['stage']}-{manifest['key']}.json").exists()
        for run in store.live_runs()
    )


def _path(manifest: Manifest) -> str:
    return f"{manifest['stage']}/{manifest['key']}"


def _ref(manifest: Manifest) -> ArtifactRef:
    return ArtifactRef(stage=manifest["stage"], key=manifest["key"], digest=manifest["digest"])
