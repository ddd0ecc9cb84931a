"""The kinds of faults: what goes wrong, when, and in which run."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.lane import Found, Lane, Run
from tests.faults.steps import STEPS, damage

IN_TIME = 2.0  # seconds that a run has to end when it is told to
STEADY = [step for step in STEPS if "checkpoint" not in step]


def missing_of(lane: Lane, chance: random.Random) -> list[str]:
    """Artifacts that are to be computed: one to four; the report, which takes as long as all others, seldom."""
    paths = sorted(lane.artifacts)
    others = [path for path in paths if not path.startswith("report/")]
    chosen = chance.sample(others, chance.randint(1, 4))
    return chosen + [path for path in paths if path not in others and chance.random() < 0.1]


def at_a_step(lane: Lane, action: str, chance: random.Random, runner: str, number: int) -> Found:
    """It goes wrong in the run, at a step of publishing: each in its turn."""
    missing = missing_of(lane, chance)
    lane.reset(missing)
    of_the_run = {"noted", "record written"} if action == "worker killed" else set()  # not of its workers
    not_there = of_the_run | ({"record written"} if lane.alone else set())
    steps = [step for step in STEADY if step not in not_there]
    step, nth = steps[number % len(steps)], chance.randrange(min(2, len(missing)))
    nth = 0 if runner == "processes" else nth  # each process counts for itself
    run = lane.start({"action": action, "step": step, "nth": nth, "seed": chance.randrange(10**6)}, runner=runner)
    found = judged(lane, missing, run)
    return found if lane.once.exists() else found._replace(words=[f"{step}: never got there", *found.words])


def at_a_moment(lane: Lane, action: str, chance: random.Random, runner: str, number: int) -> Found:
    """It goes wrong from outside, at any moment of the run."""
    missing = missing_of(lane, chance)
    lane.reset(missing)
    run = lane.start({}, runner=runner)
    lane.until_busy(run)
    run.wait(chance.uniform(0, lane.seconds))
    began, words = time.monotonic(), list[str]()
    if action in ("SIGKILL", "SIGTERM"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(run.process, getattr(signal, action))
        if action == "SIGTERM" and run.wait(IN_TIME) is None:
            words.append(f"it had not ended {time.monotonic() - began:.1f} s after SIGTERM")
    else:
        damage(lane.store, action, chance, lane.note)
    found = judged(lane, missing, run)
    return found._replace(words=[*words, *found.words])


def at_rest(lane: Lane, action: str, chance: random.Random, runner: str, number: int) -> Found:
    """It goes wrong while nothing runs. What a flip leaves of sizes and times only `verify` sees, so it is asked."""
    lane.reset([])
    what = damage(lane.store, action, chance, lane.note)
    from featcx_core.store.artifacts import Store

    told = Store(lane.store).verify()
    damaged = set(lane.accounted()["damaged"])
    seen = bool(told) or action in ("vanished folder", "mutation")  # a manifest may say other things that harm nobody
    words = [f"verify did not see {what}"] if damaged and not seen else []
    found = lane.judge([], None)
    return found._replace(words=[*words, *found.words])


def server_killed(lane: Lane, action: str, chance: random.Random, runner: str, number: int) -> Found:
    """A run's own server ends while the run goes on."""
    missing = missing_of(lane, chance)
    lane.reset(missing)
    run = lane.start({}, own_server=True, runner=runner)
    lane.until_busy(run)
    run.wait(chance.uniform(0, lane.seconds))
    for process in lane.servers():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return judged(lane, missing, run)


def database_locked(lane: Lane, action: str, chance: random.Random, runner: str, number: int) -> Found:
    """Somebody holds the database of a run's own server for a while."""
    missing = missing_of(lane, chance)
    lane.reset(missing)
    run = lane.start({}, own_server=True, runner=runner)
    lane.until_busy(run)
    for path in (lane.root / "tmp").glob("featcx-*/prefect.db"):
        with contextlib.closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as held:
            with contextlib.suppress(sqlite3.OperationalError):
                held.execute("BEGIN EXCLUSIVE")
            time.sleep(chance.uniform(0.5, 5))
    return judged(lane, missing, run)


def port_taken(lane: Lane, action: str, chance: random.Random, runner: str, number: int) -> Found:
    """Something else answers, or nothing but silence, where the user's server should be: refused, nothing written."""
    lane.reset([])
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        answer = chance.choice((b"", b"HTTP/1.0 404 Not Found\r\n\r\n", b"\x00\x01 no word of HTTP \xff"))
        thread = threading.Thread(target=_answer, args=(stranger, answer), daemon=True)
        thread.start()
        run = lane.start({}, url=f"http://127.0.0.1:{stranger.getsockname()[1]}/api")
        code = run.wait()
        stranger.shutdown(socket.SHUT_RDWR)
        thread.join()
    words = [] if code == 2 else [f"it ended with {code}, not refused: {run.said[-300:]}"]
    found = lane.judge([], run)
    return found._replace(words=[*words, *found.words])


def _answer(stranger: socket.socket, answer: bytes) -> None:
    with contextlib.suppress(OSError):
        while True:
            asked, _ = stranger.accept()
            with asked:
                asked.recv(4096)
                asked.sendall(answer)


def judged(lane: Lane, missing: list[str], run: Run) -> Found:
    """The run ends, by itself or, where it stands still, by force, which is told; then all is checked."""
    code = run.wait()
    found = lane.judge(missing, run)
    return found if code is not None else found._replace(words=["it stood still", *found.words])


Kind = tuple[Callable[[Lane, str, random.Random, str, int], Found], str]
KINDS: dict[str, Kind] = {
    "SIGKILL at a step": (at_a_step, "SIGKILL"),
    "SIGKILL at a moment": (at_a_moment, "SIGKILL"),
    "SIGTERM at a step": (at_a_step, "SIGTERM"),
    "SIGTERM at a moment": (at_a_moment, "SIGTERM"),
    "full disk at a step": (at_a_step, "full disk"),
    "I/O error at a step": (at_a_step, "I/O error"),
    "clock jump at a step": (at_a_step, "clock jump"),
    "vanished folder in a run": (at_a_moment, "vanished folder"),
    "vanished folder": (at_rest, "vanished folder"),
    "deleted payload in a run": (at_a_moment, "deleted payload"),
    "deleted payload": (at_rest, "deleted payload"),
    "truncation in a run": (at_a_moment, "truncation"),
    "truncation": (at_rest, "truncation"),
    "bit flip in a run": (at_a_moment, "bit flip"),
    "bit flip": (at_rest, "bit flip"),
    "bit flip, times kept": (at_rest, "bit flip, times kept"),
    "mutation": (at_rest, "mutation"),
    "server killed": (server_killed, ""),
    "database locked": (database_locked, ""),
    "port taken": (port_taken, ""),
    "worker killed at a step": (at_a_step, "worker killed"),
}
OF_FLOWS = [name for name in KINDS if name.startswith(("SIGTERM", "server", "database", "port", "worker"))]


def inject(lane: Lane, number: int, seed: int) -> tuple[str, str, Found]:
    """The fault of this number: its kind, its runner and what came of it. One in six goes by the pool of processes."""
    names = [name for name in KINDS if not (lane.alone and name in OF_FLOWS)]
    name = names[number % len(names)]
    chance = random.Random(f"{seed} {number}")
    pool = not lane.alone and (name == "worker killed at a step" or chance.random() < 1 / 6)
    runner = "processes" if pool else lane.usual
    how, action = KINDS[name]
    return name, runner, how(lane, action, chance, runner, number // len(names))


def compiled(folder: Path) -> Path:
    """The library that stands before the kernel."""
    import subprocess

    library = folder / "kernel.so"
    source = Path(__file__).with_name("kernel.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
    return library
