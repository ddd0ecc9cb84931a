"""Options that the commands share, and how errors reach the reader."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from featcx_core.errors import InputError

Store = Annotated[Path, typer.Option("--store", envvar="FEATCX_STORE", help="Folder of the artifact store.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the results to this file as JSON.")]
Preset = Annotated[str, typer.Argument(help="Settings to start from: digits, mnist, cifar10-small, …")]
Config = Annotated[Path | None, typer.Option("--config", help="TOML file that changes the preset.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="path.to.field=value; may be given again.")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Runner = Annotated[str | None, typer.Option("--runner", help="threads, processes or ray.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and Prefect's log.")]
STORE = Path("artifacts")


@contextlib.contextmanager
def errors_as_sentences(debug: bool) -> Iterator[None]:
    """InputError: a sentence and exit code 2. Anything else that fails: a sentence and exit code 1."""
    if not debug:
        warnings.simplefilter("ignore")  # libraries warn of their own affairs; --debug shows it
    try:
        yield
    except InputError as error:
        if debug:
            raise
        print(f"featcx: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    except typer.Exit:
        raise
    except KeyboardInterrupt:
        print("featcx: stopped; finished stages are kept, the same command carries on.", file=sys.stderr)
        raise typer.Exit(1) from None
    except Exception as error:
        if debug:
            raise
        name = type(error).__name__
        print(f"featcx: the run failed ({name}: {error}). Run it again with --debug to see where.", file=sys.stderr)
        raise typer.Exit(1) from None
