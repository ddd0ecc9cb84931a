"""Options that the commands share, and how errors reach the reader."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featcx_core.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console


def _writable(path: Path | None) -> Path | None:
    """Asked before anything runs: results that cannot be written would be lost at the end."""
    if path is not None:
        folder = path.absolute().parent
        while not folder.exists():
            folder = folder.parent
        if path.is_dir() or not folder.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
            raise typer.BadParameter(f"{path} cannot be written; name a file in a folder of your own.")
    return path


def _presets(incomplete: str) -> list[str]:
    """For the shell's completion."""
    there = (Path(__file__).parents[1] / "presets").glob("*.toml")
    return sorted(path.stem for path in there if path.stem.startswith(incomplete))


Store = Annotated[Path, typer.Option("--store", envvar="FEATCX_STORE", help="Folder of the artifact store.")]
Json = Annotated[
    Path | None, typer.Option("--json", help="Write the results to this file as JSON.", callback=_writable)
]
Preset = Annotated[
    str, typer.Argument(help="Settings to start from: digits, mnist, cifar10-small, …", autocompletion=_presets)
]
Config = Annotated[Path | None, typer.Option("--config", help="TOML file that changes the preset.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="path.to.field=value; may be given again.")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Runner = Annotated[str | None, typer.Option("--runner", help="threads, processes or ray.")]
Remote = Annotated[
    str | None,
    typer.Option("--remote", envvar="FEATCX_REMOTE", help="Address of the team's cache: s3://bucket/folder, …"),
]
ReadOnly = Annotated[
    bool, typer.Option("--remote-read-only", envvar="FEATCX_REMOTE_READ_ONLY", help="Send nothing to the team's cache.")
]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Do not wait at the end for what is still to be sent to the team's cache.")
]
Open = Annotated[
    bool, typer.Option("--open", help="Show the report in the browser, first as soon as the target has one.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and Prefect's log.")]
Sizes = Annotated[str | None, typer.Option("--sizes", help="Training images of the targets: 200,500.")]
Archs = Annotated[str | None, typer.Option("--archs", help="Architectures of the targets: resnet8,resnet20.")]
Layers = Annotated[
    str | None,
    typer.Option("--layers", help="Layers of one net: layer1,layer2; all: every stage or block."),
]
Seeds = Annotated[str | None, typer.Option("--seeds", help="Root seeds: 0,1,2.")]
Over = Annotated[
    list[str] | None, typer.Option("--over", help="path.to.field=a,b,c sweeps any field; may be given again.")
]
STORE = Path("artifacts")
PIPE_WIDTH = 240


def write_json(path: Path | None, value: Any) -> None:
    """What --json asks for, with None for what is unknown; nothing where it was not given."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def wide_console() -> Console:
    """The terminal; a pipe is as wide as a table may be, unless COLUMNS says how wide: who reads it wants whole lines."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=PIPE_WIDTH)


def show_page(path: str | Path) -> None:
    """A page of this machine in the user's browser."""
    import webbrowser

    if not webbrowser.open(Path(path).as_uri()):
        print(f"featcx: there is no browser here to show {path}.", file=sys.stderr)


def overridden(set_: list[str] | None, **runtime: str | bool | None) -> list[str]:
    """What --set changes, and options of their own that stand for fields of `runtime`."""
    given = {name: value for name, value in runtime.items() if value is not None}
    return [*(set_ or []), *(f"runtime.{name}={json.dumps(value)}" for name, value in given.items())]


def away(remote: str | None, read_only: bool, no_wait: bool = False) -> dict[str, str | bool | None]:
    """The fields of `runtime` that the options of a team's cache stand for."""
    return {"remote": remote, "remote_read_only": read_only or None, "wait": False if no_wait else None}


@contextlib.contextmanager
def errors_as_sentences(debug: bool) -> Iterator[None]:
    """InputError: a sentence and exit code 2. Anything else that fails: a sentence and exit code 1."""
    if not debug:
        warnings.simplefilter("ignore")  # libraries warn of their own affairs; --debug shows it
    try:
        yield
    except InputError as error:
        if debug:
            traceback.print_exc()
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
