"""A terminal that lacks columns still shows every name and number."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from flows.cli.terminal import print_table


def shown(width: int) -> str:
    table = Table(title="Stages", caption="a word of help")
    for heading in ("stage", "key", "size", "computed in", "started"):
        table.add_column(heading, no_wrap=heading != "stage")
    table.add_row("significance of distilled", "0123456789ab", "1.2 MB", "3.4 s", "2026-11-26T21:34")
    table.add_row("[green]disentangler[/] m2", "ba9876543210", "", "5.6 s", "2026-11-26T21:35")
    out = io.StringIO()
    print_table(Console(file=out, width=width, color_system=None), table)
    return out.getvalue()


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_no_width_costs_a_name_or_a_number(width):
    told = shown(width)
    names = ["significance", "distilled", "disentangler", "0123456789ab", "ba9876543210"]
    words = [*names, "1.2", "3.4", "5.6", "Stages", "help"]
    assert [word for word in words if word not in told] == []
    assert "[green]" not in told
    assert max(map(len, told.splitlines())) <= width


def test_a_table_that_fits_stays_one():
    assert "┃" in shown(80)
    assert "┃" not in shown(40)
