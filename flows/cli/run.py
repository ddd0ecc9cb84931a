"""`featcx run`: one target end to end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flows.cli import options
from flows.cli.live import carried_out

if TYPE_CHECKING:
    from featcx_core.specs import RunSpec
    from flows.job import Job


def run(
    preset: options.Preset = "mnist",
    config: options.Config = None,
    set_: options.Set = None,
    store: options.Store = options.STORE,
    device: options.Device = None,
    runner: options.Runner = None,
    remote: options.Remote = None,
    remote_read_only: options.ReadOnly = False,
    no_wait: options.NoWait = False,
    json: options.Json = None,
    open_: options.Open = False,
    debug: options.Debug = False,
) -> None:
    """Analyses one target end to end: trains, disentangles, takes its feature apart, reports."""
    with options.errors_as_sentences(debug):
        from rich.console import Console

        from flows.asked import Asked

        away = options.away(remote, remote_read_only, no_wait)
        changes = options.overridden(set_, device=device, runner=runner, **away)
        spec, console = Asked(preset, config, changes).run(), Console()

        def ready() -> tuple[Job[RunSpec], RunSpec]:
            from flows.analyze import analyze

            return analyze, spec

        def show(found: dict[str, Any], report: str = "") -> None:
            from flows.cli.display import show_run

            so_far = "Report so far, variants and control to come" if found["report"] else "To come"
            show_run(console, found, report or so_far)
            if open_ and found["report"]:
                options.show_page(found["report"])

        results = carried_out(console, store, debug, ready, show)
        show(results, "Report")
        options.write_json(json, results)
