"""The reliability figure: the published ratios beside decodability, each with what it must be read against."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from featcx_core.report.canvas import (
    LEGEND,
    LIGHT,
    WIDTH,
    Theme,
    finish,
    foot_line,
    legend_entries,
    order_axis,
    panels,
    points,
    ring,
)
from featcx_core.report.section import ORDER, Section, columns
from featcx_core.report.tables import Column
from featcx_core.wording import (
    Frames,
    Row,
    listed,
    number,
    ranked,
    readable,
    records,
    top_row,
    with_interval,
)

PANEL = 4.3  # inches of width where two stand side by side


def draw_reliability(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
    """Ratios of variances (above 1 ringed) beside decodability and its untrained floor; a panel for each frame."""
    known = {"reliability": (_ratios, "pool"), "decodability": (_decodability, "test")}
    drawn = {name: known[name] for name in known if name in frames}
    figure, axes = panels(theme, 1, len(drawn), width=WIDTH if len(drawn) == 1 else PANEL * len(drawn), height=4.9)
    for axis, (name, (panel, _)) in zip(axes, drawn.items(), strict=True):
        panel(axis, theme, frames[name])
        axis.legend(
            *legend_entries([axis]),
            loc="lower left",
            bbox_to_anchor=(-0.02, 1.0),
            frameon=False,
            fontsize=LEGEND,
            labelcolor=theme.ink,
            handlelength=1.8,
        )
    return finish(figure, theme, [], foot_line(frames, coverage, *(split for _, split in drawn.values())))


def _ratios(axis: Axes, theme: Theme, frame: pd.DataFrame) -> None:
    x = order_axis(axis, theme, frame["order"].tolist(), "ratio of variances")
    axis.axhline(1, color=theme.alarm, linewidth=1.2, linestyle="--")
    points(axis, x, frame, "reliability", theme.series[0], "reliability ratio (fit × shrinkage)")
    points(axis, x, frame, "fit", theme.series[2], "fit  Var[gψ] / Var[Φ]", "^", ":", thin=True)
    points(axis, x, frame, "shrinkage", theme.series[3], "shrinkage  Var[gψ$_R$] / Var[gψ]", "v", ":", thin=True)
    label = "component's ratio  Var[$c^{reli}$] / Var[c]"
    points(axis, x, frame, "component_ratio", theme.series[1], label, "s", "--", thin=True)
    for name in ("component_ratio", "reliability"):
        value = frame[name].to_numpy(float)
        if (value > 1).any():
            ring(axis, x[value > 1], value[value > 1], theme.alarm, "above 1: a ratio, not a share")
    axis.margins(y=0.1)
    axis.set_ylim(bottom=0)


def _decodability(axis: Axes, theme: Theme, frame: pd.DataFrame) -> None:
    component = frame[frame["quantity"] == "component"].sort_values("order")
    x = order_axis(axis, theme, component["order"].tolist(), "decodable share of variance")
    for quantity, shift, colour, marker in (("component", -0.08, 0, "o"), ("phi", 0.08, 2, "^")):
        rows = frame[frame["quantity"] == quantity].sort_values("order")
        name = {"component": "component c", "phi": "disentangler Φ"}[quantity]
        points(axis, x + shift, rows, "decodability", theme.series[colour], name, marker)
        floor = f"{name}: floor (untrained nets)"
        points(axis, x + shift, rows, "floor", theme.series[colour], floor, marker, ":", thin=True, filled=False)
    for row in frame[frame["quantity"] == "feature"].to_dict("records"):
        axis.axhline(row["decodability"], color=theme.ink, linewidth=1.6, linestyle="--", label="feature f")
        axis.axhline(
            row["floor"], color=theme.ink, linewidth=1, linestyle=":", label="feature f: floor (untrained nets)"
        )
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.set_ylim(bottom=min(0, axis.get_ylim()[0] if frame["decodability"].min() < 0 else 0))


def above_one(frames: Frames) -> list[str]:
    """Orders where a 'reliable part' varies more than what it is a part of."""
    found = []
    reasons = {
        "reliability": ("Var[Φ reli] / Var[Φ]", "the trunk is trained apart from Φ and may vary more than it"),
        "component_ratio": ("Var[c reli] / Var[c]", "separately trained trunks do not nest"),
    }
    for name, (noun, reason) in reasons.items():
        rows = [row for row in records(frames, "reliability") if row[name] > 1] if "reliability" in frames else []
        if rows:
            top = max(row[name] for row in rows)
            found.append(
                f"{noun} is above 1 at {listed(row['order'] for row in rows)} (up to {number(top)}): {reason}, so read "
                "it as a ratio, not as a share."
            )
    return found


def read_reliability(frames: Frames) -> str:
    """The range of the reliability ratio, and where decodability passes the floor of an untrained net."""
    parts = []
    if "reliability" in frames:
        every = records(frames, "reliability")
        rows = sorted(readable(every) or every, key=lambda row: float(row["reliability"]))
        ends = [f"{with_interval(row, 'reliability', number)} at order {row['order']}" for row in (rows[0], rows[-1])]
        parts.append(f"the reliability ratio runs from {' to '.join(ends)}")
    if "decodability" in frames:
        rows = [row for row in records(frames, "decodability") if row["quantity"] == "component"]
        parts.append(_decodable(readable(rows)))
    return f"In this run {'; '.join(parts)}."


def _decodable(rows: list[Row]) -> str:
    """The most decodable of the resolved components, and which pass the floor."""
    if not rows:
        return "no order is resolved, so no component is called decodable"
    top, tied = top_row(rows, "decodability")
    above = [row["order"] for row in rows if row["decodability_low"] > row["floor_high"]]
    return (
        f"the most decodable component is that of order {top['order']} ({with_interval(top, 'decodability')}, "
        f"{ranked(rows, tied)}), and decodability lies above the untrained nets' floor at "
        f"{listed(above) if above else 'no order'}"
    )


SECTIONS = (
    Section(
        "reliability",
        "Reliability",
        "the published ratio, and the share that linear maps read off nets trained for the same task",
        draw_reliability,
        read_reliability,
        {
            "reliability": (ORDER, *columns("reliability")),
            "decodability": (Column("quantity", "quantity"), ORDER, *columns("decodability", "reliability")),
        },
        needs=any,
        flags=above_one,
        wide=True,
        paper="The paper gives ratios of .754 .529 .423 .399 .460 .362 at orders 4 to 97 for ResNet-20 on 2,000 "
        "images and no decodability; its ratio depends on where the training of the cycle's maps stops, so expect to differ.",
    ),
)
