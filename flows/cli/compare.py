"""`featcx compare`: two analysed targets, order by order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli import options
from flows.cli.live import carried_out
from flows.cli.terminal import print_table

if TYPE_CHECKING:
    from flows.compare import Pair
    from flows.job import Job


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Key of a run's report.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Key of another run's report.")],
    store: options.Store = options.STORE,
    json: options.Json = None,
    debug: options.Debug = False,
) -> None:
    """Holds two analysed targets against each other, order by order."""
    with options.errors_as_sentences(debug):
        from rich.console import Console

        def ready() -> tuple[Job[Pair], Pair]:
            from flows.compare import compare, pair

            return compare, pair(store, a, b)

        console = Console()
        results = carried_out(console, store, debug, ready)
        from flows.cli.display import comparison_table

        print_table(console, comparison_table(results))
        for sentence in results["readings"]:
            print(sentence)
        print(f"Figure: {results['figure']}")
        options.write_json(json, results)
