"""Forty of the faults of `make faults`, in stages that run without Prefect."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COUNT = 40


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_whatever_goes_wrong_the_run_after_it_gives_the_same_bytes(tmp_path: Path) -> None:
    told = tmp_path / "told.jsonl"
    command = [sys.executable, "-m", "tests.faults", "--alone", "--lanes=1", f"--count={COUNT}", f"--results={told}"]
    own = {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    faults = [json.loads(line) for line in told.read_text().splitlines()]
    assert sorted(fault["number"] for fault in faults) == list(range(COUNT))
    assert {fault["kind"] for fault in faults} >= {"SIGKILL at a step", "full disk at a step", "bit flip, times kept"}
    assert not list(tmp_path.glob("faults-*"))
