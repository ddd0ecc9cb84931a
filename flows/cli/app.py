"""The command line. Heavy imports happen inside the commands, so that help is quick."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer

from flows.cli.compare import compare
from flows.cli.complexity import complexity
from flows.cli.data import data
from flows.cli.export import export
from flows.cli.plan import plan
from flows.cli.predict import predict
from flows.cli.run import run
from flows.cli.serve import serve
from flows.cli.stores.artifacts import artifacts, open_report, status
from flows.cli.stores.remote import remote
from flows.cli.sweep import sweep

app = typer.Typer(
    name="featcx",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="How complex are the features that a network has learned, and which of them are worth having?",
)
for command in (run, sweep, plan, serve, status, complexity, predict, compare, export):
    app.command()(command)
app.command("open")(open_report)
app.add_typer(artifacts, name="artifacts")
app.add_typer(remote, name="remote")
app.add_typer(data, name="data")
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
