"""Shapley values, effectiveness, over-fitting and interactions: figures, sentences, flags."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from featcx_core.report.canvas import (
    LEGEND,
    LIGHT,
    ORDER_LABEL,
    TEXT,
    Theme,
    bars,
    finish,
    foot_line,
    heat_map,
    level,
    marked,
    order_axis,
    panels,
    points,
    write,
)
from featcx_core.report.section import ORDER, Section, columns, order_word
from featcx_core.report.tables import Column
from featcx_core.wording import (
    Frames,
    listed,
    number,
    ranked,
    readable,
    records,
    top_row,
    with_interval,
)


def unstable_overfitting(frames: Frames) -> list[str]:
    """Orders whose over-fitting level cannot be read."""
    rows = [row for row in records(frames, "effectiveness") if not row["overfitting_stable"]]
    low = [row["order"] for row in rows if row["shapley_train"] > 0]
    none = [row["order"] for row in rows if not row["shapley_train"] > 0]
    found = []
    if low:
        found.append(
            f"The over-fitting level is unstable at {listed(low)}: φ(seen) lies within three standard errors of zero, so "
            "the ratio's interval may be unbounded."
        )
    if none:
        found.append(f"The over-fitting level has no reading at {listed(none)}, where φ(seen) is not above zero.")
    return found


def draw_interactions(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
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

    heat_map(
        figure,
        axis,
        theme,
        values,
        marked(frames, orders),
        show,
        "interaction (nats of loss decrease)",
        clear,
    )
    axis.set_title("above the diagonal: seen images\nbelow: test images", loc="left", color=theme.ink, fontsize=LEGEND)
    axis.set_xlabel(ORDER_LABEL, color=theme.ink, fontsize=TEXT)
    foot = foot_line(frames, None, "seen", "test")
    told = "" if coverage is None else f"{100 * coverage:g}% "
    return finish(figure, theme, [], f"{foot}; bold: {told}bootstrap interval over images leaves out zero")


def draw_shapley(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
    """Shapley values of the components' loss decrease on seen and on test images."""
    frame = frames["effectiveness"]
    figure, (axis,) = panels(theme)
    x = order_axis(axis, theme, frame["order"].tolist(), "Shapley value φ\n(nats of loss decrease)")
    bars(axis, theme, x - 0.19, frame, "shapley_train", 0, "seen images")
    bars(axis, theme, x + 0.19, frame, "shapley_test", 1, "test images")
    level(axis, theme, 0)
    return finish(figure, theme, [axis], foot_line(frames, coverage, "seen", "test"))


def draw_effectiveness(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
    """φ^train / √Var[c^(l)] an order."""
    frame = frames["effectiveness"]
    figure, (axis,) = panels(theme, height=3.6)
    x = order_axis(axis, theme, frame["order"].tolist(), "effectiveness  φ / √Var[c]\n(nats per unit of feature)")
    points(axis, x, frame, "effectiveness", theme.series[0], "")
    level(axis, theme, 0)
    axis.margins(y=0.12)
    return finish(figure, theme, [], foot_line(frames, coverage, "seen", "pool"))


def draw_overfitting(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
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


def effective_words(frames: Frames) -> str:
    rows = readable(records(frames, "effectiveness"))
    if not rows:
        return "no order is resolved, so none is called effective"
    top, tied = top_row(rows, "effectiveness")
    effective = [row["order"] for row in rows if row["effectiveness_low"] > 0]
    if not effective:
        return "no order's effectiveness is told apart from zero"
    return (
        f"{listed(effective)} {'is' if len(effective) == 1 else 'are'} effective (interval above zero), order "
        f"{top['order']} most at {with_interval(top, 'effectiveness', number)}, {ranked(rows, tied)}"
    )


def overfitted_words(frames: Frames) -> str:
    """Which orders' over-fitting level lies above or below zero, and where it cannot be told or read."""
    groups: dict[str, list[int]] = {
        f"{verb} at": []
        for verb in ("is above zero", "is below zero", "is not told apart from zero", "is too unstable to read")
    }
    above, below, open_, unstable = groups.values()
    rows = readable(records(frames, "effectiveness"))
    if not rows:
        return "over-fitting is read at no order, since none is resolved"
    for row in rows:
        if not row["overfitting_stable"]:
            unstable.append(row["order"])
        elif row["overfitting_low"] > 0:
            above.append(row["order"])
        else:
            (below if row["overfitting_high"] < 0 else open_).append(row["order"])
    parts = [f"{verb} {listed(orders)}" for verb, orders in groups.items() if orders]
    return "over-fitting " + (parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}")


def read_shapley(frames: Frames) -> str:
    """Total loss decrease on seen and test images, and the component with the largest part in it."""
    rows = records(frames, "effectiveness")
    seen, test = (sum(row[f"shapley_{kind}"] for row in rows) for kind in ("train", "test"))
    top, tied = top_row(readable(rows) or rows, "shapley_train")
    sampled = ""
    if "shapley_train_sampling" in top:
        worst = max(float(row[f"shapley_{kind}_sampling"]) for row in rows for kind in ("train", "test"))
        sampled = f"; coalitions were sampled, which leaves a standard error of at most {number(worst)} nats an order"
    return (
        f"In this run the components together lower the loss by {number(seen)} nats on seen and {number(test)} nats on "
        f"test images, that of order {top['order']} most with {with_interval(top, 'shapley_train', number)} nats on seen "
        f"images, {ranked(readable(rows) or rows, tied)}{sampled}."
    )


def read_interactions(frames: Frames) -> str:
    """The strongest interaction on seen images, and how many lie clearly above and below zero on each split."""
    every = records(frames, "interactions")
    if not every:
        return (
            "In this run no pair of orders was measured: it takes two orders, and above 14 coalitions are only sampled."
        )
    rows = readable(every)
    if not rows:
        return "In this run no two orders are resolved, so no interaction is read."
    top = max((row for row in rows if row["split"] == "seen"), key=lambda row: abs(float(row["interaction"])))
    parts = []
    for split in ("seen", "test"):
        own = [row for row in rows if row["split"] == split]
        above, below = sum(row["interaction_low"] > 0 for row in own), sum(row["interaction_high"] < 0 for row in own)
        parts.append(f"on {split} images {above} lie above zero and {below} below")
    of = "" if len(rows) == len(every) else " of resolved orders"
    change = "more" if top["interaction"] > 0 else "less"
    return (
        f"In this run the strongest interaction on seen images is that of {listed([top['a'], top['b']])} with "
        f"{with_interval(top, 'interaction', number)} nats (they lower the loss {change} together than apart), and of "
        f"{len(rows) // 2} pairs{of} {', '.join(parts)}, judged by intervals not adjusted for their number."
    )


def read_effectiveness(frames: Frames) -> str:
    """Which orders are effective and which most."""
    return f"In this run {effective_words(frames)}, in nats of loss per unit of √Var[c]."


def read_overfitting(frames: Frames) -> str:
    """Where over-fitting is seen, and the highest stable level."""
    stable = [row for row in readable(records(frames, "effectiveness")) if row["overfitting_stable"]]
    if not stable:
        return f"In this run {overfitted_words(frames)}."
    top, tied = top_row(stable, "overfitting")
    return (
        f"In this run {overfitted_words(frames)}; the highest stable level is {with_interval(top, 'overfitting')} at order "
        f"{top['order']}, {ranked(stable, tied)}."
    )


SECTIONS = (
    Section(
        "shapley",
        "Shapley values",
        "φ: each component's part in lowering the loss, in nats",
        draw_shapley,
        read_shapley,
        {"effectiveness": (ORDER, *columns("effectiveness", "shapley"))},
        paper="The paper states its findings on two ratios of these values, effectiveness and over-fitting level, which "
        "the next sections give.",
    ),
    Section(
        "interactions",
        "Interactions",
        "Shapley interaction index: how much more (above zero) or less (below) two orders lower the loss together than "
        "apart, in nats",
        draw_interactions,
        read_interactions,
        {
            "interactions": (
                Column("split", "images"),
                Column("a", "order a", order_word),
                Column("b", "order b", order_word),
                Column("interaction", "interaction of a and b", number),
            )
        },
        paper="The paper gives no interactions; a loss that levels off draws them below zero even between parts that "
        "have nothing in common, so read which are strongest rather than their sign.",
    ),
    Section(
        "effectiveness",
        "Effectiveness",
        "φ(seen) / √Var[c], nats per unit of feature",
        draw_effectiveness,
        read_effectiveness,
        {"effectiveness": (ORDER, *columns("effectiveness"))},
        paper="In the paper effectiveness peaks at orders of about half the target's depth.",
    ),
    Section(
        "overfitting",
        "Over-fitting level",
        "1 − φ(test) / φ(seen)",
        draw_overfitting,
        read_overfitting,
        {"effectiveness": (ORDER, *columns("effectiveness", "overfitting"))},
        flags=unstable_overfitting,
        paper="The paper compares training-set sizes, which a single run cannot: there more samples lower the "
        "over-fitting of low orders and not of high ones.",
    ),
)
