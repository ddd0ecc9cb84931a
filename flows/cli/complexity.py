"""`featcx complexity`: does the order mean what it says?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.cli import options
from flows.cli.live import carried_out
from flows.cli.terminal import print_table

if TYPE_CHECKING:
    from featcx_core.specs import RunSpec
    from flows.job import Job


def complexity(
    preset: options.Preset = "digits",
    config: options.Config = None,
    set_: options.Set = None,
    store: options.Store = options.STORE,
    device: options.Device = None,
    remote: options.Remote = None,
    remote_read_only: options.ReadOnly = False,
    no_wait: options.NoWait = False,
    json: options.Json = None,
    debug: options.Debug = False,
) -> None:
    """Checks the method on random tasks of known complexity (Task-n): do deeper ones put more weight on high orders?"""
    with options.errors_as_sentences(debug):
        from rich.console import Console

        from flows.asked import Asked

        away = options.away(remote, remote_read_only, no_wait)
        changes = options.overridden(set_, device=device, **away)
        spec, console = Asked(preset, config, changes).run(), Console()

        def ready() -> tuple[Job[RunSpec], RunSpec]:
            from flows.complexity import complexity

            return complexity, spec

        results = carried_out(console, store, debug, ready)
        from flows.cli.display import tasks_table
        from flows.showing import summary_sentence

        print_table(console, tasks_table(results))
        console.print(summary_sentence(results), highlight=False)
        console.print(f"Report: {results['report']}", highlight=False, soft_wrap=True)
        options.write_json(json, results)
