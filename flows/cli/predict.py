"""`featcx predict`: accuracy from a table of shares."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from featcx_core.errors import InputError
from flows.cli import options
from flows.cli.terminal import print_table


def predict(
    table: Annotated[Path, typer.Argument(help="CSV or Parquet, a row a (target, order).")],
    orders: Annotated[str | None, typer.Option("--orders", help="Orders to predict from, such as 4,7,13,25.")] = None,
    column: Annotated[
        str, typer.Option("--column", help="What to predict: test_accuracy or test_loss.")
    ] = "test_accuracy",
    json: options.Json = None,
    debug: options.Debug = False,
) -> None:
    """Predicts accuracy from reliable and unreliable shares, cross-validated, beside the log-n baseline.

    TABLE has a row a (target, order) with the columns target, arch, samples, seed, order, reliable_share,
    unreliable_share, test_accuracy, test_loss, and at least two targets more than twice the number of orders.
    """
    with options.errors_as_sentences(debug):
        from rich.console import Console

        from featcx_core.studies.prediction import predict_performance
        from flows.cli.display import prediction_table
        from flows.results import read_table

        chosen = None if orders is None else [whole_number(part) for part in orders.split(",")]
        result = predict_performance(read_table(table), column, orders=chosen)
        print_table(Console(), prediction_table(result))
        options.write_json(json, result.as_dict())


def whole_number(text: str) -> int:
    """A whole number out of the command line."""
    try:
        return int(text)
    except ValueError:
        raise InputError(f"'{text}' is not a whole number; write --orders 4,7,13,25.") from None
