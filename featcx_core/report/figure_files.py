"""Figures as files: SVG in light and dark and a PNG, with the same bytes each time and from any thread."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import astuple
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

from featcx_core.report.canvas import DARK, LIGHT
from featcx_core.wording import Frames

FigureFunction = Callable[..., Figure]
"""`(frames, theme, coverage=None) -> Figure`; `coverage` of the intervals as a fraction, told in the figure."""
PNG_DPI = 200


class Picture(NamedTuple):
    """The files of one figure."""

    light: Path
    dark: Path
    png: Path

    @staticmethod
    def named(folder: Path, name: str) -> Picture:
        """Where a figure of this name lies in a folder."""
        return Picture(folder / f"{name}.svg", folder / f"{name}-dark.svg", folder / f"{name}.png")


def save(draw: FigureFunction, frames: Frames, folder: Path, name: str, coverage: float | None = None) -> Picture:
    """Writes `<name>.svg`, `<name>-dark.svg` and `<name>.png` (light, 200 dpi); the same frames give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = Picture.named(folder, name)
    figure = draw(frames, LIGHT, coverage=coverage)
    light = svg(figure)
    picture.light.write_bytes(light)
    picture.dark.write_bytes(darkened(light) or svg(draw(frames, DARK, coverage=coverage)))
    figure.set_layout_engine("none")  # laid out once for both
    picture.png.write_bytes(png(figure, few_colours=not _holds_images(light)))
    return picture


def png(figure: Figure, few_colours: bool) -> bytes:
    """The figure as an opaque PNG; one of lines and letters in the 256 colours that fit it best, at a third of the size."""
    figure.set_dpi(PNG_DPI)
    canvas, out = FigureCanvasAgg(figure), BytesIO()
    with _ONE_BY_ONE:
        canvas.draw()
    pixels = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")
    if few_colours:
        pixels = pixels.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    pixels.save(out, "PNG", dpi=(PNG_DPI, PNG_DPI))
    return out.getvalue()


def _holds_images(light: bytes) -> bool:
    return b"<image" in light


_DARK = {
    of.encode(): to.encode()
    for light, dark in zip(astuple(LIGHT)[1:], astuple(DARK)[1:], strict=True)
    for of, to in (zip(light, dark, strict=True) if isinstance(light, tuple) else [(light, dark)])
}


def darkened(light: bytes) -> bytes | None:
    """A figure drawn for the light theme with each colour as the dark theme has it; None where an image holds colours, too.

    Laying out and drawing take most of a report's time, and themes differ in colours alone.
    """
    return (
        None if _holds_images(light) else re.sub(rb"#[0-9a-f]{6}", lambda found: _DARK.get(found[0], found[0]), light)
    )


_ONE_BY_ONE = threading.Lock()  # matplotlib sets formulas with one parser a process, which threads would disturb
SVG: Any = {"svg.hashsalt": "featcx", "svg.fonttype": "path"}


def svg(figure: Figure) -> bytes:
    """The figure as SVG without date, version or outside address."""
    out, metadata = BytesIO(), {"Date": None, "Creator": None, "Format": None, "Type": None}
    # Ids are random unless salted, and the salt is read from rcParams alone.
    with _ONE_BY_ONE:
        kept = {key: matplotlib.rcParams[key] for key in SVG}
        try:
            matplotlib.rcParams.update(SVG)
            FigureCanvasSVG(figure).print_svg(out, metadata=metadata)
        finally:
            matplotlib.rcParams.update(kept)
    text = re.sub(r"<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", "", out.getvalue().decode(), flags=re.DOTALL)
    return re.sub(r"\n\s*\n", "\n", text).encode()
