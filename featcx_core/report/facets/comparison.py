"""The comparison figure: what each variant of a network changed, metric by metric and order by order."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from featcx_core.analysis.comparison import COMPARED, changes
from featcx_core.report.canvas import LIGHT, SMALL, TEXT, Theme, finish, foot_line, level, order_axis, panels, points
from featcx_core.report.section import ORDER, Section, size
from featcx_core.report.tables import Column
from featcx_core.wording import (
    Frames,
    number,
    percent,
)

LEVEL = 0.05
CUT = 5  # an interval this many times as far out as the median one does not set the scale
MARKERS = ("o", "s", "^", "D")


def draw_comparison(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
    """Differences from the original with intervals, a panel a metric; filled where resolved and the adjusted p below 0.05."""
    frame = frames["comparison"]
    metrics = [metric for metric in COMPARED if (frame["metric"] == metric).any()]
    rows = -(-len(metrics) // 2)
    figure, axes = panels(theme, rows, 2, width=8.6, height=2.6 * rows + 1.1)
    for axis, metric in zip(axes, metrics, strict=False):
        own = frame[frame["metric"] == metric]
        orders = sorted(own["order"].unique())
        x = order_axis(axis, theme, orders, "variant − original", xlabel=metric in metrics[-2:])
        level(axis, theme, 0)
        axis.set_title(COMPARED[metric].noun, loc="left", fontsize=TEXT, color=theme.ink)
        for i, variant in enumerate(own["variant"].unique()):
            part = own[own["variant"] == variant].sort_values("order")
            place, clear = x + (i - 1) * 0.16, (part["p_holm"] < LEVEL).to_numpy(bool)
            for chosen, filled in ((clear, True), (~clear, False)):
                label = variant if filled else ""
                points(
                    axis,
                    place[chosen],
                    part[chosen],
                    "difference",
                    theme.series[i % 4],
                    label,
                    MARKERS[i % 4],
                    "none",
                    thin=True,
                    filled=filled,
                )
        if metric == "overfitting":
            _cut(axis, own, theme)
        axis.tick_params(labelsize=SMALL)
    for axis in axes[len(metrics) :]:
        axis.set_visible(False)
    count = int(frame["adjusted_over"].iloc[0])
    foot = f"filled: p < {LEVEL} after Holm's adjustment over {count} comparisons, the order resolved; paired draws"
    return finish(figure, theme, axes[:1], f"{foot_line(frames, coverage, 'pool', 'seen', 'test')}; {foot}", columns=4)


def _cut(axis: Axes, frame: pd.DataFrame, theme: Theme) -> None:
    """Keeps the scale to what most ratios need: one with a tiny denominator reaches far out and has no reading."""
    ends = frame[["difference", "difference_low", "difference_high"]].abs().max(axis=1)
    limit = CUT * float(ends.median())
    if float(ends.max()) > limit:
        axis.set_ylim(-limit, limit)
        axis.set_title(
            f"{axis.get_title(loc='left')} (cut at ±{limit:.2g})", loc="left", fontsize=TEXT, color=theme.ink
        )


def read_comparison(frames: Frames) -> str:
    """What each variant changed, by the adjusted p-values, and claim 5 of the paper."""
    frame = frames["comparison"]
    said = {
        name: [text[0].lower() + text[1:].rstrip(".") for text in changes(frame, name)]
        for name in frame["variant"].unique()
    }
    parts = [f"{name}: {', '.join(sentences)}" for name, sentences in said.items()]
    count = int(frame["adjusted_over"].iloc[0])
    return f"In this run, p-values adjusted over {count} comparisons (Holm), {'; '.join(parts)}."


SECTIONS = (
    Section(
        "comparison",
        "What the variants changed",
        "variant − original, metric by metric and order by order",
        draw_comparison,
        read_comparison,
        {
            "comparison": (
                Column("variant", "variant"),
                Column("metric", "metric"),
                ORDER,
                Column("original", "original", number),
                Column("value", "variant's value", number),
                Column("difference", "difference", number),
                Column("p_holm", "p (Holm)", number),
            ),
            "networks": (
                Column("network", "network"),
                Column("train_accuracy", "accuracy on seen images", percent),
                Column("test_accuracy", "test accuracy", percent),
                Column("compressed_bytes", "compressed size (bytes)", size),
                Column("ratio", "times smaller than fp32", size),
            ),
        },
        wide=True,
        optional=True,
        paper="The paper reports that distillation makes features more reliable and more effective, and that compression "
        "touches mostly low orders and leaves reliability alone.",
    ),
)
