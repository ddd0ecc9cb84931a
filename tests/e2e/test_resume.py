"""A training that is killed and resumed gives the same bytes as an unbroken one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from featcx_core.store.artifacts import Store

TRAINING = """
import os, signal, sys
import torch._dynamo
from featcx_core.specs import DatasetSpec, Numerics, ScheduleSpec
from tasks.engine import Env, execute
from tasks.train import data, target

def train(store, seconds):
    env = Env(store=store, run="resume", device="cpu", checkpoint_seconds=float(seconds))
    images = execute(data, {"settings": DatasetSpec(source="digits"), "files": None}, env)
    ref = execute(target, dict(
        data=images, net="resnet8", layer=None, pre_relu=None, layout=None, options={}, preprocess="auto",
        allow_chance=False, weights=None, code=None, samples=100,
        subset_seed=0, seed=1, schedule=ScheduleSpec(draws=20_000, batch=64), numerics=Numerics()), env)
    print("digest", ref.digest, flush=True)

for line in sys.stdin:  # a training a line, in a process of its own that has imported what it needs
    training = os.fork()
    if training == 0:
        train(*line.split())
        os._exit(0)
    print(training, flush=True)
    os.waitpid(training, 0)
    print("ended", flush=True)
"""


@pytest.mark.slow
def test_ten_kills_and_a_resume_give_the_same_bytes(tmp_path: Path) -> None:
    broken, rng, kills = tmp_path / "broken", random.Random(0), 0
    with subprocess.Popen(
        [sys.executable, "-c", TRAINING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as trainings:
        assert trainings.stdin is not None
        assert trainings.stdout is not None

        def start(store: Path, seconds: float) -> int:
            trainings.stdin.write(f"{store} {seconds}\n")
            trainings.stdin.flush()
            return int(trainings.stdout.readline())

        def told() -> str:
            """What the training said of its result before it ended."""
            said = trainings.stdout.readline()
            assert said == "ended\n" or trainings.stdout.readline() == "ended\n"
            return said

        start(tmp_path / "whole", 1e9)
        whole = told()
        while kills < 10:
            training = start(broken, 0.0)  # saves itself after every step
            wait_for_checkpoint(broken)
            time.sleep(rng.uniform(0, 0.15))
            os.kill(training, signal.SIGKILL)
            assert told() == "ended\n"
            kills += 1
            assert not list(broken.glob("target/*/manifest.json"))
        start(broken, 1e9)
        assert told() == whole
    assert whole.startswith("digest ")
    assert not list((broken / ".checkpoints").iterdir())
    assert not Store(broken).verify()


def wait_for_checkpoint(store: Path) -> None:
    """Waits until the training has saved itself anew."""
    began = time.time()
    while not any(p.stat().st_mtime > began for p in store.glob(".checkpoints/target-*/checkpoint.safetensors")):
        assert time.time() < began + 120
        time.sleep(0.005)
