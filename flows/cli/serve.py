"""`featcx serve`: the deployments and their schedules, for as long as the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import STORE, Debug, Device, ReadOnly, Remote, Runner, Store, errors_as_sentences


def serve(
    store: Store = STORE,
    device: Device = None,
    runner: Runner = None,
    remote: Remote = None,
    remote_read_only: ReadOnly = False,
    schedules: Annotated[
        Path | None, typer.Option("--schedules", help="TOML file with schedules of your own; README has an example.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Runs at the same time; default: as many as devices.")
    ] = None,
    report_host: Annotated[str, typer.Option("--report-host", help="Where reports are served.")] = "127.0.0.1",
    report_port: Annotated[int, typer.Option("--report-port", min=0, max=65535, help="0: any free port.")] = 4280,
    debug: Debug = False,
) -> None:
    """Serves the flows to Prefect's UI: forms to fill in, schedules to switch on, reports to open.

    Needs a Prefect server: start one with `prefect server start` and set PREFECT_API_URL. Ends with Ctrl-C.
    """
    with errors_as_sentences(debug):
        from flows.serving.serve import serve_flows

        serve_flows(store, device, runner, remote, remote_read_only, schedules, limit, report_host, report_port)
