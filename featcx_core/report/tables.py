"""Frames as the report's tables: what a cell shows, with its interval, and what it sorts by."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from featcx_core.metrics import METRICS
from featcx_core.wording import Frames, Row, mark, with_interval


class Cell(NamedTuple):
    """What a table shows, what it sorts by (an empty `value` comes last), and an address that it links to."""

    text: str
    value: str
    link: str = ""


@dataclass(frozen=True)
class Column:
    """A frame's column, with its interval where the frame has one.

    Attributes:
        show: the value in words; None: as it stands.
        link: the column that holds a text's address; empty: none.
    """

    name: str
    heading: str
    show: Callable[[Any], str] | None = None
    link: str = ""

    def cell(self, row: Row) -> Cell:
        """The cell of a row."""
        value = row[self.name]
        if self.name == "overfitting" and not row["shapley_train"] > 0:
            return Cell("no reading", "")
        if value is None:
            return Cell("–", "")
        if isinstance(value, str) or self.show is None:
            return Cell(str(value), str(value), str(row[self.link]) if self.link else "")
        text = with_interval(row, self.name, self.show)
        if self.name == "order":
            text += mark(row.get("resolved"))
        return Cell(text, repr(float(value))) if math.isfinite(value) else Cell("–", "")


class Table(NamedTuple):
    """A table as shown, and the file that holds its frame."""

    file: str
    headings: list[str]
    rows: list[list[Cell]]


def table_of(file: str, frame: pd.DataFrame, columns: Sequence[Column]) -> Table:
    """The frame's rows in the columns that it has."""
    shown = [column for column in columns if column.name in frame]
    rows = [[column.cell(row) for column in shown] for row in frame.to_dict("records")]
    return Table(file, [_unbroken(column.heading) for column in shown], rows)


def _unbroken(heading: str) -> str:
    """The heading with its formula kept on one line."""
    return re.sub(r"\S*\[.*\]", lambda formula: formula[0].replace(" ", "\u00a0"), heading)


def compare(analyses: Mapping[str, Frames], columns: Sequence[Column]) -> Table | None:
    """All networks side by side, a row a (network, order), in the columns that any has; None for a single network."""
    if len(analyses) < 2:
        return None
    parts = []
    for network, frames in analyses.items():
        joined = pd.DataFrame({"order": pd.Series(dtype=int)})
        for name in dict.fromkeys(metric.frame for metric in METRICS if metric.beside):
            if name in frames:
                fresh = [column for column in frames[name] if column not in joined]
                joined = joined.merge(frames[name][["order", *fresh]], on="order", how="outer")
        parts.append(joined.assign(network=network))
    return table_of("", pd.concat(parts, ignore_index=True), [Column("network", "network"), *columns])
