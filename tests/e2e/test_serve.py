"""`featcx serve` says in a sentence what it lacks, and then has registered nothing; prefect.yaml has the same deployments."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint

from flows.deployments import FLOWS
from flows.timetable import NIGHTLY
from tests.e2e.conftest import featcx
from tests.e2e.prefect_ui import free_port


@pytest.mark.parametrize(
    ("arguments", "address", "says"),
    [
        ([], None, "start one with `prefect server start`, then set PREFECT_API_URL"),
        ([], f"http://127.0.0.1:{free_port()}/api", "does not answer"),
        (["--runner", "slurm"], None, "runtime.runner = 'slurm' will not do"),
        (["--device", "cuda:9"], None, "There is no device 'cuda:9' here"),
        (["--schedules", "none.toml"], None, "none.toml cannot be read"),
    ],
)
def test_what_is_lacking_is_told(tmp_path: Path, arguments: list[str], address: str | None, says: str) -> None:
    own = {"PREFECT_HOME": str(tmp_path / "home"), **({"PREFECT_API_URL": address} if address else {})}
    done = featcx("serve", "--store", tmp_path / "store", *arguments, **own)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("featcx: ")
    assert says in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "store").exists()


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
