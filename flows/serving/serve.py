"""`featcx serve`: registers the deployments and their schedules with a Prefect server, and runs what is triggered."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from featcx_core.errors import InputError
from flows.running.embedded import answering
from flows.serving.timetable import NIGHTLY, Planned, check_schedules, read_schedules

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentScheduleUpdate
    from prefect.deployments.runner import RunnerDeployment

    Schedule = DeploymentScheduleCreate | DeploymentScheduleUpdate

NO_SERVER = (
    "There is no Prefect server to serve to: start one with `prefect server start`, then set "
    "PREFECT_API_URL=http://127.0.0.1:4200/api and run this again."
)

PATIENCE = 20.0  # seconds; a server that was just started takes some ten


def server_url() -> str:
    """The address of the Prefect server's API, which answers.

    Raises:
        InputError: without one.
    """
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        raise InputError(NO_SERVER)
    return answering(str(url), PATIENCE)


def deployments(schedules: list[Planned]) -> Iterator[RunnerDeployment]:
    """One deployment a flow, and one a schedule, whose parameters are the deployment's own.

    They would fit into the schedule, too, but the UI's switch empties a schedule's parameters (Prefect 3.8.8, issue 17982).
    """
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    from flows.serving.deployments import FLOWS
    from flows.serving.forms import worded

    def made(flow: Flow[Any, Any], name: str, **more: Any) -> RunnerDeployment:
        installed = EntrypointType.MODULE_PATH
        # to_deployment gives a coroutine where a loop runs, which is not here
        deployment = cast("RunnerDeployment", flow.to_deployment(name, paused=False, entrypoint_type=installed, **more))
        deployment.work_pool_name = None  # said outright, or a pool that `prefect deploy` has set would stay
        return deployment

    for name, flow in FLOWS.items():
        yield made(flow, name, tags=["featcx"])
    for each in schedules:
        flow = FLOWS[each.deployment]
        deployment = made(
            flow,
            each.name,
            schedules=[Cron(each.cron, timezone=each.timezone, active=each.active, slug=each.name)],
            parameters=worded(each.parameters),
            description=f"Runs `{each.deployment}` at {each.cron} ({each.timezone}) with the *Parameters* given here, while "
            f"its schedule is switched on.\n\n{flow.description}",
            tags=["featcx", "schedule"],
        )
        deployment.schedules = [*with_switches(f"{flow.name}/{each.name}", deployment.schedules or [])]
        yield deployment


def with_switches(full_name: str, own: Sequence[Schedule]) -> list[Schedule]:
    """The schedules to register: Prefect replaces all of a deployment's, and would forget what the UI has changed."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            there = client.read_deployment_by_name(full_name).schedules
        except ObjectNotFound:
            return [*own]
    active = {schedule.slug: schedule.active for schedule in there}
    switched = [each.model_copy(update={"active": active.get(each.slug, each.active)}) for each in own]
    fields = DeploymentScheduleCreate.model_fields.keys() - {"replaces"}  # which is of a request, not of a schedule
    added = [
        DeploymentScheduleCreate(**{name: getattr(each, name) for name in fields}) for each in there if not each.slug
    ]
    return [*switched, *added]


def serve_flows(
    store: Path,
    device: str | None,
    runner: str | None,
    remote: str | None,
    remote_read_only: bool,
    schedules: Path | None,
    limit: int | None,
    report_host: str,
    report_port: int,
) -> None:
    """Serves until it is told to stop; then schedules rest until the next time, and running flows end.

    Args:
        device, runner, remote: for all runs, as on the command line; None: the environment's or the default.
        schedules: a TOML file, in addition to the one built in.
        limit: runs at the same time; None: as many as there are devices.

    Raises:
        InputError: for anything that does not fit; then nothing has been registered.
    """
    from flows.running.embedded import prepare_environment

    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO")  # what the runs say, the UI shows
    os.environ.setdefault("PREFECT_RUNNER_POLL_FREQUENCY", "2")  # seconds; a click starts a run at once
    prepare_environment(debug=False)
    from flows.running.place import given_runtime, set_place
    from flows.running.preflight import check_runtime, check_store
    from flows.serving.report_route import reports_served
    from tasks.ui import ROUTE

    check_store(store)
    read_only = "true" if remote_read_only else None
    set_place(store, device=device, runner=runner, remote=remote, remote_read_only=read_only)
    places = check_runtime(given_runtime())
    planned = [NIGHTLY, *(read_schedules(schedules) if schedules else [])]
    check_schedules(planned)
    url = server_url()
    with reports_served(store, report_host, report_port) as address:
        os.environ[ROUTE] = address
        store.mkdir(parents=True, exist_ok=True)  # or a refused run would remove what another has just begun
        ready = list(deployments(planned))
        print(f"Prefect's UI:  {url.removesuffix('/api')}/deployments", flush=True)
        print(f"Reports:       {address}", flush=True)
        asyncio.run(_run_what_is_triggered(ready, limit or places))


async def _run_what_is_triggered(deployments: list[RunnerDeployment], limit: int) -> None:
    """Registers the deployments and runs them until SIGINT or SIGTERM; then cancels what runs and pauses the schedules."""
    from anyio import create_task_group
    from prefect.runner import Runner

    worker, told, loop = Runner(name="featcx", limit=limit), asyncio.Event(), asyncio.get_running_loop()
    for deployment in deployments:
        await worker.aadd_deployment(deployment)
    async with create_task_group() as tasks:
        tasks.start_soon(worker.start)
        while not worker.started:
            await asyncio.sleep(0.05)
        for number in (
            signal.SIGINT,
            signal.SIGTERM,
        ):  # Prefect's own handler for SIGTERM, set by now, ends in a traceback
            loop.add_signal_handler(number, told.set)
        named = ", ".join(str(deployment.name) for deployment in deployments)
        print(f"Serving {named}; {limit} at a time. Ctrl-C ends it.", flush=True)
        await told.wait()
        print(
            "featcx: stopping; running flows are cancelled, their finished stages are kept.",
            file=sys.stderr,
            flush=True,
        )
        await worker.astop()
