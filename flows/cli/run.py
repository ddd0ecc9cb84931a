"""`featcx run`: one target end to end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.cli import options
from flows.cli.live import carried_out
from flows.cli.terminal import print_table

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
    json: options.Json = None,
    debug: options.Debug = False,
) -> None:
    """Analyses one target end to end: trains, disentangles, takes its feature apart, reports."""
    with options.errors_as_sentences(debug):
        from rich.console import Console

        from flows.asked import Asked

        spec, console = Asked(preset, config, options.overridden(set_, device=device, runner=runner)).run(), Console()

        def ready() -> tuple[Job[RunSpec], RunSpec]:
            from flows.analyze import analyze

            return analyze, spec

        results = carried_out(console, store, debug, ready)
        from flows.cli.display import summary_table

        target, stages = results["target"], results["stages"]
        print_table(console, summary_table(results))
        console.print(
            f"{spec.target.net}, n = {spec.target.samples}: test accuracy {target['test_accuracy']:.1%}, "
            f"train {target['train_accuracy']:.1%}. {stages['run']} stages computed, {stages['cached']} Cached, "
            f"{results['seconds']:.0f} s.",
            highlight=False,
        )
        console.print(f"Report: {results['report']}", highlight=False, soft_wrap=True)
        options.write_json(json, results)
