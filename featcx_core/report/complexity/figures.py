"""The figures of Task-n: what each order holds of what was learned, beside the published values, and how it goes with n."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from featcx_core.analysis.tasknet import PUBLISHED, mean_orders
from featcx_core.report.canvas import LIGHT, TEXT, Theme, finish, level, order_axis, panels, points
from featcx_core.studies.measures import spread
from featcx_core.wording import Frames

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HALF = 0.5  # of the task's variance: below it a learner's parts say little about the task

LOWEST = -1.0  # R² that is still drawn


def weights(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
    """std[c^(l)] / std[f] by order, one line an n; the published values beside it on the same axes."""
    frame = frames["task_orders"]
    depths = sorted(frame["n"].unique())
    known = [n for n in depths if frame.loc[frame["n"] == n, "published_std_ratio"].notna().any()]
    given = {order for n in known for order in PUBLISHED[n]}
    orders = sorted(given | set(frame["order"]))
    figure, axes = panels(theme, 1, 1 + bool(known), width=8.6 if known else 5.6, height=4.3, sharey=True)
    x = dict(zip(orders, order_axis(axes[0], theme, orders, "std[c] / std[f]"), strict=True))
    colours = ramp(theme, len(depths))
    for i, n in enumerate(depths):
        rows, marker = frame[frame["n"] == n].sort_values("order"), MARKERS[i % len(MARKERS)]
        place = np.array([x[order] for order in rows["order"]]) + 0.09 * (i - (len(depths) - 1) / 2)
        points(axes[0], place, rows, "std_ratio", colours[i], f"n = {n}", marker)
        if n in known:
            ratios = PUBLISHED[n]
            axes[1].plot(
                [x[order] for order in ratios],
                list(ratios.values()),
                color=colours[i],
                marker=marker,
                markersize=7,
                linewidth=2,
                linestyle="--",
            )
    axes[0].set_yscale("log")
    axes[0].yaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
    axes[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes[0].yaxis.set_minor_formatter(NullFormatter())
    for axis in axes:
        axis.tick_params(which="minor", length=0)
    axes[0].set_title("this run", loc="left", fontsize=TEXT, color=theme.ink)
    if known:
        order_axis(axes[1], theme, orders, "")
        axes[1].set_title("published (CIFAR-10, one net an n)", loc="left", fontsize=TEXT, color=theme.ink)
    return finish(figure, theme, axes[:1], foot(frames), columns=len(depths) if len(depths) <= 6 else 4)


def depth(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
    """Significance-weighted mean order against n, above each learner's R² on its task."""
    nets = mean_orders(frames["tasks"])
    depths = sorted(nets["n"].unique())
    figure, (upper, lower) = panels(theme, 2, 1, height=5.6, sharex=True)
    for axis, column, name in ((upper, "mean_order", "mean order"), (lower, "learner_r2", "learner's R² (test)")):
        x = order_axis(axis, theme, depths, name, xlabel=False)
        for _, rows in nets.groupby("seed", sort=True):
            axis.plot(x, rows.sort_values("n")[column], color=theme.muted, linewidth=1, alpha=0.7, label="each seed")
        points(axis, x, spread(nets, ["n"], [column])[["n", column]], column, theme.series[0], "mean over seeds")
    lowest = float(nets["learner_r2"].min())
    _share(lower, theme, lowest)
    lower.set_xlabel("ReLU layers n of the task net", color=theme.ink, fontsize=TEXT)
    cut = "; R² below −100% is cut off" if lowest < LOWEST else ""
    return finish(figure, theme, [upper, lower], foot(frames, whiskers=False) + cut, columns=3)


def _share(axis: Axes, theme: Theme, lowest: float) -> None:
    """An axis of shares up to one, with the line below which little was learned."""
    axis.axhline(HALF, color=theme.alarm, linewidth=1.2, linestyle="--", label="half learned")
    level(axis, theme, 0)
    axis.set_ylim(min(0.0, max(lowest, LOWEST)) - 0.02, 1.02)
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def ramp(theme: Theme, count: int) -> list[str]:
    """Colours for values in order."""
    colours = LinearSegmentedColormap.from_list("n", [theme.series[2], theme.series[0], theme.series[3]])
    return [to_hex(colours(i / max(1, count - 1))) for i in range(count)]


def foot(frames: Frames, whiskers: bool = True) -> str:
    """Over how many seeds and images."""
    frame = frames["tasks"]
    seeds, rows = frame["seed"].nunique(), int(frame["rows"].max())
    drawn = "; whiskers: lowest and highest seed" if whiskers and seeds > 1 else ""
    return f"n = {seeds} {'seeds' if seeds > 1 else 'seed'}, {rows:,} pool images each{drawn}"
