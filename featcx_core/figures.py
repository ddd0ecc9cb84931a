"""The figures, each drawn from one target's tidy tables alone: `(frames, theme, coverage=None) -> Figure`.

`frames` maps the report's frame names to tables; `coverage` is that of the intervals, a fraction, told in the foot line.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from featcx_core.canvas import (
    LIGHT,
    Theme,
    bars,
    finish,
    foot_line,
    level,
    order_axis,
    panels,
    points,
    ring,
    write,
)
from featcx_core.figure_files import save
from featcx_core.figures_pairs import covariance, interactions
from featcx_core.figures_reliability import reliability
from featcx_core.significance import GAP_FLAG
from featcx_core.wording import Frames, accuracy_interval, best_order, percent, reached

__all__ = [
    "covariance",
    "effectiveness",
    "interactions",
    "overfitting",
    "reliability",
    "residuals",
    "save",
    "shapley",
    "significance",
    "substitution",
]

SPLITS = (("pool", "s"), ("seen", "D"), ("validation", "^"), ("test", "o"))
FEW = 8  # more orders leave no room for a number at each


def significance(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
    """Var[c^(l)] / Var[f] an order, and the share of Var[f] explained up to it."""
    frame = frames["significance"]
    figure, (axis,) = panels(theme)
    x = order_axis(axis, theme, frame["order"].tolist(), "share of Var[f]")
    bars(axis, theme, x, frame, "significance", 0, "significance of the component", width=0.55)
    up_to = reached(frame)
    points(axis, x, up_to, "reached", theme.series[1], "explained up to this order (1 − residual)")
    heights = up_to["reached"].to_numpy(float)
    if len(x) <= FEW:
        for place, height in zip(x, heights, strict=True):
            write(axis, theme, place, height, percent(height), (-7, 10), ha="center")
    rises = frame["residual_rises"].to_numpy(bool)
    if rises.any():
        ring(axis, x[rises], heights[rises], theme.alarm, "residual rises: fits worse than a shallower one")
    beyond, last = x[-1] + 0.42, float(heights[-1])
    arrow = {"arrowstyle": "<->", "color": theme.muted, "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", (beyond, last), (beyond, 1), arrowprops=arrow)
    write(axis, theme, beyond, (1 + last) / 2, f"residual\n{percent(1 - last)}", (6, 0), va="center")
    axis.set_xlim(-0.6, x[-1] + 0.55 + 0.16 * len(x))
    axis.set_ylim(min(0, float(heights.min())), 1.02)
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return finish(figure, theme, [axis], foot_line(frames, coverage, "pool"), columns=1)


def residuals(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
    """Var[f − Φ^(l)] / Var[f] a split, and by how much the test residual exceeds the others (above 10% ringed)."""
    frame = frames["splits"]
    orders, gap = sorted(frame["order"].unique()), "gap" in frame
    figure, axes = panels(theme, 1 + gap, height=5.2 if gap else 3.9, sharex=True)
    x = order_axis(axes[0], theme, orders, "residual / Var[f]", xlabel=not gap)
    for i, (split, marker) in enumerate(SPLITS):
        rows = frame[frame["split"] == split].sort_values("order")
        if rows.empty:
            continue
        place = x + (i - 1.5) * 0.12
        points(axes[0], place, rows, "residual", theme.series[i], split, marker, line=":", thin=True)
        if gap and split != "test":
            points(axes[1], place, rows, "gap", theme.series[i], split, marker, line="none", thin=True)
            bad = rows["gap_flag"].to_numpy(bool)
            if bad.any():
                ring(axes[1], place[bad], rows["gap"].to_numpy(float)[bad], theme.alarm, "flagged")
    axes[0].set_ylim(0, max(1.02, 1.05 * float(frame["residual"].max())))
    if gap:
        order_axis(axes[1], theme, orders, "test residual above\nthe split's own")
        level(axes[1], theme, 0)
        axes[1].axhline(GAP_FLAG, color=theme.alarm, linewidth=1.2, linestyle="--", label=f"flag above {GAP_FLAG:.0%}")
        low, high = axes[1].get_ylim()
        axes[1].set_ylim(min(low, -0.5 * GAP_FLAG), max(1.1 * high, 1.3 * GAP_FLAG))
    for axis in axes:
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return finish(figure, theme, axes, foot_line(frames, None, "pool", "seen", "validation", "test"), columns=3)


def shapley(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
    """Shapley values of the components' loss decrease on seen and on test images."""
    frame = frames["effectiveness"]
    figure, (axis,) = panels(theme)
    x = order_axis(axis, theme, frame["order"].tolist(), "Shapley value φ\n(nats of loss decrease)")
    bars(axis, theme, x - 0.19, frame, "shapley_train", 0, "seen images")
    bars(axis, theme, x + 0.19, frame, "shapley_test", 1, "test images")
    level(axis, theme, 0)
    return finish(figure, theme, [axis], foot_line(frames, coverage, "seen", "test"))


def effectiveness(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
    """φ^train / √Var[c^(l)] an order."""
    frame = frames["effectiveness"]
    figure, (axis,) = panels(theme, height=3.6)
    x = order_axis(axis, theme, frame["order"].tolist(), "effectiveness  φ / √Var[c]\n(nats per unit of feature)")
    points(axis, x, frame, "effectiveness", theme.series[0], "")
    level(axis, theme, 0)
    axis.margins(y=0.12)
    return finish(figure, theme, [], foot_line(frames, coverage, "seen", "pool"))


def overfitting(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
    """1 − φ^test / φ^train an order; what cannot be trusted is drawn open and does not set the scale."""
    frame = frames["effectiveness"]
    figure, (axis,) = panels(theme)
    x = order_axis(axis, theme, frame["order"].tolist(), "over-fitting level\n1 − φ(test) / φ(seen)")
    stable = frame["overfitting_stable"].to_numpy(bool)
    level(axis, theme, 0)
    if stable.any():
        points(axis, x[stable], frame[stable], "overfitting", theme.series[0], "stable", line="none")
        axis.margins(y=0.15)
    else:
        axis.set_ylim(-1, 1)
    low, high = axis.get_ylim()
    axis.set_ylim(min(low, -0.05), max(high, 0.05))
    for place, row in zip(x[~stable], frame[~stable].to_dict("records"), strict=True):
        _unstable(axis, theme, float(place), row)
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    legend = [] if stable.all() else [axis]
    return finish(figure, theme, legend, foot_line(frames, coverage, "seen", "test"), columns=1)


def _unstable(axis: Axes, theme: Theme, x: float, row: dict[Any, Any]) -> None:
    """An open marker held inside the panel, with an open bar where the interval is unbounded."""
    if not row["shapley_train"] > 0:
        write(axis, theme, x, 0, "no reading:\nφ(seen) ≤ 0", (0, 4), ha="center")
        return
    bottom, top = axis.get_ylim()
    margin = 0.05 * (top - bottom)
    value, low, high = row["overfitting"], row["overfitting_low"], row["overfitting_high"]
    bounded = bool(np.isfinite(low) and np.isfinite(high))
    axis.plot(
        [x, x],
        np.clip((low, high) if bounded else (bottom, top), bottom, top),
        color=theme.alarm,
        linewidth=1.6,
        linestyle="-" if bounded else "--",
    )
    held = float(np.clip(value, bottom + margin, top - margin))
    style: dict[str, Any] = {
        "color": theme.alarm,
        "markersize": 8,
        "markerfacecolor": theme.paper,
        "markeredgewidth": 1.8,
    }
    axis.plot(x, held, "o" if held == value else "^" if value > held else "v", **style)
    if held != value:  # far from the scale; a short number stays clear of the next order's bar
        write(axis, theme, x, held, f"{value:.0%}".replace("-", "−"), (8, 0), va="center", color=theme.alarm)
    words = "unstable: φ(seen) < 3 standard errors" + ("" if bounded else "; interval unbounded")
    axis.plot([], [], "o", linestyle="-" if bounded else "--", label=words, **style)


def substitution(
    frames: Frames, theme: Theme = LIGHT, coverage: float | None = None, chosen: int | None = None
) -> Figure:
    """Accuracy of the head on Φ^(l), against its accuracy on f; `chosen` order, or the best on validation, marked."""
    frame = frames["substitution"]
    own = frames["substitution_splits"].set_index("split")
    f, rows = float(own["accuracy"]["test"]), int(own["rows"]["test"])
    chosen = best_order(frames) if chosen is None else chosen
    figure, (axis,) = panels(theme, height=4.9 if "control" in frames else 3.9)
    x = order_axis(axis, theme, frame["order"].tolist(), "accuracy of the head on Φ")
    low, high = accuracy_interval(f, rows)
    axis.axhspan(low, high, color=theme.muted, alpha=0.18, linewidth=0)
    words = f"f itself, test {percent(f)} [{percent(low)}, {percent(high)}]"
    axis.axhline(f, color=theme.ink, linewidth=1.6, linestyle="--", label=words)
    points(axis, x, frame, "validation_accuracy", theme.series[2], "Φ, validation", "^", ":", thin=True)
    points(axis, x, frame, "substituted_accuracy", theme.series[0], "Φ, test")
    if "control" in frames:
        words = "Φ of the control (saw the target's images alone), test"
        points(axis, x, frames["control"], "substituted_accuracy", theme.series[1], words, "s", "--", thin=True)
    picked = frame["order"].to_numpy() == chosen
    value = frame["substituted_accuracy"].to_numpy(float)[picked]
    words = f"chosen on validation: order {chosen}, test {percent(float(value[0]))}"
    ring(axis, x[picked], value, theme.ink, words)
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.margins(y=0.12)
    foot = f"{foot_line(frames, None, 'validation', 'test')}; band: 95% interval of f"
    return finish(figure, theme, [axis], foot, columns=1 if "control" in frames else 2)
