"""The report's pictures: sections drawn from stored maps, and a slider that adds the orders up on the page itself."""

from __future__ import annotations

import base64
from functools import partial
from io import BytesIO
from typing import Any

import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from featcx_core.analysis.pictures import Pictures, limit_of, spread, unexplained
from featcx_core.report.canvas import DARK, LIGHT, Theme
from featcx_core.report.facets import maps
from featcx_core.report.facets.maps import caption, input_image, stops
from featcx_core.report.section import Section
from featcx_core.wording import Frames, listed, number, percent, reached, with_interval


def picture_sections(pictures: Pictures | None, limits: maps.Limits = "robust") -> list[Section]:
    """The sections that pictures make; none without them. `limits` of the maps' colours: robust, or the published ±1."""
    if pictures is None:
        return []
    return [
        Section(
            "maps",
            "What the components look like",
            "one channel of the feature f, put together from simple to complex",
            partial(_draw, partial(maps.maps, limits=limits), pictures),
            lambda frames: read_maps(pictures),
            {},
            paper="In the paper's figures simple components show the object's outline, complex ones details and noise.",
            wide=True,
            widget=lambda frames: slider(pictures, frames),
        ),
        Section(
            "energy",
            "Where the components' energy lies",
            "mean of c² over the test images of a class, summed over channels, as shares of each map's own sum",
            partial(_draw, maps.energy, pictures),
            lambda frames: read_energy(pictures),
            {},
            paper="The paper gives no such maps.",
            wide=True,
        ),
    ]


def read_maps(pictures: Pictures) -> str:
    """Which channel and images are shown, and what the first and last disentangler leave of them."""
    left, orders, right = unexplained(pictures), pictures.orders, sum(pictures.correct)
    ends = [f"Φ of order {orders[i]} leaves {percent(float(left[i]))}" for i in (0, -1)[: len(orders)]]
    return (
        f"In this run the maps show channel {pictures.channel}, of all channels most often above zero on these "
        f"{len(pictures.images)} test images ({right} of which the target gets right); of the feature's squared value "
        f"there {' and '.join(ends)}."
    )


def read_energy(pictures: Pictures) -> str:
    """How widely each component's energy spreads."""
    shares = spread(pictures)
    parts = list(zip(pictures.orders, shares.tolist(), strict=False))
    low, high = min(parts, key=lambda part: part[1]), max(parts, key=lambda part: part[1])
    words = f"the energy of {listed([low[0]])} spreads over {percent(low[1])} of the positions"
    if low[0] != high[0]:
        words += f", the least of all orders, that of {listed([high[0]])} over {percent(high[1])}, the most"
    return (
        f"In this run {words}, and the residual's over {percent(float(shares[-1]))} (1 / Σp² of the shares p, over "
        f"{sum(pictures.rows):,} test images)."
    )


def slider(pictures: Pictures, frames: Frames) -> dict[str, Any]:
    """What the page needs to add orders up: inputs as PNG, maps as little-endian float32, colours, and a text a step."""
    explained: dict[int, str] = {}
    if "significance" in frames:
        for row in reached(frames["significance"]).to_dict("records"):
            explained[row["order"]] = f": {with_interval(row, 'reached')} of the feature's variance explained so far"
    count = len(pictures.orders)
    steps = [f"Order {order} ({i} of {count}){explained.get(order, '')}" for i, order in enumerate(pictures.orders, 1)]
    limit = limit_of(pictures)
    maps = torch.cat([pictures.phi, pictures.feature[:, None]], 1).numpy().astype("<f4")
    samples = []
    for k, image in enumerate(pictures.images):
        name, verdict = caption(pictures, k)
        samples.append({"name": name, "verdict": verdict, "input": _png(image)})
    return {
        "orders": pictures.orders,
        "channel": pictures.channel,
        "limit": number(limit),
        "samples": samples,
        "shape": list(pictures.feature.shape[1:]),
        "data": {
            "limit": limit,
            "steps": steps,
            "light": _colours(LIGHT),
            "dark": _colours(DARK),
            "maps": [base64.b64encode(part.tobytes()).decode() for part in maps],
        },
    }


def _draw(draw: Any, pictures: Pictures, frames: Frames, theme: Theme, coverage: float | None = None) -> Figure:
    return draw(pictures, theme)


def _colours(theme: Theme) -> list[list[int]]:
    return [[round(255 * part) for part in to_rgb(colour)] for colour in stops(theme)]


def _png(image: torch.Tensor) -> str:
    out = BytesIO()
    input_image(image).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
