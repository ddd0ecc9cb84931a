"""A training that is killed and resumed gives the same bytes as an unbroken one."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from featcx_core.store.artifacts import Store

SCRIPT = """
import sys
from featcx_core.specs import DatasetSpec, Numerics, ScheduleSpec
from tasks.engine import Env, execute
from tasks.train import data, target
env = Env(store=sys.argv[1], run="resume", device="cpu", checkpoint_seconds=float(sys.argv[2]))
images = execute(data, {"settings": DatasetSpec(source="digits"), "files": None}, env)
ref = execute(target, dict(
    data=images, net="resnet8", layer=None, pre_relu=None, options={}, weights=None, code=None, samples=100, subset_seed=0,
    seed=1,
    schedule=ScheduleSpec(draws=20_000, batch=64), numerics=Numerics()), env)
print(ref.digest)
"""


def start(store: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(store), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_ten_kills_and_a_resume_give_the_same_bytes(tmp_path: Path) -> None:
    whole, _ = start(tmp_path / "whole", 1e9).communicate()
    broken, rng, kills = tmp_path / "broken", random.Random(0), 0
    while kills < 10:
        process = start(broken, 0.0)  # saves itself after every step
        checkpoint = wait_for_checkpoint(broken, process)
        if checkpoint is None:
            break
        time.sleep(rng.uniform(0, 0.15))
        process.kill()
        process.communicate()
        kills += 1
        assert not list(broken.glob("target/*/manifest.json"))
    resumed, errors = start(broken, 1e9).communicate()
    assert resumed.strip() == whole.strip() != "", errors
    assert kills == 10
    assert not list((broken / ".checkpoints").iterdir())
    assert not Store(broken).verify()


def wait_for_checkpoint(store: Path, process: subprocess.Popen[str]) -> Path | None:
    """Waits until the training has saved itself anew."""
    began = time.time()
    while process.poll() is None:
        for path in store.glob(".checkpoints/target-*/checkpoint.safetensors"):
            if path.stat().st_mtime > began:
                return path
        time.sleep(0.005)
    return None
