"""`featcx serve` says in a sentence what it lacks, and then has registered nothing; a triggered sweep tells what failed."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.serving import serve
from tests.e2e.conftest import clean_environment, typed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "start one with `prefect server start`, then set PREFECT_API_URL"),
        (["--runner", "slurm"], "runtime.runner = 'slurm' will not do"),
        (["--device", "cuda:9"], "There is no device 'cuda:9' here"),
        (["--schedules", "none.toml"], "none.toml cannot be read"),
    ],
)
def test_what_is_lacking_is_told(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = typed("serve", "--store", "store", *arguments, cwd=tmp_path)
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert done.err.startswith("featcx: ")
    assert says in done.err
    assert not (tmp_path / "store").exists()


def test_a_server_that_does_not_answer_is_waited_for_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "PATIENCE", 1.0)
    with socket.socket() as silent:  # bound, so that nobody else takes the port, but it does not listen
        silent.bind(("127.0.0.1", 0))
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{silent.getsockname()[1]}/api"}):
            done = typed("serve", "--store", "store", cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    waiting, sentence = done.err.splitlines()
    assert waiting.startswith("Waiting for the Prefect server at ")
    assert sentence.startswith("featcx: ")
    assert "does not answer" in sentence
    assert not (tmp_path / "store").exists()


FRAGILE = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes, breaks):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))
        self.breaks = breaks

    def forward(self, x):
        if self.training and self.breaks:
            raise RuntimeError("this net does not train")
        return self.head(self.body(x))
"""
TRIGGERED = """
import json
from flows.serving.deployments import sweep

settings = {
    "target": {"net": "fragile_nets:Net", "layer": "body", "schedule": {"draws": 640}},
    "exemplary": {"schedule": {"draws": 640}},
    "disentangler": {"blocks": [1, 2], "schedule": {"draws": 640, "batch": 32}},
    "reliability": {"enabled": "off"},
    "components": {"rows": 40},
}
breaks = {"target.options": [{"breaks": False}, {"breaks": True}]}
state = sweep(preset="digits", settings=settings, sizes=[40], over=breaks, return_state=True)
print(json.dumps([state.type.value, state.message]))
"""


@pytest.mark.slow
def test_a_sweep_with_a_failed_target_fails_once_its_report_is_made(tmp_path: Path) -> None:
    (tmp_path / "fragile_nets.py").write_text(FRAGILE)
    own = {
        "PREFECT_HOME": str(tmp_path / "home"),
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
        "FEATCX_STORE": str(tmp_path / "store"),
        "FEATCX_DEVICE": "cpu",
        "FEATCX_ALLOW_IMPORTS": "fragile_nets",
        "PYTHONPATH": str(tmp_path),
        "TMPDIR": str(tmp_path),
    }
    command = [sys.executable, "-c", TRIGGERED]
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment() | own, check=False)
    assert done.returncode == 0, done.stderr
    kind, message = json.loads(done.stdout.splitlines()[-1])
    assert kind == "FAILED"
    assert re.match(r"1 of 2 targets failed: .*breaks=true: RuntimeError: this net does not train", message), message
    (report,) = (tmp_path / "store" / "sweep_report").glob("*/report.html")
    assert "this net does not train" in report.read_text()
    assert f"Report: {report}" in done.stderr  # logged with the last artifacts
