"""`featcx serve` says in a sentence what it lacks, and then has registered nothing; prefect.yaml has the same deployments."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint

from flows.serving.deployments import FLOWS
from flows.serving.timetable import NIGHTLY
from tests.e2e.conftest import clean_environment, featcx


@pytest.mark.parametrize(
    ("arguments", "server", "says"),
    [
        ([], None, "start one with `prefect server start`, then set PREFECT_API_URL"),
        ([], "silent", "does not answer"),
        (["--runner", "slurm"], None, "runtime.runner = 'slurm' will not do"),
        (["--device", "cuda:9"], None, "There is no device 'cuda:9' here"),
        (["--schedules", "none.toml"], None, "none.toml cannot be read"),
    ],
)
def test_what_is_lacking_is_told(tmp_path: Path, arguments: list[str], server: str | None, says: str) -> None:
    own = {"PREFECT_HOME": str(tmp_path / "home")}
    with socket.socket() as silent:  # bound, so that nobody else takes the port, but it does not listen
        silent.bind(("127.0.0.1", 0))
        if server is not None:
            own["PREFECT_API_URL"] = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        done = featcx("serve", "--store", tmp_path / "store", *arguments, **own)
    assert (done.code, done.out) == (2, "")
    *waited, sentence = done.err.splitlines()
    assert sentence.startswith("featcx: ")
    assert says in sentence
    assert [line.split(" at ")[0] for line in waited] == ["Waiting for the Prefect server"] * (server is not None)
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
    "disentangler": {"blocks": [1, 2], "schedule": {"draws": 320}},
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


def test_workers_have_the_same_deployments() -> None:
    wanted = yaml.safe_load((Path(__file__).parents[2] / "prefect.yaml").read_text())["deployments"]
    flows = {each["name"]: load_flow_from_entrypoint(each["entrypoint"]) for each in wanted}
    assert {name: flow for name, flow in flows.items() if name in FLOWS} == FLOWS
    [nightly] = [each for each in wanted if each["name"] not in FLOWS]
    [schedule] = nightly["schedules"]
    assert (nightly["name"], flows[nightly["name"]], nightly["parameters"]) == (
        NIGHTLY.name,
        FLOWS[NIGHTLY.deployment],
        NIGHTLY.parameters,
    )
    assert (schedule["cron"], schedule["timezone"], schedule["active"]) == (
        NIGHTLY.cron,
        NIGHTLY.timezone,
        NIGHTLY.active,
    )
