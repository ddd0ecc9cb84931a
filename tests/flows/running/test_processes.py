"""The pool of processes: what waits for what, what the processes start with, and when they end."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from flows.running.processes import can_fork
from tests.e2e.conftest import clean_environment

ROOT = Path(__file__).parents[3]
QUIET = {"PREFECT_LOGGING_LEVEL": "CRITICAL", "PREFECT_LOGGING_TO_API_ENABLED": "false"}  # these import prefect first
ENTERED = """
import os, time
from flows.running.processes import ProcessPool
with ProcessPool(max_workers=2) as pool:
    print(pool._executor.submit(os.getpid).result(), flush=True)
    time.sleep(600)
"""


def test_chains_run_side_by_side_in_forked_processes(tmp_path: Path) -> None:
    """Prefect's own pool ends with an error here: its two threads wait for the first chain's second and third link.

    The working directory has a package of a name of ours, which nothing may import.
    """
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "__init__.py").touch()
    script = f"from tests.flows.running.chained_stages import main; main({str(tmp_path / 'store')!r})"
    own = clean_environment() | QUIET | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env=own, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    processes, parents, imported = (set(values) for values in zip(*told["links"], strict=True))
    assert told["servers"] == []  # beside the run's own
    assert len(told["links"]) == 5
    assert len(processes) == 2
    assert imported == {True}
    assert len(parents) == 1  # the one that they were forked from
    assert (told["flow"] in parents) != can_fork()


def test_of_a_chain_that_breaks_the_first_failure_is_told(tmp_path: Path) -> None:
    """Stages that only waited for it never run, and what stands beside it does; whether anything was computed is known too.

    Once more, when all else is Cached, nothing was: the last stage never ran, and never will have ended.
    """
    script = f"from tests.flows.running.chained_stages import main_failing; main_failing({str(tmp_path / 'store')!r})"
    command = [sys.executable, "-c", script]
    own = clean_environment() | QUIET
    done = subprocess.run(command, capture_output=True, text=True, env=own, cwd=ROOT, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    cause = "RuntimeError('the chain broke')"
    fresh, *again = json.loads(done.stdout.splitlines()[-1])
    assert fresh == [cause, cause, cause, "None", "the chain broke", "True"]
    assert again == [[*fresh[:-1], "False"]] * 2
    assert [path.parent.parent.name for path in (tmp_path / "store").glob("*/*/manifest.json")] == ["link"]


def test_the_processes_end_with_a_killed_run() -> None:
    command, own = [sys.executable, "-c", ENTERED], clean_environment()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=own, cwd=ROOT) as run:
        assert run.stdout is not None
        pid = run.stdout.readline().strip()
        assert not ended(pid)
        run.kill()
    until = time.monotonic() + 30
    while not ended(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert ended(pid)


def ended(pid: str) -> bool:
    """Whether a process is gone, or waits for nothing but to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
