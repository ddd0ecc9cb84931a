"""Progress of a stage, told through small files: they reach the display from threads, processes and Ray workers alike."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.ui import Bar

if TYPE_CHECKING:
    from featcx_core.training.fit import Step
    from tasks.env import Env


EARLY, STOP = ("glance", "first"), "stop"


class Stopped(Exception):
    """Whoever wanted the run has asked it to stop."""


class Note(NamedTuple):
    """What a stage last said of itself.

    Attributes:
        state: waiting, running, cached, computed or failed.
        done, total: work done and in all, in the stage's own units; 0 of 0 where it does not tell.
        text: for instance loss and samples a second.
        since: when it began, seconds of the clock.
        left: estimate of the seconds until the end, by the pace since this process began, which may have gone on half-way.
    """

    label: str
    state: str
    done: int
    total: int
    text: str
    since: float
    seconds: float
    left: float | None = None


def notes_folder(store: str | Path, run: str) -> Path:
    """Where a run's notes lie."""
    return Path(store) / ".runs" / run


def read_notes(store: str | Path, run: str) -> list[Note]:
    """All notes of a run, in the order in which stages began."""
    found = []
    for path in notes_folder(store, run).glob("*.json"):
        try:
            found.append(Note(*json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError):
            continue
    return sorted(found, key=lambda note: note.since)


def tell_early(env: Env, name: str, results: dict[str, Any]) -> None:
    """Leaves what a run has found so far, in the form of `--json`, for whoever shows it; `name` is one of EARLY."""
    folder = notes_folder(env.store, env.run)
    with contextlib.suppress(OSError):  # the whole results follow
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f"{name}.results.{os.getpid()}"
        fresh.write_text(json.dumps(results), encoding="utf-8")
        fresh.rename(folder / f"{name}.results")


def early_results(env: Env, name: str) -> dict[str, Any] | None:
    """What `tell_early` left; None before."""
    path = notes_folder(env.store, env.run) / f"{name}.results"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def stop(env: Env) -> None:
    """Has every stage of a run end when it next tells of itself."""
    folder = notes_folder(env.store, env.run)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / STOP).touch()


class Progress:
    """Tells how far one stage is; at most a few small writes a second."""

    def __init__(self, env: Env, stage: str, key: str, label: str) -> None:
        self.path = notes_folder(env.store, env.run) / f"{stage}-{key}.json"
        self.label, self.state, self.since, self.told = label, "", time.time(), 0.0
        self.bar = Bar(label) if env.shown else None
        self.began, self.first, self.latest = 0.0, 0, (0, 0)  # of what is under way: first note, latest (done, total)

    def note(self, state: str, done: int = 0, total: int = 0, text: str = "") -> None:
        """Writes the note.

        Raises:
            Stopped: from a stage that waits or runs, when the run was asked to stop.
        """
        if state in ("waiting", "running") and (self.path.parent / STOP).exists():
            raise Stopped
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if state == "running" and self.state != "running":
            self.since = time.time()  # from here on it computes; before it waited for its key and a device
        self.state = state
        seconds = round(time.time() - self.since, 2)
        fresh = self.path.with_suffix(f".{os.getpid()}-{id(self)}")
        left = self._left(done, total)
        fresh.write_text(
            json.dumps(Note(self.label, state, done, total, text, self.since, seconds, left)), encoding="utf-8"
        )
        fresh.rename(self.path)
        if self.bar is not None:
            self.bar.move(done, total, text)

    def _left(self, done: int, total: int) -> float | None:
        before, of = self.latest
        self.latest = (done, total)
        if total != of or done < before:  # the next of several things to count
            self.began, self.first = time.monotonic(), done
        if done == self.first:
            return None
        return round((time.monotonic() - self.began) * (total - done) / (done - self.first), 1)

    def step(self, step: Step) -> None:
        """Progress of a training."""
        self.note("running", step.done, step.total, f"loss {step.loss:.3g}, {step.rate:,.0f} samples/s")

    def count(self, done: int, total: int) -> None:
        """Progress of anything countable."""
        if done == total or time.monotonic() - self.told > 0.25:
            self.told = time.monotonic()
            self.note("running", done, total)

    def finish(self, *, computed: bool) -> None:
        """The artifact is there."""
        self.note("computed" if computed else "cached")
        if self.bar is not None:
            self.bar.end(True)

    def fail(self, error: BaseException) -> None:
        """The stage ended in an error."""
        self.note("failed", text=str(error)[:200])
        if self.bar is not None:
            self.bar.end(False)


def noted(store: str | Path, run: str) -> list[tuple[str, str]]:
    """(stage, key) of all that a run has found or made."""
    there = [p for p in notes_folder(store, run).glob("*.json") if _state(p) in ("computed", "cached")]
    return [(stage, key) for stage, _, key in (path.stem.partition("-") for path in there)]


def _state(path: Path) -> str:
    try:
        return Note(*json.loads(path.read_text(encoding="utf-8"))).state
    except (OSError, ValueError, TypeError):
        return ""


def counts(store: str | Path, run: str, scope: str = "") -> dict[str, Any]:
    """How many stages this run computed and found; of those whose label begins with `scope`."""
    states = [note.state for note in read_notes(store, run) if note.label.startswith(scope)]
    return {"run": states.count("computed"), "cached": states.count("cached")}
