"""What the network gets: a strip of images, and what stands between their files and the net, in words."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from featcx_core.analysis.inputs import Inputs
from featcx_core.report.canvas import LIGHT, Theme
from featcx_core.report.facets.maps import GAP, LEFT, Sheet
from featcx_core.report.section import Section
from featcx_core.wording import Frames, number, plural

LISTED = 12  # classes whose counts are told one by one


def input_sections(inputs: Inputs | None) -> list[Section]:
    """The section of the inputs; none without them."""
    if inputs is None:
        return []

    def draw(frames: Frames, theme: Theme = LIGHT, coverage: float | None = None) -> Figure:
        return draw_inputs(inputs, theme)

    return [
        Section(
            "inputs",
            "What the network gets",
            "images of the pool as they reach the network, before their normalisation",
            draw,
            lambda frames: read_inputs(inputs),
            {},
            paper="The paper has 32×32 pixels of CIFAR-10, and birds and dogs cut out by their boxes at 224×224.",
            wide=True,
        )
    ]


def draw_inputs(inputs: Inputs, theme: Theme = LIGHT) -> Figure:
    """A column an image: as the net is asked about it, and as a training draws it where that changes it."""
    rows = [(["as asked"], inputs.images)]
    if inputs.crop or inputs.flip:
        rows.append((["as drawn", "in training"], inputs.drawn))
    sheet = Sheet(theme, len(rows), len(inputs.images), 0, inputs.images.shape[2:], head=0.45, foot=0.1)
    for row, (name, images) in enumerate(rows):
        sheet.name_row(row, name)
        for k, image in enumerate(images):
            sheet.input(image, LEFT + k * (sheet.side + GAP), row)
    for k, label in enumerate(inputs.labels):
        words = textwrap.wrap(inputs.classes[label], 11, max_lines=2, placeholder="…")
        sheet.say(LEFT + k * (sheet.side + GAP) + sheet.side / 2, -0.06, "\n".join(words))
    return sheet.figure


def read_inputs(inputs: Inputs) -> str:
    """Images, classes, size, channels, split, normalisation and augmentation, and what was told of the source."""
    channels, height, width = inputs.images.shape[1:]
    kind = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
    whose = "the pool's mean and deviation" if inputs.own else "the network's own mean and deviation, not the pool's"
    mirrored = "and mirrors every second one" if inputs.flip else "and mirrors none"
    return " ".join(
        (
            f"In this run the network gets images of {width}×{height} pixels in {kind}. Pixels in [0, 1] are less "
            f"{_values(inputs.mean)} over {_values(inputs.std)}, {whose}; these "
            f"images then have values from {number(inputs.low)} to {number(inputs.high)}.",
            f"The pool, which trainings draw from, has {inputs.sizes['pool']:,} images in "
            f"{len(inputs.classes)} classes ({class_counts(inputs)}); "
            f"{inputs.sizes['validation']:,} more are for validation and {inputs.sizes['test']:,} for testing.",
            f"Training shifts images by {plural(inputs.crop, 'pixel')} at most {mirrored}.",
            *(f"{note[:1].upper()}{note[1:]}." for note in inputs.notes),
        )
    )


def class_counts(inputs: Inputs) -> str:
    """'40 of cat, 38 of dog'; of many classes 'from 12 to 30 images each'."""
    if len(inputs.classes) > LISTED:
        least, most = min(inputs.counts), max(inputs.counts)
        return f"{least:,} images each" if least == most else f"from {least:,} to {most:,} images each"
    return ", ".join(f"{count:,} of {name}" for name, count in zip(inputs.classes, inputs.counts, strict=True))


def _values(values: Sequence[Any]) -> str:
    """'.5', or '(.49, .46, .41)' of several channels."""
    told = [number(value) for value in values]
    return told[0] if len(told) == 1 else f"({', '.join(told)})"
