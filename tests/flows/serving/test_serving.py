"""Schedules that files name: read, refused in a sentence, registered without forgetting what the UI has switched."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound

from featcx_core.errors import InputError
from flows.serving.serve import deployments, with_switches
from flows.serving.timetable import NIGHTLY, Planned, check_schedules, read_schedules

WEEKLY = """
[[schedule]]
name = "weekly"
deployment = "analyze"
cron = "0 3 * * sun"
timezone = "Europe/Berlin"
parameters = { preset = "digits", settings = { variants = { pruned = false }, reliability = { enabled = false } } }
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "schedules.toml"
    path.write_text(text)
    return path


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the server has, by a deployment's full name."""
    found = dict[str, Any]()

    class Client:
        def __enter__(self) -> Client:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def read_deployment_by_name(self, name: str) -> Any:
            if name not in found:
                raise ObjectNotFound(KeyError(name))
            return SimpleNamespace(schedules=found[name])

    monkeypatch.setattr("prefect.client.orchestration.get_client", lambda sync_client: Client())
    return found


def schedule(cron: str, active: bool, slug: str | None = None) -> DeploymentScheduleCreate:
    return DeploymentScheduleCreate(schedule=CronSchedule(cron=cron), active=active, slug=slug)


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATCX_STORE", str(tmp_path / "store"))


def test_schedules_become_deployments_with_their_parameters(tmp_path: Path, there: dict[str, Any]) -> None:
    planned = [NIGHTLY, *read_schedules(written(tmp_path, WEEKLY))]
    check_schedules(planned)
    made = {deployment.name: deployment for deployment in deployments(planned)}
    assert list(made) == ["analyze", "sweep", "task-complexity", "compare", "nightly-sizes", "weekly"]
    assert made["weekly"].flow_name == "analyze"
    assert made["weekly"].parameters == {
        "preset": "digits",
        "settings": {"variants": {"pruned": False}, "reliability": {"enabled": "off"}},
    }
    [weekly] = made["weekly"].schedules
    assert (weekly.schedule.cron, weekly.schedule.timezone, weekly.active) == ("0 3 * * sun", "Europe/Berlin", True)
    [nightly] = made["nightly-sizes"].schedules
    assert not nightly.active
    assert not made["sweep"].schedules


def test_a_switch_in_the_ui_outlives_the_next_start(there: dict[str, Any]) -> None:
    own = [schedule("0 1 * * *", False, "nightly-sizes")]
    assert with_switches("sweep/nightly-sizes", own) == own
    there["sweep/nightly-sizes"] = [schedule("0 9 * * *", True, "nightly-sizes"), schedule("0 5 * * *", True)]
    kept = [(each.schedule.cron, each.active, each.slug) for each in with_switches("sweep/nightly-sizes", own)]
    assert kept == [("0 1 * * *", True, "nightly-sizes"), ("0 5 * * *", True, None)]


def test_a_schedule_that_somebody_added_stays_whole(there: dict[str, Any]) -> None:
    added = DeploymentSchedule(
        schedule=CronSchedule(cron="0 5 * * *", timezone="Europe/Berlin"),
        active=False,
        max_scheduled_runs=3,
        parameters={"preset": "digits"},
    )
    there["sweep/nightly-sizes"] = [added]
    [kept] = with_switches("sweep/nightly-sizes", [])
    own = {"id", "created", "updated", "deployment_id"}  # the server's
    assert kept.model_dump(exclude={"replaces"}) == added.model_dump(exclude=own)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[schedule]", "is not valid TOML"),
        ("a = 1", "holds no schedules"),
        ("schedule = []\nother = 1", "holds no schedules"),
        ('[[schedule]]\nname = "x"\ncron = "0 1 * * *"', "schedule 1 has no deployment"),
        (WEEKLY + 'hour = "3"', "has a field 'hour'"),
        (WEEKLY.replace('"0 3 * * sun"', "3"), "cron = 3 will not do"),
    ],
)
def test_a_file_that_will_not_do_is_told(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_schedules(written(tmp_path, text))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_schedules(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("planned", "says"),
    [
        (Planned("x", "sweep", "99 1 * * *", {}), "'x' has a cron line that does not parse: '99 1"),
        (Planned("x", "sweep", "every night", {}), "does not parse"),
        (Planned("x", "swep", "0 1 * * *", {}), "did you mean 'sweep'"),
        (Planned("x", "sweep", "0 1 * * *", {}, "Europe/Atlantis"), "no time zone 'Europe/Atlantis'"),
        (Planned("x", "sweep", "0 1 * * *", {"size": [1]}), "did you mean 'sizes'"),
        (Planned("x", "sweep", "0 1 * * *", {"preset": "digits", "sizes": [9, 9]}), "'x': The sweep lists .* twice"),
        (
            Planned("x", "analyze", "0 1 * * *", {"settings": {"target": {"samples": 0}}}),
            "target.samples = 0 will not do",
        ),
        (Planned("x", "analyze", "0 1 * * *", {"preset": "digit"}), "preset = 'digit' will not do: .*'digits'"),
        (Planned("x", "analyze", "0 1 * * *", {"settings": "digits"}), "settings = 'digits' will not do"),
        (Planned("x", "analyze", "0 1 * * *", {"settings": {"runtime": {"device": "cpu"}}}), "say, with --device"),
        (Planned("x", "analyze", "0 1 * * *", {"settings": {"sed": 1}}), "settings has no field 'sed'.* mean 'seed'"),
        (
            Planned("x", "analyze", "0 1 * * *", {"settings": {"target": {"net": "resnet9"}}}),
            "There is no net 'resnet9'",
        ),
        (
            Planned("x", "analyze", "0 1 * * *", {"preset": "digits", "settings": {"target": {"samples": 205}}}),
            "'x': .*205",
        ),
        (Planned("x", "task-complexity", "0 1 * * *", {"settings": {"target": {"net": "resnet8"}}}), "field 'target'"),
        (Planned("x", "sweep", "0 1 * * *", {"sizes": ["100"]}), r"sizes\[0\] = '100' will not do"),
        (Planned("x", "sweep", "0 1 * * *", {"settings": {"seed": 1}}), "settings has no field 'seed'"),
        (Planned("x", "sweep", "0 1 * * *", {"preset": "digits", "archs": ["resnet9"]}), "There is no net 'resnet9'"),
        (Planned("x", "sweep", "0 1 * * *", {"over": {"seed": [1, 2]}}), "'seed' has an option of its own"),
        (Planned("x", "compare", "0 1 * * *", {}), "'x': Give the keys of two runs' reports"),
        (Planned("x", "compare", "0 1 * * *", {"a": "0a1b", "b": "0c1d"}), "'x': .*0a1b"),
        (Planned("nightly-sizes", "analyze", "0 1 * * *", {}), "there twice"),
        (Planned("sweep", "sweep", "0 1 * * *", {}), "cannot be called so"),
        (Planned("a/b", "sweep", "0 1 * * *", {}), "cannot be called so"),
    ],
)
def test_a_schedule_that_will_not_do_is_told(planned: Planned, says: str) -> None:
    with pytest.raises(InputError, match=says):
        check_schedules([NIGHTLY, planned])
