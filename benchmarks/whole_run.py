"""Whole runs from an empty store: this version against an earlier one, from typing the command to its last line.

FEATCX_BENCH_BEFORE is a checkout of the earlier version (`git worktree add DIR COMMIT`), FEATCX_BENCH_PRESET what is run
(mnist). One run each, the earlier one first, a quarter of an hour each on two cores. Peak memory is that of all processes
together, shared pages counted once (Pss), PyTorch's import included.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import number

TABLE = "┏"  # what the first table begins with


class Taken(NamedTuple):
    """What one run took; seconds, MiB, MB."""

    first_table: float
    wall: float
    cpu: float
    memory: float
    store: float
    report: float


class Pair(NamedTuple):
    """A row: the same quantity of the earlier version and of this one; below 1 is better."""

    name: str
    unit: str
    before: float
    now: float
    wanted: str = ""

    def __str__(self) -> str:
        values = [f"{number(value)} {self.unit}" for value in (self.before, self.now)]
        return f"| {self.name} | {values[0]} | {values[1]} | {number(self.now / self.before)} | {self.wanted} | 1 |"


def run(tree: Path, preset: str) -> Taken:
    """One run of the version in `tree`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as name:
        folder, began, first, peak = Path(name), time.monotonic(), float("nan"), [0.0]
        command = [
            sys.executable,
            "-m",
            "flows.cli",
            "run",
            preset,
            "--store",
            name + "/store",
            "--json",
            name + "/run.json",
        ]
        environment = os.environ | {"PYTHONPATH": str(tree), "PREFECT_HOME": name + "/home", "COLUMNS": "120"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=tree)
        watch = threading.Thread(target=_watch, args=(process, peak))
        watch.start()
        assert process.stdout is not None
        for line in process.stdout:
            if TABLE in line and first != first:
                first = time.monotonic() - began
        code = process.wait()
        wall = time.monotonic() - began
        watch.join()
        if code:
            raise RuntimeError(f"the run of {tree} ended with {code}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        size = sum(path.lstat().st_size for path in (folder / "store").rglob("*") if path.is_file()) / 1e6
        key = Path(json.loads((folder / "run.json").read_text())["artifacts"]["report"])
        report = json.loads((key / "manifest.json").read_text())["seconds"]
    return Taken(first, wall, cpu, peak[0], size, report)


def _watch(process: subprocess.Popen[str], peak: list[float]) -> None:
    while process.poll() is None:
        peak[0] = max(peak[0], sum(map(_pss, _tree(process.pid))))
        time.sleep(0.7)


def _tree(root: int) -> list[int]:
    """A process and all that it has started."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found, to_do = [], [root]
    while to_do:
        found.append(to_do.pop())
        to_do += children.get(found[-1], [])
    return found


def _pss(process: int) -> float:
    """MiB of a process, a page that several share counted in parts."""
    try:
        told = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{process}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        return 0.0
    return int(told[1]) / 1024 if told else 0.0


def rows(quick: bool = False) -> Iterator[Pair]:
    """The six quantities; `quick` runs digits."""
    preset = "digits" if quick else os.environ.get("FEATCX_BENCH_PRESET", "mnist")
    before = os.environ.get("FEATCX_BENCH_BEFORE")
    if not before:
        print(
            "whole_run: set FEATCX_BENCH_BEFORE to a checkout of an earlier version to compare with.", file=sys.stderr
        )
        return
    then, now = (run(tree, preset) for tree in (Path(before), Path(__file__).parents[1]))
    what = f"`featcx run {preset}`"
    yield Pair(f"{what}: first table", "s", then.first_table, now.first_table)
    yield Pair(
        f"{what}: first table as a share of the whole run",
        "of 1",
        then.first_table / then.wall,
        now.first_table / now.wall,
        "at most .35",
    )
    yield Pair(f"{what}: whole run", "s", then.wall, now.wall)
    yield Pair(f"{what}: CPU seconds", "s", then.cpu, now.cpu, "at most 1.5 times")
    yield Pair(f"{what}: peak memory", "MiB", then.memory, now.memory, "at most 1,500 MiB beside PyTorch's import")
    yield Pair(f"{what}: store", "MB", then.store, now.store, "at most 300 MB")
    yield Pair(f"{what}: the last report", "s", then.report, now.report, "at most 5 s")
