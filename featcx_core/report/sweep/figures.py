"""The figures over training-set sizes: a panel a group (architecture and further settings), a line a size.

Drawn from the frames of `featcx_core.report.sweep.page`: 'sweep', a row a (target, order), and those over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from featcx_core.report.canvas import LIGHT, TEXT, Theme, finish, level, order_axis, panels, points
from featcx_core.report.complexity.figures import MARKERS, ramp
from featcx_core.wording import Frames, significance_of, unresolved

ACROSS = 3  # panels beside each other
SHARES = ("significance", "decodability", "overfitting")


def by_order(
    frames: Frames, theme: Theme = LIGHT, coverage: float | None = None, name: str = "significance", label: str = ""
) -> Figure:
    """One metric by order: mean over seeds as a line a size, each seed a dot, the band from lowest to highest seed.

    A size of a single seed has the target's own interval instead.
    """
    seeds, means = frames["sweep"], frames[name]
    column = significance_of(means) if name == "significance" else name
    groups, sizes = _unique(means["group"]), sorted(int(n) for n in means["samples"].unique())
    orders = sorted(int(order) for order in means["order"].unique())
    figure, axes = grid(theme, groups)
    colours = ramp(theme, len(sizes))
    for axis, group in zip(axes, groups, strict=True):
        x = dict(zip(orders, order_axis(axis, theme, orders, "", xlabel=False), strict=True))
        if name in ("effectiveness", "overfitting"):
            level(axis, theme, 0)
        for i, size in enumerate(sizes):
            rows = means[(means["group"] == group) & (means["samples"] == size)].dropna(subset=column)
            own = seeds[(seeds["group"] == group) & (seeds["samples"] == size)].dropna(subset=column)
            own = own[own["overfitting_stable"]] if name == "overfitting" else own
            if not rows.empty:
                shift = 0.09 * (i - (len(sizes) - 1) / 2)
                marker = MARKERS[i % len(MARKERS)]
                _line(
                    axis,
                    rows,
                    own,
                    column,
                    {o: p + shift for o, p in x.items()},
                    colours[i],
                    f"{size:,} samples",
                    marker,
                )
        if name == "decodability":
            _floor(axis, theme, seeds[seeds["group"] == group], x)
        axis.margins(y=0.08)
    _outer(theme, axes, label, "complexity order (ReLU layers)")
    if name in SHARES:
        axes[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return finish(figure, theme, axes, foot(frames, coverage, name), columns=3 if len(groups) == 1 else 5)


def accuracy(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
    """Test accuracy against samples: with f, and with Φ of the chosen order in its place; one line a group."""
    targets = frames["targets"]
    groups = _unique(targets["group"])
    figure, axes = panels(theme, 1, 2, width=8.6, height=4.2, sharey=True)
    colours = group_colours(theme, len(groups))
    names = {"test_accuracy": "f, the target itself", "substituted_accuracy": "Φ of the chosen order in place of f"}
    for axis, (name, title) in zip(axes, names.items(), strict=True):
        for i, group in enumerate(groups):
            own = targets[targets["group"] == group].dropna(subset=name)
            over_samples(axis, own, name, colours[i], group, MARKERS[i % len(MARKERS)], (i - (len(groups) - 1) / 2))
        size_axis(axis, theme, targets["samples"])
        axis.set_title(title, loc="left", fontsize=TEXT, color=theme.ink)
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes[0].set_ylabel("test accuracy", color=theme.ink, fontsize=TEXT)
    return finish(figure, theme, axes, foot(frames, None, ""), columns=3)


def profile(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
    """Significance as a field of layer (the first at the bottom) by order, a panel a net; orders not resolved in brackets."""
    frame = frames["profile"]
    nets, orders = _unique(frame["net"]), sorted(int(order) for order in frame["order"].unique())
    layers = frame.drop_duplicates("place").sort_values("place")["layer"].tolist()
    figure, axes = grid(theme, nets, height=max(2.6, 0.34 * len(layers)))
    top = max(float(frame["significance"].max()), 1e-12)
    colours = LinearSegmentedColormap.from_list("featcx", [theme.paper, theme.series[0]]).with_extremes(bad=theme.grid)
    for axis, net in zip(axes, nets, strict=True):
        own = frame[frame["net"] == net].pivot(index="layer", columns="order").reindex(layers)
        values = own["significance"][orders].to_numpy(float)
        resolved = own["resolved"][orders].to_numpy(float)
        axis.grid(False)
        axis.imshow(values, cmap=colours, vmin=0, vmax=top, origin="lower", aspect="auto")
        axis.set_xticks(range(len(orders)), [str(order) for order in orders])
        axis.set_yticks(range(len(layers)), layers)
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value):
                shown = f"({100 * value:.0f})" if resolved[i, j] < 0.5 else f"{100 * value:.0f}"
                axis.text(j, i, shown, ha="center", va="center", color=theme.paper if value > 0.65 * top else theme.ink)
    _outer(theme, axes, "layer, from the image up", "complexity order (ReLU layers)")
    judged = "; in brackets: not resolved for half of the seeds or more" if frame["resolved"].notna().any() else ""
    seeds = int(frame["seeds"].max())
    mean = f", means over {seeds} seeds" if seeds > 1 else ""
    return finish(figure, theme, axes, f"per cent of Var[f]{mean}{judged}")


def over_samples(axis: Axes, own: pd.DataFrame, name: str, colour: str, label: str, marker: str, place: float) -> None:
    """Mean over seeds against samples, whiskers from lowest to highest seed, each seed a dot.

    `place` moves a series aside, so that whiskers do not cover each other.
    """
    if own.empty:
        return
    moved = own.assign(x=own["samples"].astype(float) * 1.02**place)
    over = moved.groupby("x", sort=True)[name].agg(["mean", "min", "max"])
    several = moved["seed"].nunique() > 1
    frame = pd.DataFrame({name: over["mean"]})
    if several:
        axis.plot(moved["x"], moved[name], marker, color=colour, markersize=4, alpha=0.45, linestyle="none")
        frame[f"{name}_low"], frame[f"{name}_high"] = over["min"], over["max"]
    elif f"{name}_low" in own:
        ends = moved.set_index("x").sort_index()
        frame[f"{name}_low"], frame[f"{name}_high"] = ends[f"{name}_low"], ends[f"{name}_high"]
    points(axis, over.index.to_numpy(float), frame, name, colour, label, marker)


def size_axis(axis: Axes, theme: Theme, samples: pd.Series) -> None:
    """A logarithmic axis of training-set sizes with a tick at each."""
    sizes = sorted({float(n) for n in samples})
    axis.set_xscale("log")
    axis.set_xlim(sizes[0] / 1.3, sizes[-1] * 1.3)
    shown = [n for i, n in enumerate(sizes) if i in (0, len(sizes) - 1) or len(sizes) <= 6 or i % 2 == 0]
    axis.xaxis.set_major_locator(FixedLocator(shown))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
    axis.set_xlabel("training samples of the target", color=theme.ink, fontsize=TEXT)


def grid(theme: Theme, groups: Sequence[str], height: float = 2.9) -> tuple[Figure, list[Axes]]:
    """A panel a group, titled, up to three beside each other."""
    across = 2 if len(groups) in (2, 4) else min(ACROSS, len(groups))
    rows = math.ceil(len(groups) / across)
    width = {1: 5.6, 2: 8.6}.get(across, 10.8)
    figure, axes = panels(theme, rows, across, width=width, height=height * rows + 1.2, sharey=True)
    for spare in axes[len(groups) :]:
        spare.remove()
    for axis, group in zip(axes, groups, strict=False):
        axis.set_title(group, loc="left", fontsize=TEXT, color=theme.ink)
    return figure, axes[: len(groups)]


def group_colours(theme: Theme, count: int) -> list[str]:
    """A colour a group: told apart where there are up to four, else a ramp, markers telling the rest."""
    return list(theme.series[:count]) if count <= len(theme.series) else ramp(theme, count)


def foot(frames: Frames, coverage: float | None, name: str) -> str:
    """Over how many targets and seeds, and what dots, bands and whiskers are."""
    sweep = frames["sweep"]
    seeds, targets = sweep["seed"].nunique(), sweep["target"].nunique()
    words = [f"n = {targets} {'targets' if targets > 1 else 'target'}, {seeds} {'seeds' if seeds > 1 else 'seed'}"]
    if seeds > 1:
        drawn = "band" if name else "whiskers"
        words.append(f"dots: each seed; line: mean; {drawn}: lowest to highest seed")
    elif name and coverage is not None and f"{name}_low" in sweep and sweep[f"{name}_low"].notna().any():
        words.append(f"whiskers: {100 * coverage:g}% bootstrap over images, of each target alone")
    if name in frames and unresolved(frames[name]).any():
        words.append("open: not resolved with some seed")
    if name == "overfitting" and (unstable := int((~sweep["overfitting_stable"]).sum())):
        words.append(f"{unstable} of {len(sweep)} values unstable and left out")
    return "; ".join(words)


def _line(
    axis: Axes,
    rows: pd.DataFrame,
    own: pd.DataFrame,
    name: str,
    x: dict[int, float],
    colour: str,
    label: str,
    marker: str,
) -> None:
    """One size: its mean, and either its seeds and their range or a single seed's own intervals."""
    place = np.array([x[order] for order in rows["order"]])
    if (rows["seeds"] > 1).any():
        ranged = (rows["seeds"] > 1).to_numpy()
        low, high = (np.where(ranged, rows[f"{name}_{end}"], rows[name]) for end in ("low", "high"))
        axis.fill_between(place, low, high, color=colour, alpha=0.16, linewidth=0)
        dots = [x[order] for order in own["order"]]
        axis.plot(dots, own[name], marker, color=colour, markersize=4, alpha=0.45, linestyle="none")
        rows = rows[[column for column in ("order", name, "resolved") if column in rows]]
    points(axis, place, rows, name, colour, label, marker)


def _floor(axis: Axes, theme: Theme, rows: pd.DataFrame, x: dict[int, float]) -> None:
    """The range over targets of what untrained nets' features give."""
    over = rows.dropna(subset="decodability_floor").groupby("order")["decodability_floor"].agg(["min", "mean", "max"])
    place = [x[int(str(order))] for order in over.index]
    axis.fill_between(place, over["min"], over["max"], color=theme.muted, alpha=0.3, linewidth=0)
    axis.plot(place, over["mean"], color=theme.muted, linestyle=":", linewidth=2, label="floor (untrained nets)")


def _outer(theme: Theme, axes: Sequence[Axes], ylabel: str, xlabel: str) -> None:
    """Labels at the left and beneath the lowest panel of each column alone."""
    for i, axis in enumerate(axes):
        spec = axis.get_subplotspec()
        assert spec is not None
        across = spec.get_gridspec().ncols
        if i % across == 0:
            axis.set_ylabel(ylabel, color=theme.ink, fontsize=TEXT)
        if i + across >= len(axes):
            axis.set_xlabel(xlabel, color=theme.ink, fontsize=TEXT)


def _unique(values: pd.Series) -> list[str]:
    return [str(value) for value in values.unique()]
