"""The wide control: is it depth that the highest order has, or would more width do?"""

from __future__ import annotations

import functools

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from featcx_core.metrics import integer
from featcx_core.report.canvas import LIGHT, Theme, finish, foot_line, order_axis, panels, points
from featcx_core.report.section import ORDER, Section
from featcx_core.report.tables import Column
from featcx_core.wording import Frames, Row, percent, records, with_interval


def draw_width(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
    """Var[f − Φ^(l)] / Var[f] an order, and that of the wider, shallower net beside the highest."""
    frame, wide = frames["significance"], frames["wide_control"]
    figure, (axis,) = panels(theme)
    x = order_axis(axis, theme, frame["order"].tolist(), "residual / Var[f]")
    row = records(frames, "wide_control")[0]
    points(axis, x, frame, "residual", theme.series[0], f"disentanglers of width {row['width'] // 2}")
    label = f"order {row['order']} at width {row['width']}"
    points(axis, x[-1:] + 0.16, wide, "residual", theme.series[1], label, "D", "none")
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    foot = foot_line(frames, coverage, "pool").replace("over images", "over images, chains", 1)
    return finish(figure, theme, [axis], foot)


def read_width(frames: Frames) -> str:
    """What the wide net leaves, and whether that is told apart from what the highest order leaves."""
    row = records(frames, "wide_control")[0]
    deep = records(frames, "significance")[-1]
    return (
        f"In this run order {row['order']} at twice the width ({row['width']}) leaves {with_interval(row, 'residual')} of "
        f"the feature's variance, order {deep['order']} at width {row['width'] // 2} {with_interval(deep, 'residual')}: "
        f"{_told(row)}."
    )


def _told(row: Row) -> str:
    low, high = row["difference_low"], row["difference_high"]
    apart = f"a difference of {percent(row['difference'], sign=True)} [{percent(low, sign=True)}, {percent(high, sign=True)}]"
    if low > 0:
        return f"{apart}, so this much width does not do what depth does"
    if high < 0:
        return (
            f"{apart}, so width does more here than depth, and a share of order {row['beside']} need not speak of depth"
        )
    return f"{apart}, which tells neither apart, so what order {row['beside']} adds may be had from width"


SECTIONS = (
    Section(
        "wide_control",
        "Depth or width",
        "Var[f − Φ] / Var[f] of a shallower net at twice the width, beside the highest order",
        draw_width,
        read_width,
        {
            "wide_control": (
                ORDER,
                Column("width", "width", integer),
                Column("residual", "residual", percent),
                Column("difference", "less that of the highest order", functools.partial(percent, sign=True)),
                Column("beside", "highest order", integer),
            )
        },
        optional=True,
    ),
)
