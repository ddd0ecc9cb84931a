"""What all figures share: themes, bare panels and marks. No pyplot, and colours and sizes are set outright."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from featcx_core.wording import CIRCLE, Frames, counts, unresolved

WIDTH, HEIGHT = 5.6, 3.9  # inches: a paper's column and a half; 12 pt stay legible on a phone
TEXT, LEGEND, SMALL = 12, 11, 10.5  # points
ORDER_LABEL = "complexity order (number of ReLU layers)"


@dataclass(frozen=True)
class Theme:
    """Colours of a figure, as hex; series colours are told apart under each common colour blindness."""

    name: str
    ink: str
    muted: str
    grid: str
    paper: str
    alarm: str
    series: tuple[str, str, str, str]


LIGHT = Theme(
    "light",
    ink="#1c2128",
    muted="#57606a",
    grid="#e1e5ea",
    paper="#ffffff",
    alarm="#b3001b",
    series=("#0072b2", "#d55e00", "#009e73", "#8f4a9e"),
)
DARK = Theme(
    "dark",
    ink="#e8ebef",
    muted="#a3acb8",
    grid="#30363f",
    paper="#161a20",
    alarm="#ff8080",
    series=("#56b4e9", "#f0a04b", "#3dcf9f", "#d3a0dd"),
)


def panels(
    theme: Theme, rows: int = 1, columns: int = 1, width: float = WIDTH, height: float = HEIGHT, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure (inches) with bare panels in the theme's colours, rows first; `options` go to `Figure.subplots`."""
    figure = Figure((width, height), layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06), facecolor=theme.paper)
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for axis in axes:
        axis.set_facecolor(theme.paper)
        axis.set_axisbelow(True)
        axis.grid(axis="y", color=theme.grid, linewidth=0.8)
        axis.tick_params(colors=theme.ink, labelsize=TEXT, length=0)
        axis.spines[:].set_visible(False)
        axis.spines["bottom"].set(visible=True, color=theme.muted)
    return figure, axes


def order_axis(axis: Axes, theme: Theme, orders: Sequence[int], ylabel: str, xlabel: bool = True) -> np.ndarray:
    """Evenly spaced ticks, one an order, and their positions."""
    x = np.arange(len(orders), dtype=float)
    axis.set_xticks(x, [str(order) for order in orders])
    axis.set_xlim(-0.6, len(orders) - 0.4)
    axis.set_ylabel(ylabel, color=theme.ink, fontsize=TEXT)
    if xlabel:
        axis.set_xlabel(ORDER_LABEL, color=theme.ink, fontsize=TEXT)
    return x


def whiskers(frame: pd.DataFrame, name: str) -> np.ndarray | None:
    """Distances (2, n) from values down and up to the ends of their intervals; None where the frame has none."""
    if f"{name}_low" not in frame or f"{name}_high" not in frame:
        return None
    value = frame[name].to_numpy(float)
    ends = np.stack([value - frame[f"{name}_low"].to_numpy(float), frame[f"{name}_high"].to_numpy(float) - value])
    return np.where(np.isfinite(ends), ends.clip(min=0), 0)


def points(
    axis: Axes,
    x: np.ndarray,
    frame: pd.DataFrame,
    name: str,
    colour: str,
    label: str,
    marker: str = "o",
    line: str = "-",
    thin: bool = False,
    filled: bool = True,
) -> None:
    """Markers with whiskers, joined by a line."""
    axis.errorbar(
        x,
        frame[name].to_numpy(float),
        whiskers(frame, name),
        label=label,
        color=colour,
        marker=marker,
        linestyle=line,
        linewidth=1.2 if thin else 2,
        markersize=5 if thin else 7,
        markeredgewidth=1.6,
        elinewidth=1.6,
        capsize=3,
        markerfacecolor=colour if filled else axis.get_facecolor(),
    )
    if (hollow := unresolved(frame)).any():
        style: dict[str, Any] = {"color": colour, "markersize": 5 if thin else 7, "markeredgewidth": 1.6, "zorder": 4}
        axis.plot(x[hollow], frame[name].to_numpy(float)[hollow], marker, markerfacecolor=axis.get_facecolor(), **style)


def bars(
    axis: Axes,
    theme: Theme,
    x: np.ndarray,
    frame: pd.DataFrame,
    name: str,
    colour: int,
    label: str,
    width: float = 0.36,
) -> None:
    """Bars with whiskers, in the theme's `colour`-th series colour."""
    value = frame[name].to_numpy(float)
    drawn = axis.bar(x, value, width, color=theme.series[colour], edgecolor=theme.series[colour], label=label)
    for patch, open_ in zip(drawn.patches, unresolved(frame), strict=True):
        patch.set(facecolor=theme.paper if open_ else theme.series[colour], linewidth=1.6)
    axis.errorbar(x, value, whiskers(frame, name), fmt="none", color=theme.ink, elinewidth=1.6, capsize=3)


def write(
    axis: Axes,
    theme: Theme,
    x: float,
    y: float,
    text: str,
    offset: tuple[float, float],
    color: str = "",
    **options: Any,
) -> None:
    """Small text beside a point, `offset` in points of type."""
    axis.annotate(
        text,
        (x, y),
        offset,
        textcoords="offset points",
        fontsize=SMALL,
        color=color or theme.ink,
        annotation_clip=False,
        **options,
    )


def ring(axis: Axes, x: Any, y: Any, colour: str, label: str) -> None:
    """Large open circles around points that need a look."""
    axis.plot(
        x,
        y,
        "o",
        markersize=14,
        markerfacecolor="none",
        markeredgecolor=colour,
        markeredgewidth=1.8,
        label=label,
        clip_on=False,
    )


def level(axis: Axes, theme: Theme, y: float) -> None:
    """A line that values are read against."""
    axis.axhline(y, color=theme.muted, linewidth=1, zorder=1)


def finish(figure: Figure, theme: Theme, axes: Sequence[Axes], foot: str, columns: int = 2) -> Figure:
    """Legend above the panels and a foot line with n below, both out of the data's way."""
    handles, labels = legend_entries(axes)
    if handles:
        figure.legend(
            handles,
            labels,
            loc="outside upper left",
            ncols=columns,
            frameon=False,
            fontsize=LEGEND,
            labelcolor=theme.ink,
            handlelength=1.8,
            columnspacing=1.4,
        )
    figure.supxlabel(
        textwrap.fill(foot, 12 * round(figure.get_figwidth())),
        x=0.01,
        ha="left",
        fontsize=SMALL,
        color=theme.muted,
    )
    return figure


def legend_entries(axes: Sequence[Axes]) -> tuple[list[Any], list[str]]:
    """Handles and labels of the panels without repeats: series first, then reference lines and flags."""
    found = {text: handle for axis in axes for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    labels = sorted(found, key=lambda text: not isinstance(found[text], Container))
    return [found[text] for text in labels], labels


def foot_line(frames: Frames, coverage: float | None, *splits: str) -> str:
    """'n = 1,000 pool, 200 seen images', and what the whiskers are where there are any."""
    n = counts(frames)
    known = ", ".join(f"{n[split]:,} {split}" for split in dict.fromkeys(splits) if split in n)
    words = [f"n = {known} images"] if known else []
    if coverage is not None:
        words.append(f"whiskers: {100 * coverage:g}% bootstrap over images")
    if "significance" in frames and unresolved(frames["significance"]).any():
        words.append("open (○): not resolved at this budget and width")
    return "; ".join(words)


def marked(frames: Frames, orders: Sequence[int]) -> list[str]:
    """The orders in words, those that are not resolved with a circle."""
    frame = frames.get("significance", pd.DataFrame())
    open_ = set(frame["order"][unresolved(frame)]) if len(frame) else set[int]()
    return [f"{order} {CIRCLE}" if order in open_ else str(order) for order in orders]


FEW = 8  # more parts leave no room for a number at each pair


def heat_map(
    figure: Figure,
    axis: Axes,
    theme: Theme,
    values: np.ndarray,
    names: list[str],
    show: Callable[[float], str],
    label: str,
    bold: np.ndarray | None = None,
) -> None:
    """A square of values (n, n), NaN for none, on a symmetric scale, with a number in each cell where there is room."""
    limit = max(float(np.nanmax(np.abs(values))), 1e-12)
    ends = [theme.series[1], theme.paper, theme.series[0]]
    colours = LinearSegmentedColormap.from_list("featcx", ends).with_extremes(bad=theme.grid)
    axis.grid(False)
    axis.spines["bottom"].set_visible(False)
    image = axis.imshow(values, cmap=colours, vmin=-limit, vmax=limit)
    axis.set_xticks(range(len(names)), names, rotation=0 if len(names) <= FEW else 60)
    axis.set_yticks(range(len(names)), names)
    if len(names) <= FEW:
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value):
                colour = theme.paper if abs(value) > 0.65 * limit else theme.ink
                weight = "bold" if bold is not None and bold[i, j] else "normal"
                style: dict[str, Any] = {
                    "color": colour,
                    "fontsize": LEGEND if len(names) <= 6 else 9,
                    "fontweight": weight,
                }
                axis.text(j, i, show(value), ha="center", va="center", **style)
    bar = figure.colorbar(image, ax=axis, shrink=0.85)
    bar.outline.set_visible(False)
    bar.ax.set_facecolor("none")
    bar.ax.tick_params(colors=theme.ink, labelsize=SMALL, length=0)
    bar.set_label(label, color=theme.ink, fontsize=TEXT)
