"""Pictures of components: maps of one channel side by side, and where the energy of each component lies."""

from __future__ import annotations

import textwrap
from typing import Any, Literal

import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image
from torch import Tensor

from featcx_core.analysis.pictures import CLASSES, Pictures, limit_of, shares_by_position
from featcx_core.report.canvas import LIGHT, SMALL, TEXT, Theme, panels

Limits = Literal["robust", "published"]
INPUT_PIXELS = 128  # an input's longer side at most
WIDTH, LEAST = 8.6, 0.4  # inches: of the figure, and of a map at least
GAP, WIDE_GAP, LEFT, FOOT, LINE = 0.05, 0.22, 1.0, 0.85, 0.25  # inches


def stops(theme: Theme) -> list[str]:
    """The diverging colours from −1 to 1 at even steps, the paper in the middle."""
    low, high = ("#ffe0b8", "#d5efff") if theme.name == "dark" else ("#6b2c00", "#00304d")
    return [low, theme.series[1], theme.paper, theme.series[0], high]


def diverging(theme: Theme) -> Colormap:
    """Orange below zero, blue above."""
    return LinearSegmentedColormap.from_list("featcx-diverging", stops(theme))


def sequential(theme: Theme) -> Colormap:
    """From the paper to the far end of the diverging colours."""
    return LinearSegmentedColormap.from_list("featcx-sequential", stops(theme)[2:])


def input_image(image: Tensor) -> Image.Image:
    """An input uint8 (C, H, W) as colours, or as grey where C is not 3, at most INPUT_PIXELS wide and high."""
    if image.shape[0] == 3:
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    else:
        picture = Image.fromarray(image.float().mean(0).round().byte().numpy())
    picture.thumbnail((INPUT_PIXELS, INPUT_PIXELS))
    return picture


def caption(pictures: Pictures, k: int) -> tuple[str, str]:
    """The class of the k-th image and what the target makes of it: ('5', 'right')."""
    return pictures.classes[pictures.labels[k]], "right" if pictures.correct[k] else "wrong"


def maps(pictures: Pictures, theme: Theme = LIGHT, limits: Limits = "robust") -> Figure:
    """A row an image: input, f, Φ^(l), c^(l) and Δf in the pictures' channel, on one scale.

    Args:
        limits: 'robust': ± the 99th percentile of |value| over the grid; 'published': ±1, as in the paper's figures.
    """
    limit = 1.0 if limits == "published" else limit_of(pictures)
    orders = [str(order) for order in pictures.orders]
    groups = [
        ("input", [""], None),
        ("f", [""], pictures.feature[:, None]),
        ("Φ up to order" if len(orders) > 1 else "Φ of order", orders, pictures.phi),
        ("component c of order" if len(orders) > 1 else "c of order", orders, pictures.components),
        ("Δf", [""], pictures.residual[:, None]),
    ]
    rows, columns = len(pictures.images), 3 + 2 * len(orders)
    sheet = Sheet(theme, rows, columns, len(groups) - 1, pictures.feature.shape[1:], head=0.6)
    colours, x = diverging(theme), LEFT
    for name, heads, stack in groups:
        for i, head in enumerate(heads):
            if head:
                sheet.say(x + sheet.side / 2, -0.06, head)
            for row in range(rows):
                if stack is None:
                    sheet.input(pictures.images[row], x, row)
                else:
                    sheet.map(stack[row, i], x, row, colours, (-limit, limit))
            x += sheet.side + GAP
        span = len(heads) * (sheet.side + GAP) - GAP
        left = x - GAP - span
        if heads[0]:
            sheet.axis.plot([left, left + span], [-LINE] * 2, color=theme.muted, linewidth=0.8)
        sheet.say(left + span / 2, -LINE - 0.06 if heads[0] else -0.06, name, fontsize=TEXT)
        x += WIDE_GAP - GAP
    sheet.say(LEFT - 0.1, -0.06, "class,\ntarget is", ha="right", color=theme.muted)
    for row in range(rows):
        name, verdict = caption(pictures, row)
        sheet.name_row(row, [*textwrap.wrap(name, 11, max_lines=2, placeholder="…"), verdict])
    scale = "99th percentile of |value|" if limits == "robust" else "as published"
    label = f"value in channel {pictures.channel} (limits: {scale})"
    return sheet.finish(label, [-limit, 0, limit])


def energy(pictures: Pictures, theme: Theme = LIGHT) -> Figure:
    """A column a class, a row a component: each position's share of the component's energy, 1 where it is even."""
    shares = shares_by_position(pictures)
    relative = shares * shares.shape[2] * shares.shape[3]
    known = [label for label, rows in enumerate(pictures.rows) if rows and label < CLASSES]
    columns = [0, *(label + 1 for label in known)]
    names = ["all", *(pictures.classes[label] for label in known)]
    limit = float(np.percentile(relative[columns].numpy(), 99))
    rows = ["mean input", *(f"order {order}" for order in pictures.orders), "residual Δf"]
    sheet = Sheet(theme, len(rows), len(columns), 1, shares.shape[2:], head=0.4)
    colours = sequential(theme)
    for row, name in enumerate(rows):
        sheet.name_row(row, [name])
    for place, column in enumerate(columns):
        x = LEFT + place * (sheet.side + GAP) + (WIDE_GAP - GAP if place else 0)
        sheet.say(x + sheet.side / 2, -0.06, "\n".join(textwrap.wrap(names[place], 9, max_lines=2, placeholder="…")))
        sheet.input(pictures.means[column], x, 0)
        for part in range(len(rows) - 1):
            sheet.map(relative[column, part], x, part + 1, colours, (0, limit))
    ticks = [0, 1, limit] if limit > 1.2 else [0, limit]
    return sheet.finish("energy at each position, relative to an even spread", ticks)


class Sheet:
    """A figure with rows and columns of square cells, in inches, y downwards from the top of the first row.

    Args:
        gaps: how many of the gaps between columns are wide.
        shape: (H, W) of the maps, whose width is that of a cell.
        head, foot: inches above and below the cells.
    """

    def __init__(
        self, theme: Theme, rows: float, columns: int, gaps: int, shape: Any, head: float, foot: float = FOOT
    ) -> None:
        between = (columns - 1) * GAP + gaps * (WIDE_GAP - GAP) + 0.1
        self.side = min(0.9, max(LEAST, (WIDTH - LEFT - between) / columns))
        self.tall, self.theme = self.side * shape[0] / shape[1], theme
        width = max(LEFT + between + columns * self.side, 4.2)  # the scale and its label need so much
        self.bottom = rows * (self.tall + GAP)
        height = head + self.bottom + foot
        self.figure, (self.axis,) = panels(theme, width=width, height=height)
        self.figure.set_layout_engine("none")
        self.axis.set_position((0, 0, 1, 1))
        self.axis.set_axis_off()
        self.axis.set(xlim=(0, width), ylim=(height - head, -head), autoscale_on=False)
        self.last: AxesImage | None = None

    def say(self, x: float, y: float, text: str, **options: Any) -> None:
        """Text, as a rule centred above the point."""
        style: dict[str, Any] = {
            "ha": "center",
            "va": "bottom",
            "color": self.theme.ink,
            "fontsize": SMALL,
            "linespacing": 1.15,
        }
        self.axis.text(x, y, text, **(style | options))

    def name_row(self, row: float, lines: list[str]) -> None:
        """What stands before a row."""
        self.say(LEFT - 0.1, self._top(row) + self.tall / 2, "\n".join(lines), ha="right", va="center")

    def input(self, image: Tensor, x: float, row: float) -> None:
        """An input (C, H, W), fitted into its cell."""
        values = np.asarray(input_image(image))
        ratio = values.shape[0] / values.shape[1]
        width, height = min(self.side, self.tall / ratio), min(self.tall, self.side * ratio)
        x, y = x + (self.side - width) / 2, self._top(row) + (self.tall - height) / 2
        self._show(values, (x, x + width, y + height, y), "gray", (0, 255))

    def map(self, values: Tensor, x: float, row: int, colours: Colormap, limits: tuple[float, float]) -> None:
        """A map (H, W), a square a position, in a thin frame since its middle colour is the paper's."""
        y = self._top(row)
        self.last = self._show(values.numpy(), (x, x + self.side, y + self.tall, y), colours, limits)
        corners = ([x, x + self.side, x + self.side, x, x], [y, y, y + self.tall, y + self.tall, y])
        self.axis.plot(*corners, color=self.theme.grid, linewidth=0.8)

    def finish(self, label: str, ticks: list[float]) -> Figure:
        """The figure, with the scale of the last map at its foot."""
        assert self.last is not None
        width, height = self.figure.get_size_inches()
        place = self.figure.add_axes(((0.5 - 1.5 / width), 0.5 / height, 3 / width, 0.13 / height))
        bar = self.figure.colorbar(self.last, cax=place, orientation="horizontal")
        bar.outline.set_visible(False)
        bar.ax.set_facecolor("none")
        bar.set_ticks(ticks, labels=[f"{tick:.3g}".replace("-", "−") for tick in ticks])
        bar.ax.tick_params(colors=self.theme.ink, labelsize=SMALL, length=0)
        bar.set_label(label, color=self.theme.ink, fontsize=SMALL)
        return self.figure

    def _top(self, row: float) -> float:
        return row * (self.tall + GAP)

    def _show(self, values: np.ndarray, extent: Any, colours: Any, limits: tuple[float, float]) -> AxesImage:
        # 'none' keeps pixels as they are in the SVG; any other way resamples them at 72 dpi
        return self.axis.imshow(
            values,
            colours,
            vmin=limits[0],
            vmax=limits[1],
            extent=extent,
            interpolation="none",
            aspect="auto",
        )
