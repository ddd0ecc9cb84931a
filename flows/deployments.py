"""The flows that Prefect's UI triggers: each asks by a form, checks what was filled in, and has the command's own body run.

Where a run works is for whoever serves it to say, see place.py. What it gives and how it fails, the command line tells in
the same words.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from prefect import Flow, flow, get_run_logger
from prefect.exceptions import FailedRun
from prefect.runtime import flow_run
from prefect.states import Failed, State
from pydantic import ValidationError

from featcx_core.errors import InputError
from featcx_core.specs import AnalysisSpec, RunSpec, SweepSpec, validate
from featcx_core.store import Store
from flows import grid
from flows.forms import ComplexityForm, Preset, RunForm, SweepForm, asking, filled_in, sweep_axes
from flows.grid import SWEEP_DEFAULTS
from flows.place import given_runtime, given_store
from flows.preflight import check
from flows.presets import merge, parse_override, preset_values
from flows.running import new_env, nothing_left, task_runner

PRESET = (Preset, Preset("mnist"), "settings to start from")
LEAVE = 2.0  # seconds; the store is whole at any moment
CHANGED = "what to change of the preset; an empty field takes the preset's value"


def filled_spec(preset: Any, settings: Any, *overrides: dict[str, Any]) -> RunSpec:
    """The spec that a form asks for.

    Raises:
        InputError: for a value that does not fit.
    """
    values = preset_values(filled_in(preset))
    for change in (*overrides, filled_in(settings), {"runtime": given_runtime().model_dump()}):
        values = merge(values, change)
    return validate(values)


def filled_sweep(preset: Any, settings: Any, **axes: Any) -> SweepSpec:
    """The sweep that a form asks for: without variants and control, unless they are filled in.

    Raises:
        InputError: for a value that does not fit.
    """
    base = filled_spec(preset, settings, *map(parse_override, SWEEP_DEFAULTS))
    given = {name: values for name, values in axes.items() if values}
    try:
        return SweepSpec.model_validate({"base": base} | given)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(map(str, first["loc"]))
        raise InputError(f"{path} = {first['input']!r} will not do: {first['msg']}.") from None


def answered(body: Callable[[], Any]) -> State[Any] | None:
    """Runs a flow's body in a store that bad input leaves as it was; that fails the run at once, in one sentence."""
    try:
        with nothing_left(Store(given_store())):
            body()
    except InputError as error:
        logging.getLogger("prefect.flow_runs").addFilter(_no_traceback)
        get_run_logger().error(str(error))
        return Failed(message=str(error))
    except Exception:
        raise
    except BaseException:  # told to end: Prefect has a moment to say so, but would wait for trainings
        leaving = threading.Timer(LEAVE, os._exit, [1])
        leaving.daemon = True
        leaving.start()
        raise
    return None


def _no_traceback(record: logging.LogRecord) -> bool:
    """Prefect logs the traceback of its own wait for a failed state; the sentence says it all."""
    return not (record.exc_info and isinstance(record.exc_info[1], FailedRun))


def named(name: Callable[..., str]) -> Callable[[], str]:
    """A run's name from its parameters; while they do not make a run, the preset's."""

    def run_name() -> str:
        given = dict(flow_run.parameters)
        try:
            return name(**given)
        except InputError:
            return str(filled_in(given.get("preset", "refused")))

    return run_name


def deployed(
    name: str, run_name: Callable[..., str], description: str, **fields: tuple[Any, Any, str]
) -> Callable[[Callable[..., Any]], Flow[Any, Any]]:
    """Makes a function a flow that asks by a form. Prefect would check types again, and answer with a traceback."""
    settled = flow(
        name=name,
        flow_run_name=named(run_name),
        description=description,
        validate_parameters=False,
        task_runner=task_runner(RunSpec(runtime=given_runtime())),
    )
    return lambda function: settled(asking(**fields)(function))


@deployed(
    "analyze",
    lambda preset, settings: grid.run_name(filled_spec(preset, settings)),
    """Trains a target, disentangles its feature into components of rising complexity, and analyses each of them.

Choose a **preset** and change what you like; an empty field takes the preset's value. The store keeps every stage under its
content, so what has been computed before is *Cached*. Under *Artifacts* the run leaves a **summary**, a **table** a row an
order, the **pictures**, and a link to its **report**.""",
    preset=PRESET,
    settings=(RunForm, {}, CHANGED),
)
def analyze(preset: Any, settings: Any) -> State[Any] | None:
    """Analyses one target end to end."""
    from flows.analyze import run_analysis

    def body() -> None:
        spec = filled_spec(preset, settings)
        check(spec, given_store())
        run_analysis(spec, new_env(spec, given_store(), shown=True))

    return answered(body)


def sweep_run_name(preset: Any, settings: Any, **axes: Any) -> str:
    """What `sweep` runs: preset and points."""
    from flows.sweep import sweep_name

    return f"{filled_in(preset)} {sweep_name(filled_sweep(preset, settings, **axes))}"


@deployed(
    "sweep",
    sweep_run_name,
    """Analyses every combination of **sizes**, **archs**, **seeds** and further fields (**over**: path and values), and
compares them.

What the targets share is computed once, what exists is *Cached*, and a target that fails stops no other. Variants (distilled,
pruned, quantised) and the substitution control are left out unless *settings* turn them on. The report holds the figures over
sizes and what this sweep says of the paper's claims; its table is what `featcx predict` reads.""",
    preset=PRESET,
    **sweep_axes(),
    settings=(SweepForm, {}, CHANGED),
)
def sweep(preset: Any, settings: Any, **axes: Any) -> State[Any] | None:
    """Analyses many targets and compares them."""
    from flows.sweep import check_sweep, run_sweep

    def body() -> None:
        spec = filled_sweep(preset, settings, **axes)
        check_sweep(spec, given_store())
        run_sweep(spec, new_env(spec.base, given_store(), shown=True))

    return answered(body)


def complexity_run_name(preset: Any, settings: Any) -> str:
    """What `task-complexity` runs: digits-5x5."""
    from flows.complexity import complexity_name

    return complexity_name(filled_spec(preset, settings))


@deployed(
    "task-complexity",
    complexity_run_name,
    """Does the order of a component mean what it says? Nets learn random tasks whose complexity is known, and what they
learned is taken apart: the deeper the task, the more weight should lie on high orders.

Depths and seeds stand under *complexity*.""",
    preset=(Preset, Preset("digits"), PRESET[2]),
    settings=(ComplexityForm, {}, CHANGED),
)
def task_complexity(preset: Any, settings: Any) -> State[Any] | None:
    """Checks the method on random tasks of known complexity."""
    from flows.complexity import run_complexity

    def body() -> None:
        spec = filled_spec(preset, settings)
        check(spec, given_store())
        run_complexity(spec, new_env(spec, given_store(), shown=True))

    return answered(body)


@deployed(
    "compare",
    lambda a, b: f"{b[:12]} against {a[:12]}" if a and b else "compare",
    """Holds two analysed targets against each other, order by order: paired differences with intervals.

Give the keys of two runs' reports, or how they begin; the address of a report holds its key, and so does
`featcx artifacts list`.""",
    a=(str, "", "key of a run's report"),
    b=(str, "", "key of another run's report"),
)
def compare(a: str, b: str) -> State[Any] | None:
    """Compares two runs' targets."""
    from flows.compare import compare_env, networks_of, run_comparison

    def body() -> None:
        if not a or not b:
            raise InputError("Give the keys of two runs' reports as a and b; see `featcx artifacts list`.")
        networks = networks_of(given_store(), a, b)
        run_comparison(networks, AnalysisSpec(), compare_env(given_store(), shown=True), f"{b[:12]} against {a[:12]}")

    return answered(body)


FLOWS: dict[str, Flow[Any, Any]] = {each.name: each for each in (analyze, sweep, task_complexity, compare)}
