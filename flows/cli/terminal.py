"""Tables that are wider than the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_table(console: Console, table: Table) -> None:
    """The table; on a terminal too narrow for its columns each row as lines of their own, which may wrap."""
    from rich.measure import Measurement
    from rich.text import Text

    wide = console.options.update(max_width=10_000)
    if Measurement.get(console, wide, table).minimum <= console.width:
        console.print(table)
        return
    if table.title:
        console.print(table.title)
    headings = [str(column.header) for column in table.columns]
    for row in zip(*(column.cells for column in table.columns), strict=True):
        for i, (heading, cell) in enumerate(zip(headings, row, strict=True)):
            if str(cell):
                console.print(Text(f"{'  ' if i else ''}{heading} ") + Text.from_markup(str(cell)))
    if table.caption:
        console.print(table.caption)
