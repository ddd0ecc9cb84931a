"""The figures, each drawn from one target's tidy tables alone: `(frames, theme, coverage=None) -> Figure`.

`frames` maps the report's frame names to tables; `coverage` is that of the intervals, a fraction, told in the foot line.
"""

from __future__ import annotations

import math

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from featcx_core.analysis.significance import GAP_FLAG, NOT_LEARNED
from featcx_core.metrics import integer, yes
from featcx_core.report.canvas import (
    FEW,
    LIGHT,
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
    ring,
    write,
)
from featcx_core.report.section import ORDER, Section, columns
from featcx_core.report.tables import Column
from featcx_core.wording import (
    Frames,
    listed,
    percent,
    ranked,
    reached,
    readable,
    records,
    significance_of,
    top_row,
    with_interval,
)

SPLITS = (("pool", "s"), ("seen", "D"), ("validation", "^"), ("test", "o"))


def draw_significance(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
    """What chains share of Var[c^(l)] / Var[f] an order, the published figure beside it, and what is explained up to it."""
    frame, foot = frames["significance"], foot_line(frames, coverage, "pool")
    figure, (axis,) = panels(theme)
    x = order_axis(axis, theme, frame["order"].tolist(), "share of Var[f]")
    if significance_of(frame) == "cross_seed":
        bars(axis, theme, x - 0.14, frame, "cross_seed", 0, "significance: what chains share of it", width=0.36)
        bars(axis, theme, x + 0.2, frame, "significance", 2, "Var[c] / Var[f], as published", width=0.2)
        foot = foot.replace("over images", "over images, the first bars' and the line's over chains too", 1)
    else:
        bars(axis, theme, x, frame, "significance", 0, "Var[c] / Var[f], as published", width=0.55)
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
    return finish(figure, theme, [axis], foot, columns=1)


def draw_residuals(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
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


def rising_residual(frames: Frames) -> list[str]:
    """Orders that fit worse than a shallower one."""
    rows = [row for row in records(frames, "significance") if row["residual_rises"]]
    return [
        f"The residual rises at order {row['order']} ({percent(row['residual'])}): it fits worse than a shallower order, "
        "which is a failure of optimisation, not a finding."
        for row in rows
    ]


def not_resolved(frames: Frames) -> list[str]:
    """Orders that are not resolved, and why none is known to be."""
    rows = records(frames, "significance")
    no = [row["order"] for row in rows if row.get("resolved") == "no"]
    negative = [row["order"] for row in rows if row.get("resolved") == "negative"]
    found = []
    if no:
        found.append(
            f"{listed(no).capitalize()} {'is' if len(no) == 1 else 'are'} not resolved at this budget and width: what the "
            "chains share there, or what depth adds over training the shallower net on, does not pass the null target's. "
            "This does not mean that nothing is there; draw nothing from these orders' metrics."
        )
    if negative:
        found.append(
            f"At {listed(negative)} the deeper net fits worse than the shallower one trained on as long: no finding."
        )
    if "cross_seed" in rows[0] and not math.isfinite(rows[0]["cross_seed"]):
        found.append(
            "One chain of disentanglers: how much of a component another seed gives again is not known, so nothing is told "
            "apart and no order is resolved; set disentangler.chains=2."
        )
    elif "resolved" in rows[0] and not isinstance(rows[0]["resolved"], str):
        found.append("What depth adds over training was not asked here (of the target alone it is, with continuation).")
    return found


def not_learned(frames: Frames) -> list[str]:
    """A feature of which even the deepest order reaches next to nothing."""
    last = records(frames, "significance")[-1]
    if last["residual"] < NOT_LEARNED:
        return []
    return [
        f"Order {last['order']}, the highest, misses {percent(last['residual'])} of the feature: it is not learned at this "
        "budget and width, which does not mean that it is complex."
    ]


def wide_gap(frames: Frames) -> list[str]:
    """Splits whose residual the test residual exceeds by more than the flag's share."""
    frame, found = frames["splits"], list[str]()
    if "gap" not in frame:
        return []
    for split, rows in frame[frame["gap_flag"]].groupby("split", sort=False):
        orders = listed(rows["order"].tolist())
        found.append(
            f"The test residual exceeds that of the {split} images by up to {percent(float(rows['gap'].max()))} ({orders}), "
            f"more than {GAP_FLAG:.0%}; such a gap can pass for over-fitting."
        )
    return found


def draw_covariance(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
    """Covariances between components and the residual, as per cent of Var[f]."""
    frame = frames["covariance"]
    names = [str(name) for name in frame["a"].unique()]
    shown = [*marked(frames, [int(name) for name in names if name != "residual"]), "Δf"]
    values = 100 * frame.pivot(index="a", columns="b", values="covariance").loc[names, names].to_numpy(float)
    figure, (axis,) = panels(theme, height=4.4)
    show = lambda value: "0.0" if abs(value) < 0.05 else f"{value:.1f}".replace("-", "−")  # noqa: E731
    heat_map(figure, axis, theme, values, shown, show, "covariance (% of Var[f])")
    axis.set_xlabel("component (order) or residual Δf", color=theme.ink, fontsize=TEXT)
    return finish(figure, theme, [axis], foot_line(frames, None, "pool"))


def read_significance(frames: Frames) -> str:
    """The largest component, what is resolved, and what all explain together."""
    frame, last = frames["significance"], reached(frames["significance"]).to_dict("records")[-1]
    name, rows = significance_of(frame), records(frames, "significance")
    shown = readable(rows)
    raw = percent(sum(row["significance"] for row in rows))
    if name == "cross_seed":
        told = f"the chains share {percent(sum(row[name] for row in rows))} of Var[f]; as published, {raw}"
    else:
        told = f"the significances sum to {raw}, since parts covary"
    explained = (
        f"up to order {last['order']} the disentanglers explain {with_interval(last, 'reached')} of the feature's variance "
        f"({told})"
    )
    if not shown:
        return f"In this run no order is resolved at this budget and width, and {explained}."
    top, tied = top_row(shown, name)
    of = "" if len(shown) == len(rows) else f" of those resolved ({', '.join(str(row['order']) for row in shown)})"
    return (
        f"In this run the most significant component{of} is that of order {top['order']} with {with_interval(top, name)} of "
        f"Var[f], {ranked(shown, tied)}, and {explained}."
    )


def read_residuals(frames: Frames) -> str:
    """The largest gaps between the test residual and those of other splits."""
    frame = frames["splits"]
    if "gap" not in frame:
        return "In this run no test images were analysed, so there is no gap to read."
    parts = []
    for split in ("pool", "seen", "validation"):
        rows = frame[frame["split"] == split].to_dict("records")
        if rows:
            top = max(rows, key=lambda row: float(row["gap"]))
            parts.append(f"{percent(top['gap'])} ({split}, order {top['order']})")
    flagged = "some gaps pass" if bool(frame["gap_flag"].any()) else "no gap passes"
    return f"In this run the test residual exceeds the other splits' by at most {', '.join(parts)}; {flagged} {GAP_FLAG:.0%}."


def read_covariance(frames: Frames) -> str:
    """The largest covariance between two parts, and the shares of variance and covariance that together are one."""
    frame = frames["covariance"]
    between = frame[frame["a"] != frame["b"]].to_dict("records")
    top = max(between, key=lambda row: abs(float(row["covariance"])))
    own = frame[frame["a"] == frame["b"]].set_index("a")["covariance"]
    residual, between_all = float(own["residual"]), sum(float(row["covariance"]) for row in between)
    names = [f"order {name}" if str(name).isdigit() else f"the {name}" for name in (top["a"], top["b"])]
    return (
        f"In this run the largest covariance between two parts is {percent(top['covariance'])} of Var[f], between "
        f"{names[0]} and {names[1]}; the significances of all orders sum to {percent(float(own.sum()) - residual)}, the "
        f"last residual is {percent(residual)}, twice the covariances between parts sum to {percent(between_all)}, and "
        f"together they are {percent(float(own.sum()) + between_all)} of Var[f]."
    )


SECTIONS = (
    Section(
        "significance",
        "Significance",
        "what chains with other seeds share of Var[c] / Var[f] an order, and what is explained up to it",
        draw_significance,
        read_significance,
        {"significance": (ORDER, *columns("significance"))},
        flags=lambda frames: [*not_learned(frames), *not_resolved(frames), *rising_residual(frames)],
        paper="The paper has most at low orders and little beyond: for ResNet-20 on 2,000 CIFAR-10 images it gives "
        ".372 .299 .101 .031 .017 .016 at orders 4, 7, 13, 25, 49, 97 (other data, nets and training budgets, so compare "
        "shapes, not values).",
    ),
    Section(
        "residuals",
        "Residual by split",
        "Var[f − Φ] / Var[f] within each split",
        draw_residuals,
        read_residuals,
        {
            "splits": (
                Column("split", "split"),
                Column("rows", "images", integer),
                ORDER,
                Column("residual", "residual", percent),
                Column("gap", "test above it by", percent),
                Column("gap_flag", "flagged", yes),
            )
        },
        flags=wide_gap,
        paper="The paper gives one residual an order and none a split: for ResNet-20 on 2,000 CIFAR-10 images it falls "
        "from .585 at order 4 to .117 at order 97.",
    ),
    Section(
        "covariance",
        "Covariance between components",
        "Cov[a, b] / Var[f]: shares of variance need not sum to one",
        draw_covariance,
        read_covariance,
        {
            "covariance": (
                Column("a", "part a"),
                Column("b", "part b"),
                Column("covariance", "Cov[a, b] / Var[f]", percent),
            )
        },
        paper="The paper gives no covariances; in its row for ResNet-20 on 2,000 images the significances and the "
        "last residual sum to .953, so there too a part lies between components.",
    ),
)
