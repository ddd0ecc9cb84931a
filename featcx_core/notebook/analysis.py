"""What an analysis found, however it was made: from a network in hand, or as a run's artifacts."""

from __future__ import annotations

import base64
import html
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import nn

from featcx_core.analysis.components import ComponentTable
from featcx_core.analysis.pictures import Pictures
from featcx_core.errors import InputError
from featcx_core.report.canvas import LIGHT
from featcx_core.report.frames import order_rows
from featcx_core.report.run import coverage_words, run_sections, summary, write_report
from featcx_core.report.section import Section
from featcx_core.specs import nearest

SHOWN = ("significance", "effectiveness", "overfitting", "maps")  # figures in a notebook
COLUMNS = ("order", "significance", "residual", "decodability", "effectiveness", "overfitting", "substituted_accuracy")


@dataclass
class Analysis:
    """A network's feature taken apart by complexity; in a notebook the table, the main figures and what to be careful about.

    Attributes:
        frames: the report's tidy tables by name.
        components: split → its components and residual.
        disentanglers: order → Φ^(l), in evaluation mode; images as the data set normalises them to features.
        scores: accuracy and cross-entropy in nats of the network, fractions.
        chosen_order: for substitution, chosen on the validation images.
        notes: why something is missing or weak, by name.
        settings: of the analysis, nested.
        title: of the report.
        provenance: manifests of the artifacts of a run; of a network in hand none.
    """

    frames: dict[str, pd.DataFrame]
    components: Mapping[str, ComponentTable]
    disentanglers: Mapping[int, nn.Module]
    scores: dict[str, float]
    chosen_order: int
    notes: dict[str, str]
    settings: dict[str, Any]
    title: str
    pictures: Pictures | None = None
    provenance: list[dict[str, Any]] = field(default_factory=list)
    keep: Any = None  # what must live as long, such as the temporary folder of the components

    @property
    def orders(self) -> pd.DataFrame:
        """A row an order: the columns of `featcx run --json`, an interval as a list of two."""
        return pd.DataFrame(order_rows(self.frames))

    @property
    def images(self) -> pd.DataFrame:
        """A row a test image: of which orders its feature is made, its complexity and loss (see `measure_images`).

        Raises:
            InputError: of a run that was made before there was such a table.
        """
        if "images" not in self.frames:
            raise InputError("This run has no table of images; run it again, what is there is not computed anew.")
        return self.frames["images"]

    def without_seen(self, reason: str) -> Analysis:
        """The same without what needs the images that the network was trained on: nobody knows them, and the pool, of which
        the network may have seen a part or none, stood in for them.
        """
        effective = self.frames["effectiveness"]
        over = {name: math.nan for name in map(str, effective) if "overfit" in name} | {"overfitting_stable": False}
        frames = self.frames | {"effectiveness": effective.assign(**over)}
        for name in ("splits", "substitution_splits"):
            frames[name] = frames[name][frames[name].split != "seen"].reset_index(drop=True)
        return replace(
            self,
            frames=frames,
            components={split: table for split, table in self.components.items() if split != "seen"},
            scores={name: value for name, value in self.scores.items() if not name.startswith("train")},
            notes=self.notes
            | {"overfitting": f"Over-fitting is left out. {reason} Effectiveness is that on the pool's images."},
        )

    def summary(self) -> str:
        """What was found, in three sentences, and what to be careful about."""
        return "\n".join([*summary(self.frames, self.chosen_order, self.notes), *self.cautions()])

    def cautions(self) -> list[str]:
        """Flags of all sections, then notes."""
        there = [s for s in self._sections() if set(s.tables) <= set(self.frames) and s.name not in self.notes]
        flags = [flag for section in there for flag in section.flags(self.frames)]
        return list(dict.fromkeys([*flags, *self.notes.values()]))

    def figure(self, name: str) -> Figure:
        """One of the report's figures, such as 'significance'.

        Raises:
            InputError: for a figure that is not there, with the nearest or the reason.
        """
        sections = {section.name: section for section in self._sections()}
        if name not in sections:
            raise InputError(f"There is no figure '{name}'; {nearest(name, [*sections])}")
        section = sections[name]
        if name in self.notes or not section.needs([frame in self.frames for frame in section.tables]):
            raise InputError(f"There is no figure '{name}' here: {self.notes.get(name, 'it was not computed')}")
        drawn = section.figure(self.frames, LIGHT, coverage=self._confidence())
        FigureCanvasAgg(drawn)
        drawn._repr_png_ = partial(_png, drawn)  # type: ignore[attr-defined]  # without pyplot a notebook shows a name alone
        return drawn

    def report(self, folder: str | Path) -> Path:
        """Writes the HTML report with its figures and tables into a folder; the path of the page."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as stored:
            if self.pictures is not None:
                self.pictures.save(Path(stored))
            return write_report(
                folder,
                {"target": self.frames},
                title=self.title,
                spec=self.settings,
                provenance=self.provenance,
                scores=self.scores,
                notes=self.notes,
                chosen_order=self.chosen_order,
                pictures={} if self.pictures is None else {"target": Path(stored)},
            )

    def __repr__(self) -> str:
        return f"{self.title}\n{self._table().to_string(index=False)}\n{self.summary()}"

    def _repr_html_(self) -> str:
        sentences = summary(self.frames, self.chosen_order, self.notes)
        told = [f"<h3>{html.escape(self.title)}</h3>", *(f"<p>{html.escape(text)}</p>" for text in sentences)]
        cautions = "".join(f"<li>{html.escape(text)}</li>" for text in self.cautions())
        figures = [section.name for section in self._sections() if section.name in SHOWN]
        drawn = [_inline(self.figure(name), name) for name in figures if name not in self.notes]
        careful = f"<p><b>Be careful:</b></p><ul>{cautions}</ul>" if cautions else ""
        covered = f"<p><small>{html.escape(coverage_words(self.frames, self.settings))}</small></p>"
        return "\n".join([*told, self._table().to_html(index=False), careful, *drawn, covered])

    def _table(self) -> pd.DataFrame:
        """The main columns, three digits; those that nothing is known of left out."""
        table = self.orders[[name for name in COLUMNS if name in self.orders]].dropna(axis=1, how="all")
        return table.apply(lambda column: column.map("{:.3g}".format) if column.name != "order" else column)

    def _sections(self) -> list[Section]:
        return run_sections(self.chosen_order, self.pictures)

    def _confidence(self) -> float | None:
        return self.settings.get("analysis", {}).get("confidence")


def _inline(figure: Figure, name: str) -> str:
    """A figure as an HTML image that needs no other file."""
    return f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(_png(figure)).decode()}">'


def _png(figure: Figure) -> bytes:
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=100)
    return drawn.getvalue()
