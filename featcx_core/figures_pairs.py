"""Figures of pairs of parts: covariances, and Shapley interactions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from featcx_core.canvas import LEGEND, LIGHT, ORDER_LABEL, SMALL, TEXT, Theme, finish, foot_line, panels
from featcx_core.wording import Frames

FEW = 8  # more parts leave no room for a number at each pair


def covariance(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
    """Covariances between components and the residual, as per cent of Var[f]."""
    frame = frames["covariance"]
    names = [str(name) for name in frame["a"].unique()]
    shown = ["Δf" if name == "residual" else name for name in names]
    values = 100 * frame.pivot(index="a", columns="b", values="covariance").loc[names, names].to_numpy(float)
    figure, (axis,) = panels(theme, height=4.4)
    show = lambda value: "0.0" if abs(value) < 0.05 else f"{value:.1f}".replace("-", "−")  # noqa: E731
    _heat_map(figure, axis, theme, values, shown, show, "covariance (% of Var[f])")
    axis.set_xlabel("component (order) or residual Δf", color=theme.ink, fontsize=TEXT)
    return finish(figure, theme, [axis], foot_line(frames, None, "pool"))


def interactions(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
    """Shapley interactions of components, above the diagonal on seen and below it on test images, in nats."""
    frame = frames["interactions"]
    orders = sorted({*frame["a"], *frame["b"]})
    place = {order: i for i, order in enumerate(orders)}
    values, clear = np.full((len(orders), len(orders)), np.nan), np.zeros((len(orders), len(orders)), dtype=bool)
    for row in frame.to_dict("records"):
        i, j = place[row["a"]], place[row["b"]]
        i, j = (i, j) if row["split"] == "seen" else (j, i)
        values[i, j], clear[i, j] = row["interaction"], row["interaction_low"] > 0 or row["interaction_high"] < 0
    figure, (axis,) = panels(theme, height=4.6)
    if not len(orders):
        axis.set_axis_off()
        axis.text(0.5, 0.5, "no pair of orders was measured", ha="center", color=theme.muted, fontsize=TEXT)
        return finish(figure, theme, [], foot_line(frames, None, "seen", "test"))
    digits = max(0, 1 - math.floor(math.log10(max(np.nanmax(np.abs(values)), 1e-12))))

    def show(value: float) -> str:
        text = f"{value:.{digits}f}".replace("-", "−")
        return text.replace("0.", ".", 1) if float(f"{abs(value):.{digits}f}") else "0"

    _heat_map(
        figure,
        axis,
        theme,
        values,
        [str(order) for order in orders],
        show,
        "interaction (nats of loss decrease)",
        clear,
    )
    axis.set_title("above the diagonal: seen images\nbelow: test images", loc="left", color=theme.ink, fontsize=LEGEND)
    axis.set_xlabel(ORDER_LABEL, color=theme.ink, fontsize=TEXT)
    foot = foot_line(frames, None, "seen", "test")
    told = "" if coverage is None else f"{100 * coverage:g}% "
    return finish(figure, theme, [], f"{foot}; bold: {told}bootstrap interval over images leaves out zero")


def _heat_map(
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
