"""The pool of processes: what waits for what, and what the processes start with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from flows.processes import can_fork
from tests.e2e.conftest import clean_environment


def test_chains_run_side_by_side_in_forked_processes(tmp_path: Path) -> None:
    """Prefect's own pool ends with an error here: its two threads wait for the first chain's second and third link."""
    script = f"from tests.flows.chained_stages import main; main({str(tmp_path / 'store')!r})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=clean_environment(), check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    processes, parents, imported = (set(values) for values in zip(*told["links"], strict=True))
    assert len(told["links"]) == 5
    assert len(processes) == 2
    assert imported == {True}
    assert len(parents) == 1  # the one that they were forked from
    assert (told["flow"] in parents) != can_fork()
