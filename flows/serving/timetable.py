"""What runs when: schedules by name, built in or from a file, checked as the form and the run itself would."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from featcx_core.errors import InputError
from featcx_core.specs import nearest


class Planned(NamedTuple):
    """A schedule: a deployment that runs with these parameters at these times.

    Attributes:
        active: whether it runs as soon as it is registered; from then on its switch in the UI counts.
    """

    name: str
    deployment: str
    cron: str
    parameters: dict[str, Any]
    timezone: str = "UTC"
    active: bool = True


NIGHTLY = Planned(
    "nightly-sizes",
    "sweep",
    "0 1 * * *",
    {"preset": "mnist", "sizes": [100, 200, 500, 1000], "seeds": [0, 1]},
    active=False,
)


def read_schedules(path: Path) -> list[Planned]:
    """The schedules of a TOML file: tables [[schedule]] with the fields of `Planned`.

    Raises:
        InputError: for a file or a schedule that will not do.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a TOML file with --schedules.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from error
    tables = values.get("schedule")
    if not isinstance(tables, list) or set(values) != {"schedule"}:
        raise InputError(f"{path} holds no schedules; write a table [[schedule]] for each.")
    return [_planned(table, f"{path}: schedule {number}") for number, table in enumerate(tables, 1)]


def _planned(table: dict[str, Any], where: str) -> Planned:
    known: dict[str, type] = {
        "name": str,
        "deployment": str,
        "cron": str,
        "parameters": dict,
        "timezone": str,
        "active": bool,
    }
    for name, value in table.items():
        if name not in known:
            raise InputError(f"{where} has a field '{name}'; {nearest(name, list(known))}")
        if not isinstance(value, known[name]):
            raise InputError(f"{where}: {name} = {value!r} will not do: give a {known[name].__name__}.")
    missing = [name for name in ("name", "deployment", "cron") if name not in table]
    if missing:
        raise InputError(f"{where} has no {missing[0]}; a schedule takes name, deployment and cron.")
    return Planned(**{"parameters": {}, **table})


def check_schedules(schedules: list[Planned]) -> None:
    """Whether all can be registered; nothing is, otherwise.

    Raises:
        InputError: with the schedule's name and what to do.
    """
    from flows.serving.deployments import FLOWS

    seen = set()
    for planned in schedules:
        where = f"The schedule '{planned.name}'"
        if planned.name in seen:
            raise InputError(f"{where} is there twice; give each a name of its own ('{NIGHTLY.name}' is built in).")
        if planned.name in FLOWS or set(planned.name) & set("/%&><{}"):
            raise InputError(f"{where} cannot be called so; give it a name like '{NIGHTLY.name}'.")
        seen.add(planned.name)
        if planned.deployment not in FLOWS:
            raise InputError(
                f"{where} is of a deployment '{planned.deployment}'; {nearest(planned.deployment, list(FLOWS))}"
            )
        _check_times(planned, where)
        _check_parameters(planned, where)


def _check_times(planned: Planned, where: str) -> None:
    from zoneinfo import ZoneInfo

    from prefect.schedules import Cron

    try:
        Cron(planned.cron)
    except ValueError:
        raise InputError(
            f"{where} has a cron line that does not parse: '{planned.cron}'; write minute, hour, day, month and weekday, "
            "such as '0 1 * * *'."
        ) from None
    try:
        ZoneInfo(planned.timezone)
    except (ValueError, OSError, KeyError):
        raise InputError(
            f"{where}: there is no time zone '{planned.timezone}'; write one like Europe/Berlin."
        ) from None


def _check_parameters(planned: Planned, where: str) -> None:
    """As the form would, and then as the run itself."""
    from jsonschema.exceptions import best_match  # type: ignore[import-untyped]  # Prefect's own
    from prefect.utilities.schema_tools.validation import validate

    from flows.serving.deployments import FLOWS, READY
    from flows.serving.forms import worded

    asked = FLOWS[planned.deployment].parameters
    for name in planned.parameters:
        if name not in asked.properties:
            raise InputError(f"{where} gives '{name}'; {nearest(name, list(asked.properties))}")
    refused = best_match(validate(worded(planned.parameters), asked.model_dump(exclude_unset=True)))
    if refused is not None:
        raise InputError(f"{where}: {_said(refused)}")
    defaults = {name: about.get("default") for name, about in asked.properties.items()}
    try:
        READY[planned.deployment](**defaults | planned.parameters)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _said(refused: Any) -> str:
    """What a form's schema refuses, in the words of the other refusals."""
    path = refused.json_path.removeprefix("$.")
    if refused.validator != "additionalProperties":
        return f"{path} = {refused.instance!r} will not do: {refused.message}."
    known = list(refused.schema["properties"])
    name = next(name for name in refused.instance if name not in known)
    if name == "runtime":
        return f"{path} has no field 'runtime'; what executes is for `featcx serve` to say, with --device and --runner."
    return f"{path} has no field '{name}' in the form of this deployment; {nearest(name, known)}"
