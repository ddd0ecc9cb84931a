"""What the commands that run a flow have in common: a server that starts while they read, and what is shown meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from flows.job import Job, S


def carried_out(
    console: Console,
    store: Path,
    debug: bool,
    ready: Callable[[], tuple[Job[S], S]],
    show_early: Callable[[dict[str, Any]], None] = lambda results: None,
) -> dict[str, Any]:
    """The results of a flow, whose stages are shown while it runs.

    Args:
        ready: imports the flow and makes its spec, while the workflow server starts.
        show_early: called with what a run has found so far, each time that there is more.
    """
    from flows.running.embedded import PrefectServer, prepare_environment, reporting_to
    from flows.running.preflight import check_store

    check_store(store)
    prepare_environment(debug)
    with PrefectServer() as server, contextlib.ExitStack() as starting:
        starting.enter_context(console.status("Starting the workflow server"))
        job, spec = ready()
        from flows.cli.display import live_display
        from flows.cli.plan import announce
        from flows.recipes import count_stages
        from flows.running.submitting import new_env

        job.check(spec, store)
        announce(console, job, spec, store)
        count = count_stages(lambda submit: job.stages(submit, spec))
        env, url = new_env(spec, store, shown=server.own is not None), server.url()
        starting.close()
        with reporting_to(url), live_display(env, count, console, show_early):
            results = job(spec, store, env)
    if "remote" in results:
        from flows.running.publishing import remote_line

        console.print(remote_line(results["remote"]), highlight=False, soft_wrap=True)
    return results
