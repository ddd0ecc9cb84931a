"""`python -m tests.faults`: so many faults, one after the other in each of two lanes, and a table of what came of them."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COLUMNS = ("injected", "survived", "bytes lost", "stages recomputed beyond the least", "files touched outside")


def main() -> int:
    """1 when a fault did harm."""
    asked = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    asked.add_argument("--count", type=int, default=300, help="how many faults")
    asked.add_argument(
        "--first", type=int, default=0, help="the number of the first: a fault is a function of number and seed"
    )
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--lanes", type=int, default=2, help="how many side by side")
    asked.add_argument("--minutes", type=float, default=60, help="no fault begins later")
    asked.add_argument("--alone", action="store_true", help="stages without Prefect: faults of flows are left out")
    asked.add_argument("--results", type=Path, help="add a line of JSON a fault to this file")
    asked.add_argument("--lane", type=Path, help=argparse.SUPPRESS)
    asked.add_argument("--every", type=int, default=1, help=argparse.SUPPRESS)
    given = asked.parse_args()
    if given.lane is not None:
        one_lane(given)
        return 0
    began, found = time.monotonic(), list[dict[str, Any]]()
    for fault in side_by_side(given):
        found.append(fault)
        harm = "" if fault["survived"] else f": {'; '.join(fault['words'])}"
        print(f"{fault['number']} {fault['kind']}, {fault['runner']}, {fault['seconds']:.0f} s{harm}", flush=True)
        if given.results is not None:
            with given.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(fault) + "\n")
    print("\n".join(table(found)))
    minutes = (time.monotonic() - began) / 60
    print(f"{len(found)} faults in {minutes:.1f} minutes on {os.cpu_count()} cores ({platform.machine()})")
    return 0 if len(found) and all(fault["survived"] for fault in found) else 1


def side_by_side(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What the lanes tell, as they tell it."""
    from tests.faults.kinds import compiled

    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    library, told = compiled(folder), folder / "told"
    told.touch()
    lanes = []
    for i in range(given.lanes):
        share = [f"--count={given.count}", f"--seed={given.seed}", f"--minutes={given.minutes}", f"--results={told}"]
        command = [sys.executable, "-m", "tests.faults", *share, f"--lane={folder / f'lane {i}'}"]
        command += [f"--first={given.first + i}", f"--every={given.lanes}", *(["--alone"] if given.alone else [])]
        home = {"PREFECT_HOME": str(folder / f"home {i}"), "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
        lanes.append(subprocess.Popen(command, env=os.environ | home))
    try:
        with told.open(encoding="utf-8") as lines:
            working = True
            while working:
                working = any(lane.poll() is None for lane in lanes)
                while (line := lines.readline()).endswith("\n"):
                    yield json.loads(line)
                time.sleep(0.2)
    finally:
        for lane in lanes:
            lane.kill()
            lane.wait()
        if not any(lane.returncode for lane in lanes):
            shutil.rmtree(folder, ignore_errors=True)


def one_lane(given: argparse.Namespace) -> None:
    """Every so many faults from the first on."""
    from flows.running.embedded import prepare_environment

    prepare_environment(False)
    import torch._dynamo  # noqa: F401 (all that a run imports, once for all)

    from tests.faults.kinds import inject
    from tests.faults.lane import Lane

    until, lane = time.monotonic() + 60 * given.minutes, Lane(given.lane, given.alone)
    try:
        for number in range(given.first, given.count + given.first - given.first % given.every, given.every):
            if time.monotonic() > until:
                break
            began = time.monotonic()
            kind, runner, found = inject(lane, number, given.seed)
            fault = {"number": number, "kind": kind, "runner": runner, "seconds": round(time.monotonic() - began, 2)}
            fault |= {"survived": not found.words and not found.lost, "words": found.words}
            fault |= {"bytes lost": found.lost, COLUMNS[3]: found.beyond, COLUMNS[4]: found.outside}
            with given.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(fault) + "\n")
    finally:
        lane.close()


def table(faults: list[dict[str, Any]]) -> list[str]:
    """A row a kind, and one of all."""
    kinds = list(dict.fromkeys(fault["kind"] for fault in sorted(faults, key=lambda fault: fault["number"])))
    lines = [f"| kind | {' | '.join(COLUMNS)} |", f"|{' --- |' * (len(COLUMNS) + 1)}"]
    for kind in [*kinds, "all"]:
        own = [fault for fault in faults if kind in (fault["kind"], "all")]
        sums = Counter[str]({"injected": len(own), "survived": sum(fault["survived"] for fault in own)})
        for name in COLUMNS[2:]:
            sums[name] = sum(fault[name] for fault in own)
        lines.append(f"| {kind} | {' | '.join(str(sums[name]) for name in COLUMNS)} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
