"""`featcx plan`: what a run or sweep would find in the store, what it would compute, and what that takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featcx_core.errors import InputError
from flows.cli import options
from flows.cli.terminal import print_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from featcx_core.specs import RunSpec
    from flows.job import Job, S
    from flows.planning.plan import Plan, Planned

FEW, MANY = 30, 30  # stages that are listed one by one; lines beyond which networks are put together
COLOURS = {"hit": "cyan", "miss": "yellow", "open": "default"}


def plan(
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
    devices: Annotated[int | None, typer.Option("--devices", help="Reckon with so many devices.")] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", help="Reckon with devices that sustain so many TFLOPS each.")
    ] = None,
    anew: Annotated[bool, typer.Option("--calibrate", help="Time this device anew.")] = False,
    every: Annotated[bool, typer.Option("--all", help="A line a stage, however many there are.")] = False,
    remote: options.Remote = None,
    json: options.Json = None,
    debug: options.Debug = False,
) -> None:
    """Says what a run would find in the store, what it would compute and why, and what that costs; runs nothing.

    With --sizes, --archs, --layers, --seeds or --over it plans the sweep that `featcx sweep` would run.
    """
    with options.errors_as_sentences(debug):
        from flows.asked import Asked
        from flows.running.embedded import prepare_environment

        if (devices is not None and devices < 1) or (rate is not None and not rate > 0):
            raise InputError("--devices and --rate must be above 0; leave them out to reckon with what is here.")
        prepare_environment(debug)
        from flows.planning.plan import job_of
        from flows.planning.plan import plan as planned

        changes = options.overridden(set_, device=device, runner=runner, **options.away(remote, True))
        spec = Asked(preset, config, changes, sizes, archs, seeds, over or (), layers).either()
        job_of(spec).check(spec, store)
        found, console = planned(spec, store, devices, rate, anew), options.wide_console()
        print_table(console, stages_table(found, every))
        console.print(total_line(found), highlight=False)
        options.write_json(json, found.as_dict())


def announce(console: Console, job: Job[S], spec: S, store: Path) -> None:
    """What was made of the data, and how long it will take, where `featcx plan` has timed this device before."""
    from featcx_core.specs import RunSpec
    from flows.planning.plan import estimate

    base = getattr(spec, "base", spec)
    for line in read_as(base) if isinstance(base, RunSpec) else ():
        console.print(line, highlight=False, soft_wrap=True)
    try:
        seconds = estimate(job, spec, store)
    except Exception:  # a run needs no estimate: what is truly wrong the stages say, in their own words
        return
    if seconds is not None and seconds > 30:
        console.print(f"About {duration(seconds)} by what was timed on this device.", highlight=False)


def read_as(spec: RunSpec) -> list[str]:
    """What was understood of images and net: sources, splits, and what stands between pixels and the net, a line each."""
    from featcx_core.data.sources import image_shape, split_sizes, understood
    from featcx_core.nets.named import brings_weights, own_statistics
    from featcx_core.training.brought import preprocess_words

    target, sizes = spec.target, split_sizes(spec.dataset, spec.target.samples)
    brought = target.checkpoint is not None or brings_weights(target.net, target.options)
    own = own_statistics(target.net, target.options, image_shape(spec.dataset)[0]) if brought else None
    return [
        *(f"Data: {line}" for line in understood(spec.dataset)),
        f"Split: trainings draw from a pool of {sizes['pool']:,} images, of which the target sees {sizes['seen']:,}; "
        f"{sizes['validation']:,} for validation, {sizes['test']:,} for testing",
        f"Net: {target.net} gets pixels in [0, 1] {preprocess_words(target.preprocess, own)}",
    ]


def stages_table(found: Plan, every: bool = False) -> Table:
    """A line a stage; with many stages a line a network and kind of stage, or a kind of stage alone."""
    from rich.table import Table

    by_network = grouped(found.stages, lambda s: f"{s.scope} {s.stage}".strip())
    by_kind = grouped(found.stages, lambda s: s.stage)
    one_each = {str(i): [s] for i, s in enumerate(found.stages)}
    groups = one_each if every or len(found.stages) <= FEW else by_network if len(by_network) <= MANY else by_kind
    hint = None if groups is one_each else "--all: a line a stage"
    table = Table(title="Stages", title_justify="left", caption=hint, caption_justify="left")
    for heading in ("stage", "state", "why", "work", "time", "memory"):
        left = heading in ("stage", "state", "why")
        table.add_column(heading, justify="left" if left else "right", overflow="fold", no_wrap=not left)
    for name, stages in groups.items():
        todo = [s for s in stages if s.state != "hit"]
        work = amount(sum(s.load.flops for s in todo), "FLOP") if todo else "–"
        table.add_row(
            stages[0].label if groups is one_each else name,
            states(stages),
            reasons(todo or [s for s in stages if s.away]),
            work,
            duration(sum(s.seconds for s in todo)) if todo else "–",
            amount(max(s.load.memory for s in todo), "B") if todo else "–",
        )
    return table


def grouped(stages: list[Planned], name: Callable[[Planned], str]) -> dict[str, list[Planned]]:
    """Stages by name, in the order of the first of each."""
    groups: dict[str, list[Planned]] = {}
    for stage in stages:
        groups.setdefault(name(stage), []).append(stage)
    return groups


def states(stages: list[Planned]) -> str:
    """'miss' of one stage, '2 hit, 3 open' of several."""
    counts = {state: sum(s.state == state for s in stages) for state in COLOURS}
    return ", ".join(
        f"[{COLOURS[state]}]{state if len(stages) == 1 else f'{n} {state}'}[/]" for state, n in counts.items() if n
    )


def reasons(stages: list[Planned]) -> str:
    """Why stages are to be computed, each reason once: those of misses, or else what the first waits for."""
    missed = [s.why for s in stages if s.state == "miss"]
    found = list(dict.fromkeys(missed or [s.why for s in stages[:1]]))
    return "\n".join(found[:2]) + (f"\nand {len(found) - 2} more" if len(found) > 2 else "")


def total_line(found: Plan) -> str:
    """'12 hit, 3 miss, 40 open; about 6 min on 2 × CPU core (one at a time: 11 min), 1.2 PFLOP, …'"""
    told = found.as_dict()
    alone = f" (one stage at a time: {duration(told['device_seconds'])})" if found.places > 1 else ""
    away = f" ({told['away']} of them away, {amount(told['away_bytes'], 'B')})" if told["away"] else ""
    return (
        f"{told['hit']} hit{away}, {told['miss']} miss, {told['open']} open; about {duration(told['seconds'])} on "
        f"{found.places} × {found.rates.device}{alone}, {amount(told['flops'], 'FLOP')}, "
        f"peak {amount(told['memory_bytes'], 'B')} memory a device beside PyTorch's own, "
        f"{amount(told['disk_bytes'], 'B')} disk."
    )


def amount(value: float, unit: str) -> str:
    """1.2 PFLOP, 340 MB."""
    for prefix in ("", "k", "M", "G", "T", "P", "E"):
        if value < 999.5 or prefix == "E":
            break
        value /= 1000
    return f"{value:.3g} {prefix}{unit}" if value >= 0.5 else f"0 {unit}"


def duration(seconds: float) -> str:
    """40 s, 6 min, 2.5 h, 3.1 days."""
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    unit, size = ("min", 60) if seconds < 5970 else ("h", 3600) if seconds < 48 * 3600 else ("days", 86400)
    return f"{seconds / size:,.{0 if seconds / size >= 9.95 else 1}f} {unit}"
