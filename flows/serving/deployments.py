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
from prefect.task_runners import TaskRunner

from featcx_core.errors import InputError
from featcx_core.specs import RunSpec
from featcx_core.store.artifacts import Store
from flows.analyze import analyze as analysis
from flows.compare import compare as two_targets
from flows.complexity import complexity as tasks_of_known_complexity
from flows.job import Job, Results, S
from flows.running.embedded import save_trainings
from flows.running.place import given_runtime, given_store
from flows.running.preflight import check_runtime
from flows.running.submitting import new_env, nothing_left, task_runner
from flows.serving.filled import filled_pair, filled_spec, filled_sweep
from flows.serving.forms import ComplexityForm, Preset, RunForm, SweepForm, asking, filled_in, sweep_axes
from flows.sweep import sweep as targets

PRESET = (Preset, Preset("mnist"), "settings to start from")
LEAVE = 2.0  # seconds; the store is whole at any moment
FLOWS: dict[str, Flow[Any, Any]] = {}  # by the names of their deployments
READY: dict[
    str, Callable[..., Any]
] = {}  # what makes of a flow's parameters a spec that can run here, or raises InputError
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
        save_trainings()
        raise
    if said is None:
        return None
    logging.getLogger("prefect.flow_runs").addFilter(_no_traceback)
    get_run_logger().error(said)
    return Failed(message=said)


def _no_traceback(record: logging.LogRecord) -> bool:
    """Prefect logs the traceback of its own wait for a failed state; the sentence says it all."""
    return not (record.exc_info and isinstance(record.exc_info[1], FailedRun))


def runner_here() -> TaskRunner[Any]:
    """The runner that the environment names; threads where it will not do, which each run then says, see `answered`."""
    try:
        return task_runner(RunSpec(runtime=given_runtime()))
    except (InputError, ImportError):
        return task_runner(RunSpec())


def deployed(
    job: Job[S],
    filled: Callable[..., S],
    description: str,
    title: Callable[..., str] | None = None,
    **fields: tuple[Any, Any, str],
) -> Flow[Any, Any]:
    """A flow that asks by a form. Prefect would check types again, and answer with a traceback.

    Args:
        filled: makes a spec of the form's fields, which are name = (type, default, description).
        title: of a run in the list of runs, given spec and fields, where the flow's own would not tell enough.
    """

    def ready(**given: Any) -> S:
        spec = filled(**given)
        job.check(spec, given_store())
        return spec

    def run_name() -> str:
        given = dict(flow_run.parameters)
        try:
            spec = filled(**given)
            return title(spec, **given) if title else job.title(spec)
        except InputError:
            return str(filled_in(given.get("preset", job.name)))  # while the parameters do not make a run

    def run(**given: Any) -> State[Any] | None:
        """Runs what the form asks for."""

        def body() -> str | None:
            spec = ready(**given)
            return failures(job.within(spec, new_env(spec, given_store(), shown=True), job.title(spec)))

        return answered(body)

    run.__name__ = job.name.replace("-", "_")  # a run's process finds the flow by it, and by this module's name
    READY[job.name] = ready
    FLOWS[job.name] = flow(
        name=job.name,
        flow_run_name=run_name,
        description=description,
        validate_parameters=False,
        task_runner=runner_here(),
    )(asking(**fields)(run))
    return FLOWS[job.name]


def failures(results: Results) -> str | None:
    """What failed in a sweep that has compared the other targets: how many, each with its reason."""
    failed = results.get("failed")
    if not failed:
        return None
    reasons = "; ".join(f"{point}: {reason}" for point, reason in failed.items())
    return f"{len(failed)} of {len(failed) + len(results['points'])} targets failed: {reasons}"


analyze = deployed(
    analysis,
    filled_spec,
    """Trains a target, disentangles its feature into components of rising complexity, and analyses each of them.

Choose a **preset** and change what you like; an empty field takes the preset's value. The store keeps every stage under its
content, so what has been computed before is *Cached*. Under *Artifacts* the run leaves a **summary**, a **table** a row an
order, the **pictures**, and a link to its **report**.""",
    preset=PRESET,
    settings=(RunForm, {}, CHANGED),
)
sweep = deployed(
    targets,
    filled_sweep,
    """Analyses every combination of **sizes**, **archs**, **layers**, **seeds** and further fields (**over**: path and
values), and compares them.

What the targets share is computed once, what exists is *Cached*, and a target that fails stops no other: the run then ends
*Failed*, with a report on the others. Variants (distilled,
pruned, quantised) and the substitution control are left out unless *settings* turn them on. The report holds the figures over
sizes and what this sweep says of the paper's claims; its table is what `featcx predict` reads.""",
    title=lambda spec, preset, **_: f"{filled_in(preset)} {targets.title(spec)}",
    preset=PRESET,
    **sweep_axes(),
    settings=(SweepForm, {}, CHANGED),
)
task_complexity = deployed(
    tasks_of_known_complexity,
    filled_spec,
    """Does the order of a component mean what it says? Nets learn random tasks whose complexity is known, and what they
learned is taken apart: the deeper the task, the more weight should lie on high orders.

Depths and seeds stand under *complexity*.""",
    preset=(Preset, Preset("digits"), PRESET[2]),
    settings=(ComplexityForm, {}, CHANGED),
)
compare = deployed(
    two_targets,
    filled_pair,
    """Holds two analysed targets against each other, order by order: paired differences with intervals.

Give the keys of two runs' reports, or how they begin; the address of a report holds its key, and so does
`featcx artifacts list`.""",
    a=(str, "", "key of a run's report"),
    b=(str, "", "key of another run's report"),
)
