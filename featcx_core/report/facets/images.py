"""Image complexity: figures and sentences, of all test images and of the simplest and most complex of each class."""

from __future__ import annotations

import math
import textwrap
from io import BytesIO

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image

from featcx_core.metrics import integer, word
from featcx_core.report.canvas import LIGHT, Theme, bars, finish, foot_line, order_axis, panels, points
from featcx_core.report.facets.maps import GAP, LEFT, Sheet
from featcx_core.report.section import ORDER, Section, columns
from featcx_core.report.tables import Column
from featcx_core.wording import Frames, Row, listed, number, readable, records, with_interval

BETWEEN = 0.25  # of a row: the gap between simple and complex images


def draw_images(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
    """Of each order the mean share of an image's energy, and the images that are explained up to there."""
    frame = frames["image_orders"]
    figure, (axis,) = panels(theme)
    x = order_axis(axis, theme, frame["order"].tolist(), "share")
    bars(axis, theme, x, frame, "image_share", 0, "of an image's energy, mean over test images")
    points(axis, x, frame, "images_explained", theme.series[1], "of test images: Φ explains 90% of the feature")
    axis.set_ylim(0, 1.05)
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return finish(figure, theme, [axis], foot_line(frames, coverage, "test"), columns=1)


def read_images(frames: Frames) -> str:
    """How many images the orders that may be read explain, and whether complex images are the harder ones."""
    read, row = readable(records(frames, "image_orders")), records(frames, "image_ranks")[0]
    if not read:
        return "In this run no order is resolved, so no image is called simple or complex."
    lowest, highest = read[0], read[-1]
    reached = f"Φ of order {lowest['order']} explains 90% of the feature of {with_interval(lowest, 'images_explained')}"
    if highest is not lowest:
        reached += f", up to order {highest['order']} of {with_interval(highest, 'images_explained')}"
    return f"In this run {reached} of {row['images']:,} test images; {_ranked(row, [each['order'] for each in read])}."


def _ranked(row: Row, orders: list[int]) -> str:
    if math.isnan(row["rank_correlation"]):
        return f"over {listed(orders)} alone, which may be read, all images are equally complex, and none is ranked"
    plain, equal = (_sign(row, name) for name in ("rank_correlation", "rank_partial"))
    verdict = {
        (0, 0): "so that complex images are not told to be harder or easier",
        (1, 1): "so that the target does worse on images that are more complex",
        (-1, -1): "so that the target does better on images that are more complex",
    }.get((plain, equal), "so that what there is depends on the energy, and nothing is read from it")
    return (
        f"complexity over {listed(orders)} goes with the target's loss by a rank correlation of "
        f"{with_interval(row, 'rank_correlation', signed)}, at equal energy of "
        f"{with_interval(row, 'rank_partial', signed)}, {verdict}"
    )


def _sign(row: Row, name: str) -> int:
    """1 or −1 where the whole interval lies above or below zero, else 0."""
    return int(row[f"{name}_low"] > 0) - int(row[f"{name}_high"] < 0)


def signed(value: float) -> str:
    """'+0.12'."""
    return f"{value:+.2f}".replace("-", "−")


def weak(frames: Frames) -> list[str]:
    """What complexity may owe to something else."""
    row = records(frames, "image_ranks")[0]
    if not abs(row["rank_energy"]) > 0.5:
        return []
    return [
        f"Complexity and energy have a rank correlation of {signed(row['rank_energy'])}: images "
        f"{'far from' if row['rank_energy'] > 0 else 'near'} the mean feature pass for complex; read what holds at equal "
        "energy."
    ]


def draw_strip(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
    """A column a class: its simplest images above, its most complex ones below, the outermost first and last."""
    strip = frames["image_strip"]
    labels, ends = strip["label"].unique().tolist(), int(strip["place"].max()) + 1
    sheet = Sheet(theme, 2 * ends + BETWEEN, len(labels), 0, (1, 1), head=0.45, foot=0.5)
    sheet.name_row(0, ["simplest"])
    sheet.name_row(2 * ends - 1 + BETWEEN, ["most", "complex"])
    for row in records(frames, "image_strip"):
        x = LEFT + labels.index(row["label"]) * (sheet.side + GAP)
        down = row["place"] if row["end"] == "simple" else 2 * ends - 1 - row["place"] + BETWEEN
        sheet.input(_image(row["png"]), x, down)
        if row["place"] == 0 and row["end"] == "simple":
            name = "\n".join(textwrap.wrap(row["name"], 9, max_lines=2, placeholder="…"))
            sheet.say(x + sheet.side / 2, -0.06, name)
    words = f"complexity of the outermost: {_span(strip, 'simple')} above, {_span(strip, 'complex')} below"
    return finish(sheet.figure, theme, [], f"n = {len(frames['images']):,} test images; {words}")


def _image(png: bytes) -> torch.Tensor:
    values = np.asarray(Image.open(BytesIO(png)))
    return (
        torch.from_numpy(values.copy()).permute(2, 0, 1) if values.ndim == 3 else torch.from_numpy(values.copy())[None]
    )


def _span(strip: pd.DataFrame, end: str) -> str:
    outermost = strip[(strip["end"] == end) & (strip["place"] == 0)]["complexity"]
    low, high = number(float(outermost.min())), number(float(outermost.max()))
    return low if low == high else f"{low} to {high}"


def read_strip(frames: Frames) -> str:
    """How far apart the ends are, and how the target does on them."""
    strip = frames["image_strip"]
    losses = strip.groupby("end")["loss"].mean()
    return (
        f"In this run the simplest test image of a class has a complexity of {_span(strip, 'simple')} doublings of depth, "
        f"the most complex one of {_span(strip, 'complex')}; the target's mean loss is {number(losses['simple'])} nats on "
        f"the simple images shown and {number(losses['complex'])} on the complex ones."
    )


SECTIONS = (
    Section(
        "images",
        "Image complexity",
        "‖c(x) − E c‖² of an image x as shares of their sum over orders; Σ share · log₂ of depth over the orders resolved",
        draw_images,
        read_images,
        {
            "image_orders": (ORDER, *columns("image_orders", "images")),
            "image_ranks": (
                Column("images", "test images", integer),
                Column("rank_correlation", "rank correlation with the loss", signed),
                Column("rank_partial", "at equal energy", signed),
                Column("rank_energy", "with the energy", signed),
            ),
        },
        flags=weak,
        paper="The paper looks at features over all images, not at single ones.",
    ),
    Section(
        "image_strip",
        "Simple and complex images",
        "the test images of each class at either end of complexity",
        draw_strip,
        read_strip,
        {
            "image_strip": (
                Column("name", "class", word),
                Column("end", "end", word),
                Column("sample", "test image", integer),
                Column("complexity", "complexity", number),
                Column("loss", "loss (nats)", number),
            )
        },
        paper="The paper shows no images by complexity.",
        wide=True,
        optional=True,
    ),
)
