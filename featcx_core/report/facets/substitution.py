"""Substitution: figure and sentence."""

from __future__ import annotations

import functools

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from featcx_core.errors import InputError
from featcx_core.metrics import integer
from featcx_core.report.canvas import (
    LIGHT,
    Theme,
    finish,
    foot_line,
    order_axis,
    panels,
    points,
    ring,
)
from featcx_core.report.section import ORDER, Section, columns
from featcx_core.report.tables import Column
from featcx_core.wording import (
    Frames,
    accuracy_interval,
    best_order,
    number,
    percent,
    records,
)


def draw_substitution(
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


def read_substitution(frames: Frames, chosen_order: int | None) -> str:
    """What the chosen order gains or loses on test images, beside the error that their number leaves."""
    if chosen_order is None:
        return "In this run no order was chosen for substitution."
    orders = {row["order"]: row for row in records(frames, "substitution")}
    if chosen_order not in orders:
        raise InputError(f"Order {chosen_order} is not in the substitution table; choose among {[*orders]}.")
    own = {row["split"]: row for row in records(frames, "substitution_splits")}
    test, accuracy = own["test"], orders[chosen_order]["substituted_accuracy"]
    gain = f"{100 * (accuracy - test['accuracy']):+.1f}".replace("-", "−")
    return (
        f"In this run order {chosen_order}, chosen on {own['validation']['rows']:,} validation images, changes accuracy by "
        f"{gain} points on {test['rows']:,} test images ({percent(test['accuracy'])} with f, {percent(accuracy)} with Φ)"
        f"{_paired(frames)}."
    )


def _paired(frames: Frames) -> str:
    """The gain over the same images, and that of the control that saw only the target's own samples."""
    words = []
    for name, what in (
        ("gain", "image by image the gain"),
        ("control_gain", "for disentanglers that saw only the target's own images it"),
    ):
        if name in frames:
            row = records(frames, name)[0]
            ends = f"[{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]".replace("-", "−")
            gain = f"{100 * row['gain']:+.1f}".replace("-", "−")
            words.append(f"{what} is {gain} points {ends} (McNemar p = {row['p']:.2g})")
    return "".join(f"; {part}" for part in words)


def substitution_section(chosen: int | None = None) -> Section:
    """With the order that was chosen, or the best on validation."""
    return Section(
        "substitution",
        "Substitution",
        "accuracy of the target's head on Φ in place of f",
        functools.partial(draw_substitution, chosen=chosen),
        lambda frames: read_substitution(frames, best_order(frames) if chosen is None else chosen),
        {
            "substitution": (ORDER, *columns("substitution")),
            "substitution_splits": (
                Column("split", "split"),
                Column("rows", "images", integer),
                Column("accuracy", "accuracy with f", percent),
                Column("loss", "loss with f (nats)", number),
            ),
        },
        paper="The paper gains up to about 5 points, middle orders most (ResNet-20 on 2,000 images: 56.2% to 60.8% "
        "at order 7), with the best order read off the test set and, as here, disentanglers that see more images than the "
        "target does.",
    )
