"""`python -m tests.faults.together`: eight processes with overlapping sweeps on one store, pruned and verified meanwhile.

Each artifact is computed once, and its bytes are those that one process gives. A process that is done waits for the others,
as one with more to do would: what only ended runs have made a pruning may take, and a later run computes it again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from featcx_core.store.artifacts import Store
from featcx_core.store.pruning import left_over, remove, superfluous

PATIENCE = 1800.0  # seconds for all


def points_of(places: Sequence[int]) -> dict[str, Any]:
    """Points of a sweep over seeds: small, and without what takes long and shares nothing."""
    from flows.asked import Asked
    from tests.faults.lane import FLOW

    lean = ["disentangler.continuation=false", "analysis.bootstrap=100"]
    return {f"s{i}": Asked("digits", changes=[*FLOW[3::2], *lean, f"seed={i}"]).run() for i in places}


def swept(store: Path, run: str, places: Sequence[int], all_done: Callable[[], Any] = lambda: None) -> None:
    """The stages of these points, in this process; the reports are left out."""
    from flows.recipes import whole_sweep
    from flows.running.here import Here
    from flows.running.preflight import numerics_for
    from tasks.env import Env
    from tasks.present import report

    def without_reports(stage: Any, *scope: str, **given: Any) -> Any:
        return None if stage is report else submit(stage, *scope, **given)

    with Here(Env(store=str(store), run=run, device="cpu")) as submit:
        whole_sweep(without_reports, {n: (spec, numerics_for(spec)) for n, spec in points_of(places).items()})
        submit.settled()
        all_done()


def together(root: Path, processes: int, points: int, width: int) -> list[str]:
    """What went wrong when so many processes swept over `width` of the points each; empty when nothing did."""
    from tasks.progress import noted, read_notes
    from tests.faults.lane import know_all

    fork, shared = multiprocessing.get_context("fork"), Store(root / "shared")
    know_all(shared.root)
    sweeps = [[(i + j) % points for j in range(width)] for i in range(processes)]
    done, ends = fork.Semaphore(0), fork.Event()

    def wait() -> None:
        done.release()
        ends.wait()

    running = [
        fork.Process(target=swept, args=(shared.root, f"run{i}", places, wait)) for i, places in enumerate(sweeps)
    ]
    for process in running:
        process.start()
    words, rounds, finished, began = list[str](), 0, 0, time.monotonic()
    while finished < processes and not any(p.exitcode for p in running) and time.monotonic() < began + PATIENCE:
        gone, _ = remove(shared, superfluous(shared, 0, None), left_over(shared))
        words += [f"{m['stage']}/{m['key'][:12]} was pruned under a run" for m in gone]
        words += [f"{damage.artifact} {damage.file} {damage.reason}" for damage in shared.verify()]
        rounds += 1
        finished += done.acquire(timeout=0.5)
    ends.set()
    for process in running:
        process.join()
    words += [f"run{i} ended with {p.exitcode}" for i, p in enumerate(running) if p.exitcode]
    alone = fork.Process(target=swept, args=(root / "alone", "alone", sorted({p for s in sweeps for p in s})))
    alone.start()
    alone.join()
    expected = {(m["stage"], m["key"]): m["digest"] for m in Store(root / "alone").manifests()}
    there = {(m["stage"], m["key"]): m["digest"] for m in shared.manifests()}
    computed = Counter[str]()
    for i in range(processes):
        computed.update(note.label for note in read_notes(shared.root, f"run{i}") if note.state == "computed")
        lacking = set(noted(shared.root, f"run{i}")) - expected.keys()
        words += [f"run{i} has {stage}/{key[:12]}, which one process has not" for stage, key in lacking]
    made = Counter(note.label for note in read_notes(root / "alone", "alone") if note.state == "computed")
    words += [
        f"{label}: computed {computed[label]} times, not {made[label]}"
        for label in made
        if computed[label] != made[label]
    ]
    words += [f"{stage}/{key[:12]} differs" for (stage, key), d in there.items() if expected.get((stage, key)) != d]
    if rounds < 3 or len(expected) < 10 * points:
        words.append(f"{rounds} prunings and {len(expected)} artifacts are too few to tell anything")
    return words


def main() -> int:
    """1 when something went wrong."""
    asked = argparse.ArgumentParser(prog="python -m tests.faults.together", description=__doc__)
    asked.add_argument("--processes", type=int, default=8)
    asked.add_argument("--points", type=int, default=8, help="of all sweeps")
    asked.add_argument("--width", type=int, default=3, help="points of each process's sweep")
    given = asked.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="together-") as root:
        words = together(Path(root), given.processes, given.points, given.width)
    print("\n".join([*words, f"{given.processes} processes, {len(words)} faults, {time.monotonic() - began:.0f} s"]))
    return 1 if words else 0


if __name__ == "__main__":
    sys.exit(main())
