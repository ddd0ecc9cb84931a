"""`featcx sweep`: many targets, compared."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from flows.cli import options
from flows.cli.live import carried_out
from flows.cli.terminal import print_table

if TYPE_CHECKING:
    from featcx_core.specs import SweepSpec
    from flows.job import Job


def sweep(
    preset: options.Preset = "mnist",
    sizes: options.Sizes = None,
    archs: options.Archs = None,
    layers: options.Layers = None,
    seeds: options.Seeds = None,
    over: options.Over = None,
    config: options.Config = None,
    set_: options.Set = None,
    store: options.Store = options.STORE,
    device: options.Device = None,
    runner: options.Runner = None,
    remote: options.Remote = None,
    remote_read_only: options.ReadOnly = False,
    no_wait: options.NoWait = False,
    json: options.Json = None,
    debug: options.Debug = False,
) -> None:
    """Analyses every combination of sizes, architectures, layers and seeds; what they share is computed once; compares them.

    Variants (distilled, pruned, quantised) and the substitution control are left out unless --set turns them on.
    """
    with options.errors_as_sentences(debug):
        from rich.console import Console

        from flows.asked import Asked
        from flows.grid import points

        away = options.away(remote, remote_read_only, no_wait)
        changes = options.overridden(set_, device=device, runner=runner, **away)
        spec, console = Asked(preset, config, changes, sizes, archs, seeds, over or (), layers).sweep(), Console()
        grid = points(spec)

        def ready() -> tuple[Job[SweepSpec], SweepSpec]:
            from flows.sweep import sweep

            return sweep, spec

        results = carried_out(console, store, debug, ready)
        from flows.cli.display import sweep_table

        print_table(console, sweep_table(results))
        stages = results["stages"]
        console.print(
            f"{len(results['points'])} of {len(grid)} targets analysed. {stages['run']} stages computed, "
            f"{stages['cached']} Cached, {results['seconds']:.0f} s.",
            highlight=False,
        )
        console.print(f"Table: {results['table']}", highlight=False, soft_wrap=True)
        console.print(f"Report: {results['report']}", highlight=False, soft_wrap=True)
        options.write_json(json, results)
        for name, reason in results["failed"].items():
            print(f"featcx: {name} failed ({reason}).", file=sys.stderr)
        if results["failed"]:
            raise typer.Exit(1)
