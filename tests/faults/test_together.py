"""Three processes on one store that is pruned and verified meanwhile; `python -m tests.faults.together` has eight."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_what_several_processes_need_is_computed_once_and_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.faults.together", "--processes=3", "--points=2", "--width=2"]
    own = {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("3 processes, 0 faults")
