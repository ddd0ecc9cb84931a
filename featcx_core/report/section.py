"""The report's sections: which frames, figure, reading, flags and table columns make each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from featcx_core.metrics import METRICS, integer
from featcx_core.report.figure_files import FigureFunction
from featcx_core.report.tables import Column
from featcx_core.wording import Frames, open_orders


@dataclass(frozen=True)
class Section:
    """One analysis of one network.

    Attributes:
        name: of the figure's files, the anchor and the note that stands in for missing frames.
        about: the quantity, in symbols.
        tables: frame → its columns; the frames that the figure and the reading need.
        needs: the frames without which there is no section: all, or any one of `tables`.
        widget: what the page lets the reader move, as the template's `slider` wants it.
        optional: left out of the page, not told of, where its frames are missing.
        paper: what the paper has to compare with.
    """

    name: str
    title: str
    about: str
    figure: FigureFunction
    reading: Callable[[Frames], str]
    tables: dict[str, tuple[Column, ...]]
    needs: Callable[[list[bool]], bool] = all
    flags: Callable[[Frames], list[str]] = lambda frames: []
    wide: bool = False
    widget: Callable[[Frames], dict[str, Any]] = lambda frames: {}
    paper: str = ""
    optional: bool = False


def with_open(flags: Callable[[Frames], list[str]] = lambda frames: []) -> Callable[[Frames], list[str]]:
    """The flags, and the orders whose values are not read."""
    return lambda frames: [*flags(frames), *open_orders(frames)]


def order_word(value: Any) -> str:
    """An order; a dash for what has none, such as the residual."""
    return integer(value) if value else "–"


def size(value: Any) -> str:
    """A size in bytes, or how many times smaller."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


ORDER = Column("order", "order", order_word)


def columns(frame: str, section: str = "") -> tuple[Column, ...]:
    """The columns of a frame's metrics in a section, whose name is the frame's own where none is given."""
    own = [metric for metric in METRICS if (metric.frame, metric.section or metric.frame) == (frame, section or frame)]
    return tuple(Column(metric.source, metric.heading, metric.show) for metric in own if metric.heading)
