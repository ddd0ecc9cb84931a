"""The flows that Prefect's UI triggers: each asks by a form, checks what was filled in, and has the command's own body run.

Where a run works is for whoever serves it to say, see place.py. What it gives and how it fails, the command line tells in
the same words.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prefect import Flow, flow, get_run_logger
from prefect.exceptions import FailedRun
from prefect.runtime import flow_run
from prefect.states import Failed, State
from prefect.task_runners import TaskRunner

from featcx_core.errors import InputError
from featcx_core.specs import AnalysisSpec, RunSpec
from featcx_core.store.artifacts import Store
from flows import grid
from flows.running.place import given_runtime, given_store
from flows.running.preflight import check_runtime
from flows.running.submitting import new_env, nothing_left, task_runner
from flows.serving.filled import filled_spec, filled_sweep, ready_networks, ready_spec, ready_sweep
from flows.serving.forms import ComplexityForm, Preset, RunForm, SweepForm, asking, filled_in, sweep_axes

if TYPE_CHECKING:
    from flows.sweep import Swept

PRESET = (Preset, Preset("mnist"), "settings to start from")
LEAVE = 2.0  # seconds; the store is whole at any moment
CHANGED = "what to change of the preset; an empty field takes the preset's value"


def answered(body: Callable[[], str | None]) -> State[Any] | None:
    """Runs a flow's body in a store that bad input leaves as it was; that fails the run at once, in one sentence.

    Args:
        body: gives a sentence where it did its work, but the run shall fail all the same.
    """
    try:
        with nothing_left(Store(given_store())):
            check_runtime(given_runtime())
            said = body()
    except InputError as error:
        said = str(error)
    except Exception:
        raise
    except BaseException:  # told to end: Prefect has a moment to say so, but would wait for trainings
        leaving = threading.Timer(LEAVE, os._exit, [1])
        leaving.daemon = True
        leaving.start()
        raise
    if said is None:
        return None
    logging.getLogger("prefect.flow_runs").addFilter(_no_traceback)
    get_run_logger().error(said)
    return Failed(message=said)


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


def runner_here() -> TaskRunner[Any]:
    """The runner that the environment names; threads where it will not do, which each run then says, see `answered`."""
    try:
        return task_runner(RunSpec(runtime=given_runtime()))
    except (InputError, ImportError):
        return task_runner(RunSpec())


def deployed(
    name: str, run_name: Callable[..., str], description: str, **fields: tuple[Any, Any, str]
) -> Callable[[Callable[..., Any]], Flow[Any, Any]]:
    """Makes a function a flow that asks by a form. Prefect would check types again, and answer with a traceback."""
    settled = flow(
        name=name,
        flow_run_name=named(run_name),
        description=description,
        validate_parameters=False,
        task_runner=runner_here(),
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
        spec = ready_spec(preset, settings)
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

What the targets share is computed once, what exists is *Cached*, and a target that fails stops no other: the run then ends
*Failed*, with a report on the others. Variants (distilled,
pruned, quantised) and the substitution control are left out unless *settings* turn them on. The report holds the figures over
sizes and what this sweep says of the paper's claims; its table is what `featcx predict` reads.""",
    preset=PRESET,
    **sweep_axes(),
    settings=(SweepForm, {}, CHANGED),
)
def sweep(preset: Any, settings: Any, **axes: Any) -> State[Any] | None:
    """Analyses many targets and compares them."""
    from flows.sweep import run_sweep

    def body() -> str | None:
        spec = ready_sweep(preset, settings, **axes)
        return failures(run_sweep(spec, new_env(spec.base, given_store(), shown=True)))

    return answered(body)


def failures(done: Swept) -> str | None:
    """What failed in a sweep that has compared the other targets: how many, each with its reason."""
    if not done.failed:
        return None
    reasons = "; ".join(f"{point}: {reason}" for point, reason in done.failed.items())
    return f"{len(done.failed)} of {len(done.failed) + len(done.refs)} targets failed: {reasons}"


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
        spec = ready_spec(preset, settings)
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
    from flows.compare import compare_env, run_comparison

    def body() -> None:
        networks = ready_networks(a, b)
        run_comparison(networks, AnalysisSpec(), compare_env(given_store(), shown=True), f"{b[:12]} against {a[:12]}")

    return answered(body)


FLOWS: dict[str, Flow[Any, Any]] = {each.name: each for each in (analyze, sweep, task_complexity, compare)}
