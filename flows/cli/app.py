"""The command line. Heavy imports happen inside the commands, so that help is quick."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featcx_core.errors import InputError
from flows.cli.artifacts import artifacts
from flows.cli.data import data
from flows.cli.options import (
    STORE,
    Archs,
    Config,
    Debug,
    Device,
    Json,
    Over,
    Preset,
    Runner,
    Seeds,
    Set,
    Sizes,
    Store,
    errors_as_sentences,
    overridden,
    write_json,
)
from flows.cli.plan import announce, plan
from flows.cli.serve import serve

if TYPE_CHECKING:
    from rich.console import Console

    from featcx_core.specs import RunSpec
    from flows.recipes import Submit
    from tasks.env import Env

    Recipe = Callable[[Submit], Any]
    Live = Callable[[RunSpec, Recipe], contextlib.AbstractContextManager[Env]]

app = typer.Typer(
    name="featcx",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="How complex are the features that a network has learned, and which of them are worth having?",
)
USAGE_ERROR: Any = typer.BadParameter.__mro__[1]  # of typer's own click, which newer releases bring


def main() -> None:
    """The entry point: exit code 0 done, 1 a run failed, 2 bad input."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages for activations, an eighth of a CPU step
    try:
        code = app(standalone_mode=False)
    except USAGE_ERROR as error:
        code, message = 2, error.format_message()
        if message:  # where help was printed instead there is none
            print(f"featcx: {message}", file=sys.stderr)
    sys.exit(code)


@app.command()
def run(
    preset: Preset = "mnist",
    config: Config = None,
    set_: Set = None,
    store: Store = STORE,
    device: Device = None,
    runner: Runner = None,
    json: Json = None,
    debug: Debug = False,
) -> None:
    """Analyses one target end to end: trains, disentangles, takes its feature apart, reports."""
    with errors_as_sentences(debug):
        from rich.console import Console

        from featcx_core.specs import Numerics
        from flows.settings import load_spec

        spec, console = load_spec(preset, config, overridden(set_, device=device, runner=runner)), Console()
        with workflow_server(console, store, debug) as live:
            from flows.analyze import analyze
            from flows.cli.display import summary_table
            from flows.recipes import whole_run
            from flows.running.preflight import check

            check(spec, store)
            announce(console, spec, store)
            with live(spec, lambda submit: whole_run(submit, spec, Numerics())) as env:
                results = analyze(spec, store, env)
        console.print(summary_table(results))
        target, stages = results["target"], results["stages"]
        console.print(
            f"{spec.target.net}, n = {spec.target.samples}: test accuracy {target['test_accuracy']:.1%}, "
            f"train {target['train_accuracy']:.1%}. {stages['run']} stages computed, {stages['cached']} Cached, "
            f"{results['seconds']:.0f} s.",
            highlight=False,
        )
        console.print(f"Report: {results['report']}", highlight=False, soft_wrap=True)
        write_json(json, results)


@app.command()
def sweep(
    preset: Preset = "mnist",
    sizes: Sizes = None,
    archs: Archs = None,
    seeds: Seeds = None,
    over: Over = None,
    config: Config = None,
    set_: Set = None,
    store: Store = STORE,
    device: Device = None,
    runner: Runner = None,
    json: Json = None,
    debug: Debug = False,
) -> None:
    """Analyses every combination of sizes, architectures and seeds; what they share is computed once; compares them.

    Variants (distilled, pruned, quantised) and the substitution control are left out unless --set turns them on.
    """
    with errors_as_sentences(debug):
        from rich.console import Console

        from featcx_core.specs import Numerics
        from flows.grid import load_sweep, points

        spec = load_sweep(preset, sizes, archs, seeds, over, config, overridden(set_, device=device, runner=runner))
        grid, console = points(spec), Console()
        with workflow_server(console, store, debug) as live:
            from flows.cli.display import sweep_table
            from flows.recipes import whole_sweep
            from flows.sweep import check_sweep
            from flows.sweep import sweep as run_points
            from tasks.present import sweep_report

            check_sweep(spec, store)
            announce(console, spec, store)
            planned = {name: (point, Numerics()) for name, point in grid.items()}
            with live(spec.base, lambda submit: [whole_sweep(submit, planned), submit(sweep_report)]) as env:
                results = run_points(spec, store, env)
        console.print(sweep_table(results))
        stages = results["stages"]
        console.print(
            f"{len(results['points'])} of {len(grid)} targets analysed. {stages['run']} stages computed, "
            f"{stages['cached']} Cached, {results['seconds']:.0f} s.",
            highlight=False,
        )
        console.print(f"Table: {results['table']}", highlight=False, soft_wrap=True)
        console.print(f"Report: {results['report']}", highlight=False, soft_wrap=True)
        write_json(json, results)
        for name, reason in results["failed"].items():
            print(f"featcx: {name} failed ({reason}).", file=sys.stderr)
        if results["failed"]:
            raise typer.Exit(1)


app.command()(plan)
app.command()(serve)


@app.command()
def complexity(
    preset: Preset = "digits",
    config: Config = None,
    set_: Set = None,
    store: Store = STORE,
    device: Device = None,
    json: Json = None,
    debug: Debug = False,
) -> None:
    """Checks the method on random tasks of known complexity (Task-n): do deeper ones put more weight on high orders?"""
    with errors_as_sentences(debug):
        from rich.console import Console

        from featcx_core.specs import Numerics
        from flows.settings import load_spec

        spec, console = load_spec(preset, config, overridden(set_, device=device)), Console()
        with workflow_server(console, store, debug) as live:
            from flows.cli.display import tasks_table
            from flows.complexity import complexity as check_complexity
            from flows.complexity import task_complexity
            from flows.running.preflight import check
            from flows.showing import summary_sentence

            check(spec, store)
            with live(spec, lambda submit: task_complexity(submit, spec, Numerics())) as env:
                results = check_complexity(spec, store, env)
        console.print(tasks_table(results))
        console.print(summary_sentence(results), highlight=False)
        console.print(f"Report: {results['report']}", highlight=False, soft_wrap=True)
        write_json(json, results)


@app.command()
def predict(
    table: Annotated[Path, typer.Argument(help="CSV or Parquet, a row a (target, order).")],
    orders: Annotated[str | None, typer.Option("--orders", help="Orders to predict from, such as 4,7,13,25.")] = None,
    column: Annotated[
        str, typer.Option("--column", help="What to predict: test_accuracy or test_loss.")
    ] = "test_accuracy",
    json: Json = None,
    debug: Debug = False,
) -> None:
    """Predicts accuracy from reliable and unreliable shares, cross-validated, beside the log-n baseline.

    TABLE has a row a (target, order) with the columns target, arch, samples, seed, order, reliable_share,
    unreliable_share, test_accuracy, test_loss, and at least two targets more than twice the number of orders.
    """
    with errors_as_sentences(debug):
        from rich.console import Console

        from featcx_core.studies.prediction import predict_performance
        from flows.cli.display import prediction_table
        from flows.results import read_table

        chosen = None if orders is None else [whole_number(part) for part in orders.split(",")]
        result = predict_performance(read_table(table), column, orders=chosen)
        Console().print(prediction_table(result))
        write_json(json, result.as_dict())


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Key of a run's report.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Key of another run's report.")],
    store: Store = STORE,
    json: Json = None,
    debug: Debug = False,
) -> None:
    """Holds two analysed targets against each other, order by order."""
    with errors_as_sentences(debug):
        from rich.console import Console

        from flows.cli.display import comparison_table
        from flows.compare import compare_runs
        from flows.running.embedded import PrefectServer, prepare_environment, reporting_to

        prepare_environment(debug)
        with PrefectServer() as server:
            from flows.compare import compare_env, networks_of

            networks = networks_of(store, a, b)
            with reporting_to(server.url()):
                results = compare_runs(store, networks, compare_env(store, shown=server.own is not None))
        Console().print(comparison_table(results))
        for sentence in results["readings"]:
            print(sentence)
        print(f"Figure: {results['figure']}")
        write_json(json, results)


@app.command()
def export(
    key: Annotated[str, typer.Argument(help="Key of a run's report or substitution artifact.")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    store: Store = STORE,
    debug: Debug = False,
) -> None:
    """Writes the improved network: the disentangler of the chosen order before the target's head."""
    with errors_as_sentences(debug):
        from flows.cli.exporting import export_improved

        order, accuracy, missing = export_improved(store, key, out)
        print(f"Order {order} with the target's head: test accuracy {accuracy!r}, in {out.absolute()}.")
        print(
            "Load it with featcx_core.load_network(path); it takes uint8 images, or floats in [0, 1], and normalises itself."
        )
        print(f"No model.pt2: {missing}" if missing else "model.pt2 is the same network for torch.export.load.")


app.add_typer(artifacts, name="artifacts")
app.add_typer(data, name="data")


@contextlib.contextmanager
def workflow_server(console: Console, store: Path, debug: bool) -> Iterator[Live]:
    """Starts the workflow server; meanwhile the block imports what it needs.

    Gives a context `live(spec, recipe)`: it waits for the server and shows the recipe's stages until it ends; its value is
    the run's `Env`.
    """
    from flows.running.embedded import PrefectServer, prepare_environment, reporting_to
    from flows.running.preflight import check_store

    check_store(store)
    prepare_environment(debug)
    with PrefectServer() as server, contextlib.ExitStack() as starting:
        starting.enter_context(console.status("Starting the workflow server"))

        @contextlib.contextmanager
        def live(spec: RunSpec, recipe: Recipe) -> Iterator[Env]:
            from flows.cli.display import live_display
            from flows.recipes import count_stages
            from flows.running.submitting import new_env

            env, url = new_env(spec, store, shown=server.own is not None), server.url()
            starting.close()
            with reporting_to(url), live_display(env, count_stages(recipe), console):
                yield env

        yield live


def whole_number(text: str) -> int:
    """A whole number out of the command line."""
    try:
        return int(text)
    except ValueError:
        raise InputError(f"'{text}' is not a whole number; write --orders 4,7,13,25.") from None


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
