"""`featcx data`: the official archives of data sets as folders that featcx reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import Debug, errors_as_sentences

data = typer.Typer(no_args_is_help=True, help="Bounding-box crops of the official archives.")
Root = Annotated[Path, typer.Argument(help="Folder that the official archive was unpacked to.")]
Out = Annotated[Path, typer.Argument(help="Folder to write, for dataset.source=folder:OUT.")]


@data.command()
def cub200(root: Root, out: Out, debug: Debug = False) -> None:
    """CUB-200-2011: 200 kinds of birds."""
    _convert("cub200", root, out, debug)


@data.command()
def dogs(root: Root, out: Out, debug: Debug = False) -> None:
    """Stanford Dogs: 120 kinds of dogs; of several in an image the largest."""
    _convert("dogs", root, out, debug)


def _convert(name: str, root: Path, out: Path, debug: bool) -> None:
    with errors_as_sentences(debug):
        from rich.console import Console
        from rich.progress import Progress

        from featcx_core.data.archives import ARCHIVES, write_crops

        console = Console()
        with Progress(console=console, transient=True) as shown:
            task = shown.add_task("Cropping", total=None)
            written = write_crops(
                ARCHIVES[name](root), out, lambda done, total: shown.update(task, completed=done, total=total)
            )
        several = (
            f"; in {written.several:,} there are several animals, of which the largest is taken"
            if written.several
            else ""
        )
        console.print(
            f"{written.train:,} training and {written.test:,} test crops in {out.absolute()}{several}.\n"
            f"Next: featcx run {name}-paper --set dataset.source=folder:{out}",
            highlight=False,
            soft_wrap=True,
        )
