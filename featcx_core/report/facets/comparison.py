"""The comparison figure: what each variant of a network changed, metric by metric and order by order."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from featcx_core.analysis.comparison import ALIKE, COMPARED, changes
from featcx_core.report.canvas import LIGHT, SMALL, TEXT, Theme, finish, foot_line, level, order_axis, panels, points
from featcx_core.report.section import ORDER, Section, size
from featcx_core.report.tables import Column
from featcx_core.studies.judging import together
from featcx_core.studies.variant_claims import CLAIMS
from featcx_core.wording import (
    Frames,
    Row,
    number,
    percent,
    records,
    with_interval,
    words,
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
    """What each variant changed, by the adjusted p-values, and claim 5 of the paper: a line a finding."""
    frame = frames["comparison"]
    found = {name: changes(frame, name) for name in frame["variant"].unique()}
    alike = [name for name, sentences in found.items() if sentences[0].startswith(ALIKE)]
    lines = [f"{_name(name)}: {' '.join(said)}" for name, said in found.items() if name not in alike]
    if alike:
        lines.append(f"Not told apart from the original at any resolved order: {words(alike)}.")
    count = int(frame["adjusted_over"].iloc[0])
    lines.append(f"p-values are adjusted over {count} comparisons (Holm); they are of this run, for images and chains.")
    return "\n".join([*lines, *_accuracies(frames), *_claims(frames)])


def _name(variant: str) -> str:
    return variant[:1].upper() + variant[1:]


def _accuracies(frames: Frames) -> list[str]:
    told = [
        f"{row['variant']} {with_interval(row, 'gain', _points)} points (p = {row['p']:.2g})"
        for row in _rows(frames, "variant_accuracy")
    ]
    return [f"Test accuracy against the original, image by image (McNemar): {words(told)}."] if told else []


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.1f}".replace("-", "−")


def _claims(frames: Frames) -> list[str]:
    """A line a variant: the verdict on what the paper says of it, and on each statement of that."""
    rows, lines = _rows(frames, "variant_claims"), list[str]()
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == variant]
        each = [f"{row['statement']}, {row['says']}: {row['verdict']}{_told(row)}" for row in own]
        verdict = together([row["verdict"] for row in own])
        lines.append(f"The paper reports that {CLAIMS[variant][0]}; {variant}: {verdict} ({'; '.join(each)}).")
    return lines


def _rows(frames: Frames, name: str) -> list[Row]:
    """Of a table that only a run with variants has."""
    return records(frames, name) if name in frames else []


def _told(row: Row) -> str:
    if row["missing"]:
        return f", {row['missing']}"
    return f", {with_interval(row, 'value', lambda v: percent(v, sign=True))}"


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
            "variant_claims": (
                Column("variant", "variant"),
                Column("statement", ""),
                Column("says", "the paper's statement"),
                Column("value", "change", percent),
                Column("verdict", "verdict"),
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
