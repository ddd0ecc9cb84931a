"""SIGTERM ends a flow in two seconds, its trainings saved: `kill`, a container's end, a scheduler's time limit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from featcx_core.training.checkpoint import Checkpoint, read
from tests.e2e.conftest import LEAN, TINY, clean_environment

LONG = ["--set", "target.schedule.draws=2000000", "--set", "reliability.enabled=false"]
TIME = 2.0  # seconds on a quiet machine


@pytest.mark.slow
def test_sigterm_ends_a_flow_with_its_training_saved(tmp_path: Path) -> None:
    store, began = tmp_path / "store", time.monotonic()
    command = [sys.executable, "-m", "flows.cli", "run", "digits", *LEAN, *TINY, *LONG, "--store", str(store)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=clean_environment()) as run:
        try:
            wait_for_training(run, store, began + 300)
            told = time.time()
            run.send_signal(signal.SIGTERM)
            run.wait(60)
            seconds = time.time() - told
        finally:
            run.kill()
        said = run.stderr.read().decode() if run.stderr else ""
    assert run.returncode == 1
    assert "finished stages are kept" in said
    assert "Traceback" not in said
    assert seconds < TIME * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)), f"it took {seconds:.1f} s"
    (saved,) = store.glob(".checkpoints/target-*/checkpoint.safetensors")
    assert saved.stat().st_mtime >= told - 0.1
    (lock,) = store.glob(".locks/target-*")
    found = read(Checkpoint(saved.parent, lock.name.removeprefix("target-")))
    assert found is not None
    assert found[1] > 0


def wait_for_training(run: subprocess.Popen[bytes], store: Path, until: float) -> None:
    """Until the target has taken some steps."""
    while not any(steps_in(note) for note in store.glob(".runs/*/target-*.json")):
        assert run.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)


def steps_in(note: Path) -> int:
    """How many steps of a training a note tells of."""
    _, state, done, *_ = json.loads(note.read_text())
    return int(done) if state == "running" else 0
