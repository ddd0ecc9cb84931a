"""Served flows: what the environment says of the place, and how a run ends that cannot run or has failed points."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint
from prefect.states import StateType
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

from flows.job import Job
from flows.running.place import given_store
from flows.serving import deployments
from flows.serving.deployments import FLOWS
from flows.serving.timetable import NIGHTLY


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATCX_STORE", str(tmp_path / "store"))
    for name in ("DEVICE", "RUNNER", "THREADS"):
        monkeypatch.delenv(f"FEATCX_{name}", raising=False)
    monkeypatch.setattr(deployments, "get_run_logger", lambda: logging.getLogger("featcx.tests"))


def swept(monkeypatch: pytest.MonkeyPatch, **failed: str) -> Any:
    """How the flow `sweep` answers when of three targets these failed."""
    names = ("one", "two", "three")
    results = {"points": [{"name": name} for name in names if name not in failed], "failed": failed}
    monkeypatch.setattr(Job, "within", lambda *_: results)
    return deployments.sweep.fn(preset="digits", settings={}, sizes=[100, 200, 400])


def test_a_sweep_with_failed_targets_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    state = swept(monkeypatch, one="ValueError: no", three="OSError: disk")
    assert state.type == StateType.FAILED
    assert state.message == "2 of 3 targets failed: one: ValueError: no; three: OSError: disk"


def test_a_sweep_without_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert swept(monkeypatch) is None


@pytest.mark.parametrize("given", ["", None])
def test_an_empty_store_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEATCX_STORE") if given is None else monkeypatch.setenv("FEATCX_STORE", given)
    assert given_store() == tmp_path / "artifacts"


def test_the_environment_names_the_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATCX_RUNNER", "processes")
    monkeypatch.setenv("FEATCX_DEVICE", "cpu")
    assert isinstance(deployments.runner_here(), ProcessPoolTaskRunner)


@pytest.mark.parametrize(
    ("runner", "device", "says"),
    [
        ("slurm", "cpu", "runtime.runner = 'slurm' will not do"),
        ("processes", "cuda:9", "There is no device 'cuda:9' here"),
    ],
)
@pytest.mark.parametrize("name", list(deployments.FLOWS))
def test_what_cannot_execute_is_told_by_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, runner: str, device: str, says: str
) -> None:
    monkeypatch.setenv("FEATCX_RUNNER", runner)
    monkeypatch.setenv("FEATCX_DEVICE", device)
    assert isinstance(deployments.runner_here(), ThreadPoolTaskRunner)
    given = {"a": "0a", "b": "0b"} if name == "compare" else {"preset": "digits", "settings": {}}
    state = deployments.FLOWS[name].fn(**given)
    assert state.type == StateType.FAILED
    assert says in state.message
    assert not (tmp_path / "store").exists()


def test_workers_have_the_same_deployments() -> None:
    wanted = yaml.safe_load((Path(__file__).parents[3] / "prefect.yaml").read_text())["deployments"]
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


@pytest.mark.parametrize(
    ("name", "given", "called"),
    [
        ("analyze", {"preset": "digits", "settings": {"target": {"samples": 100}}}, "resnet8-n100-s0"),
        ("sweep", {"preset": "digits", "settings": {}, "sizes": [50, 100]}, "digits resnet8-n50+100-s0 (2 targets)"),
        ("sweep", {"preset": "digits", "settings": {}, "sizes": [50, 50]}, "digits"),
        ("task-complexity", {"preset": "digits", "settings": {"complexity": {"depths": [0, 2, 3]}}}, "digits-3x5"),
        ("compare", {"a": "", "b": ""}, "compare"),
    ],
)
def test_a_run_is_called_what_it_does(
    monkeypatch: pytest.MonkeyPatch, name: str, given: dict[str, Any], called: str
) -> None:
    monkeypatch.setattr(deployments, "flow_run", SimpleNamespace(parameters=given))
    run_name = FLOWS[name].flow_run_name
    assert callable(run_name)
    assert run_name() == called
