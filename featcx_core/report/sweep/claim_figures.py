"""The figures of the claims: what each verdict rests on, seed by seed. Frames as in `featcx_core.report.sweep.page`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from featcx_core.report.canvas import LIGHT, TEXT, Theme, finish, level, order_axis, panels, points
from featcx_core.report.complexity.figures import MARKERS, ramp
from featcx_core.report.sweep.figures import foot, group_colours, over_samples, size_axis
from featcx_core.studies.claims import ABOUT, LITTLE
from featcx_core.studies.frames import MODELS
from featcx_core.wording import Frames

FLAT = 3  # groups whose names have room beside each other
KINDS = {"sizes": "smallest against largest size, same seed", "seeds": "two seeds, same size"}


def reliability(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
    """Claim 1: mean reliability and decodability against samples, and how far significance moves."""
    means, distances = frames["mean_reliability"], frames["distances"]
    known = [name for name in ("reliability", "decodability") if means[name].notna().any()]
    parts = [*known, *(["distance"] if len(distances) else [])]
    figure, axes = panels(theme, 1, len(parts), width=(5.6, 8.6, 10.8)[len(parts) - 1], height=4.2)
    labels = {
        "reliability": "mean reliability ratio  Σρr / Σρ",
        "decodability": "mean decodability above floor",
        "distance": "share of significance moved",
    }
    for axis, name in zip(axes, parts, strict=True):
        axis.set_title(labels[name], loc="left", fontsize=TEXT, color=theme.ink)
        if name == "distance":
            _distances(axis, theme, distances)
        else:
            lines(axis, theme, means, name)
        if name != "reliability":
            axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return finish(figure, theme, axes, foot(frames, None, ""), columns=3)


def lines(axis: Axes, theme: Theme, targets: pd.DataFrame, name: str) -> None:
    """A quantity of targets against samples, one line a group."""
    groups = targets["group"].unique()
    for i, (group, colour) in enumerate(zip(groups, group_colours(theme, len(groups)), strict=True)):
        own = targets[targets["group"] == group].dropna(subset=name)
        over_samples(axis, own, name, colour, str(group), MARKERS[i % len(MARKERS)], i - (len(groups) - 1) / 2)
    size_axis(axis, theme, targets["samples"])


def _distances(axis: Axes, theme: Theme, frame: pd.DataFrame) -> None:
    """Dots a pair and their mean: between sizes, and between seeds."""
    groups = frame["group"].unique()
    for i, (kind, label) in enumerate(KINDS.items()):
        for k, group in enumerate(groups):
            own = frame[(frame["group"] == group) & (frame["kind"] == kind)]["distance"].to_numpy(float)
            x = k + 0.3 * (i - 0.5)
            if len(own):
                spread = np.linspace(-0.06, 0.06, len(own)) if len(own) > 1 else np.zeros(1)
                style: dict[str, Any] = {"color": theme.ink if i == 0 else theme.muted, "linestyle": "none"}
                axis.plot(x + spread, own, "os"[i], markersize=5, alpha=0.45, **style)
                axis.errorbar(x, own.mean(), xerr=0.11, linewidth=2.5, label=label, **style)
                if kind == "seeds":
                    limit, words = own.mean() + LITTLE, f"'little': {LITTLE:.0%} beyond seeds"
                    axis.plot([k - 0.4, k + 0.4], [limit] * 2, color=theme.alarm, linestyle="--", label=words)
    if len(groups) > FLAT:
        turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axis.set_xticks(range(len(groups)), [str(group) for group in groups], **turned)
    else:
        axis.set_xticks(range(len(groups)), [str(group).replace(" (", "\n(") for group in groups])
    axis.set_xlim(-0.6, len(groups) - 0.4)
    axis.set_ylim(bottom=0)


def effectiveness(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
    """Claim 2: the order at which each target's effectiveness peaks, against half its depth."""
    peaks = frames["peaks"]
    figure, (axis,) = panels(theme, height=4.6)
    half = np.unique(peaks["half"].to_numpy(float))
    ends = np.array([half.min() / 1.6, half.max() * 1.6])
    axis.fill_between(ends, ends / ABOUT, ends * ABOUT, color=theme.muted, alpha=0.18, linewidth=0)
    axis.plot(ends, ends, color=theme.muted, linewidth=1.6, linestyle="--", label="half the depth (band: 'about')")
    sizes, seeds = sorted(peaks["samples"].unique()), sorted(peaks["seed"].unique())
    for i, (size, colour) in enumerate(zip(sizes, ramp(theme, len(sizes)), strict=True)):
        own = peaks[peaks["samples"] == size]
        aside = (i - (len(sizes) - 1) / 2) * 1.3 + (own["seed"].map(seeds.index) - (len(seeds) - 1) / 2) * 0.35
        for edge, face in ((True, axis.get_facecolor()), (False, colour)):
            rows = own["edge"].to_numpy(bool) == edge
            x = (own["half"] * 1.03**aside).to_numpy(float)[rows]
            style: dict[str, Any] = {"color": colour, "markersize": 8, "markeredgewidth": 1.6, "linestyle": "none"}
            axis.plot(x, own["top"].to_numpy(float)[rows], MARKERS[i % len(MARKERS)], markerfacecolor=face, **style)
        axis.errorbar(
            [], [], color=colour, marker=MARKERS[i % len(MARKERS)], linestyle="none", label=f"{size:,} samples"
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    _ticks(axis, half, sorted({int(order) for order in frames["sweep"]["order"]}))
    axis.set_xlim(*ends)
    axis.set_xlabel("half of the target's depth", color=theme.ink, fontsize=TEXT)
    axis.set_ylabel("order of the highest effectiveness", color=theme.ink, fontsize=TEXT)
    beyond = "; open: at the edge of the orders, may lie beyond" if peaks["edge"].any() else ""
    return finish(
        figure, theme, [axis], f"one mark a target{beyond}; each column of marks belongs to one depth", columns=2
    )


def _ticks(axis: Axes, half: np.ndarray, orders: list[int]) -> None:
    for one, values in ((axis.xaxis, half.tolist()), (axis.yaxis, orders)):
        one.set_major_locator(FixedLocator(values))
        one.set_minor_locator(NullLocator())
        one.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_ylim(min(*orders, *half) / 1.3, max(*orders, *half) * 1.3)


def overfitting(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
    """Claim 3: by how much the over-fitting of each order changes as samples double."""
    frame = frames["slopes"]
    orders, groups = sorted({int(order) for order in frame["order"]}), frame["group"].unique()
    figure, (axis,) = panels(theme)
    x = dict(zip(orders, order_axis(axis, theme, orders, "change of the over-fitting\nlevel a doubling"), strict=True))
    level(axis, theme, 0)
    for i, (group, colour) in enumerate(zip(groups, group_colours(theme, len(groups)), strict=True)):
        own, marker = frame[frame["group"] == group], MARKERS[i % len(MARKERS)]
        over = own.groupby("order", sort=True)["value"].agg(["mean", "min", "max"])
        place = np.array([x[int(str(order))] for order in over.index]) + 0.12 * (i - (len(groups) - 1) / 2)
        rows = pd.DataFrame({"value": over["mean"]})
        if own["seed"].nunique() > 1:
            rows["value_low"], rows["value_high"] = over["min"], over["max"]
        points(axis, place, rows, "value", colour, str(group), marker, line=":")
    low = sorted({int(order) for order in frame[frame["low"]]["order"]})
    if low and low[-1] != orders[-1]:
        axis.axvline(x[low[-1]] + 0.5, color=theme.muted, linewidth=1, linestyle=":", label="low orders | high orders")
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    axis.margins(y=0.12)
    drawn = "; whiskers: lowest to highest seed" if frame["seed"].nunique() > 1 else ""
    return finish(figure, theme, [axis], f"slope over log2(samples), stable values alone{drawn}")


def substitution(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
    """Claim 4: what the chosen order gains by size, and what each order gains."""
    targets, sweep = frames["targets"], frames["sweep"]
    figure, axes = panels(theme, 1, 2, width=8.6, height=4.2, sharey=True)
    lines(axes[0], theme, targets, "gain")
    axes[0].set_title("the chosen order, by size", loc="left", fontsize=TEXT, color=theme.ink)
    orders = sorted({int(order) for order in sweep["order"]})
    x = dict(zip(orders, order_axis(axes[1], theme, orders, "", xlabel=False), strict=True))
    groups = sweep["group"].unique()
    for i, (group, colour) in enumerate(zip(groups, group_colours(theme, len(groups)), strict=True)):
        own = sweep[sweep["group"] == group]
        gained = (own["substituted_accuracy"] - own["test_accuracy"]).groupby(own["order"]).mean()
        place = np.array([x[int(str(order))] for order in gained.index])
        rows = pd.DataFrame({"gain": gained.to_numpy()})
        points(axes[1], place, rows, "gain", colour, str(group), MARKERS[i % len(MARKERS)])
    axes[1].set_title("each order, mean over targets", loc="left", fontsize=TEXT, color=theme.ink)
    axes[1].set_xlabel("complexity order (ReLU layers)", color=theme.ink, fontsize=TEXT)
    axes[0].set_ylabel("accuracy gained by Φ in place of f", color=theme.ink, fontsize=TEXT)
    for axis in axes:
        level(axis, theme, 0)
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    own = f"; whiskers: {100 * coverage:g}% of each target" if coverage and sweep["seed"].nunique() == 1 else ""
    return finish(figure, theme, axes, foot(frames, coverage, "") + own, columns=3)


def prediction(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
    """Test accuracy that a fit to all other targets predicts, against the measured one."""
    held = frames["held_out"]
    held = held[(held["performance"] == held["performance"].iloc[0]) & (held["split"] == "leave_one_out")]
    figure, axes = panels(theme, 1, 2, width=8.6, height=4.4, sharex=True, sharey=True)
    low, high = held["measured"].min(), held["measured"].max()
    margin = 0.1 * (high - low)
    for axis, model, colour in zip(axes, ("shares", "log_samples"), theme.series, strict=False):
        own = held[held["model"] == model]
        axis.plot([low, high], [low, high], color=theme.muted, linewidth=1.4, linestyle="--")
        axis.plot(own["measured"], own["predicted"], "o", color=colour, markersize=7, alpha=0.8)
        axis.set_title(f"by {MODELS[model]}", loc="left", fontsize=TEXT, color=theme.ink)
        axis.set_xlabel("measured test accuracy", color=theme.ink, fontsize=TEXT)
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.set_xlim(low - margin, high + margin)
    axes[0].set_ylabel("predicted, left out of the fit", color=theme.ink, fontsize=TEXT)
    return finish(figure, theme, [], f"n = {len(own)} targets, each predicted by a fit to the others; dashed: exact")
