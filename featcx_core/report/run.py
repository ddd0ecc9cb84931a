"""What the tables of one run say, in words: sentences for the report, each number taken from a frame.

A sentence ranks two orders only where their intervals are apart, and speaks of this run alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from featcx_core.analysis.pictures import Pictures
from featcx_core.metrics import METRICS
from featcx_core.report.facets import comparison, images, reliability, shapley, significance, width
from featcx_core.report.facets.inputs import input_sections
from featcx_core.report.facets.maps import Limits
from featcx_core.report.facets.pictures import picture_sections
from featcx_core.report.facets.shapley import effective_words, overfitted_words
from featcx_core.report.facets.substitution import read_substitution, substitution_section
from featcx_core.report.gallery import Gallery, digest_of_folder
from featcx_core.report.page import Tile, View, view, write_page, write_tables
from featcx_core.report.section import ORDER, Section, with_open
from featcx_core.report.tables import Column, compare
from featcx_core.wording import (
    Frames,
    best_order,
    counts,
    listed,
    one_sentence,
    percent,
    reached,
    readable,
    records,
    with_interval,
)


def coverage_words(frames: Frames, spec: Mapping[str, Any]) -> str:
    """One sentence: what the intervals cover, and over how many images."""
    analysis = spec.get("analysis", {})
    level = f"{100 * analysis['confidence']:g}% " if "confidence" in analysis else ""
    draws = f" ({analysis['bootstrap']:,} draws)" if "bootstrap" in analysis else ""
    n = ", ".join(f"{rows:,} {split}" for split, rows in counts(frames).items())
    return (
        f"Values in brackets are {level}bootstrap intervals{draws} over images and cover which images were drawn; those "
        "of significance, residual and gain, and of differences between networks, cover the disentanglers' seeds too; none "
        "is adjusted for the number of orders; "
        f"n = {n or 'an unknown number of'} images."
    )


def summary(frames: Frames, chosen_order: int | None, notes: Mapping[str, str]) -> tuple[str, str, str]:
    """Three sentences: simple against complex, effective and over-fitted orders, substitution."""

    def missing(name: str, noun: str) -> str:
        return one_sentence(f"{noun}: {notes.get(name, 'not computed in this run')}")

    first, second, third = missing("significance", "Significance"), missing("effectiveness", "Effectiveness"), ""
    if "significance" in frames:
        first = _simple_and_complex(frames)
    if "effectiveness" in frames:
        over = "" if "overfitting" in notes else f"; {overfitted_words(frames)}"
        second = f"{effective_words(frames).capitalize()}{over}."
    if {"substitution", "substitution_splits"} <= set(frames):
        third = read_substitution(frames, chosen_order)
    return first, second, third or missing("substitution", "Substitution")


def _simple_and_complex(frames: Frames) -> str:
    rows, explained = records(frames, "significance"), reached(frames["significance"]).to_dict("records")
    left = with_interval(rows[-1], "residual")
    if len(rows) == 1:
        return (
            f"In this run order {rows[0]['order']}, the only one tried, explains {with_interval(explained[0], 'reached')} "
            f"of the feature's variance and leaves {left}."
        )
    half = len(rows) // 2
    below, above = rows[half - 1], [row["order"] for row in rows[half:]]
    if open_ := [row["order"] for row in rows if row not in readable(rows)]:
        clear = [row["order"] for row in readable(rows)]
        return (
            f"In this run {listed(clear) if clear else 'no order'} {'is' if len(clear) < 2 else 'are'} resolved and "
            f"{listed(open_)} {'is' if len(open_) == 1 else 'are'} not, at this budget and width; all together explain "
            f"{with_interval(explained[-1], 'reached')} of the feature's variance and {left} stays unexplained."
        )
    return (
        f"In this run {with_interval(explained[half - 1], 'reached')} of the feature's variance is simple (explained up to "
        f"order {below['order']}, the lower {half} of {len(rows)} orders tried), {listed(above)} (complex) "
        f"{'adds' if len(above) == 1 else 'add'} {percent(below['residual'] - rows[-1]['residual'])}, and {left} stays "
        "unexplained."
    )


def write_report(
    folder: Path,
    analyses: dict[str, dict[str, pd.DataFrame]],
    *,
    title: str,
    spec: dict[str, Any],
    provenance: list[dict[str, Any]],
    scores: dict[str, float],
    notes: dict[str, str],
    chosen_order: int | None,
    pictures: Mapping[str, Path] | None = None,
    drawn: Mapping[str, Path] | None = None,
) -> Path:
    """Writes `report.html`, `figures/` and `tables/`; apart from provenance the same input gives the same bytes.

    Args:
        analyses: network → frame → table; 'target' is the main net, others ('distilled', …) have the same frames.
        spec: the run's settings, nested.
        provenance: manifests of the artifacts.
        scores: accuracies and losses of the target on its own samples and on all test images.
        notes: why a frame or section is missing: by its name, or `<network>.<name>` for one network. Other names are
            told at the end.
        chosen_order: of the target's substitution; None: the best on validation. Other networks use that rule.
        pictures: network → folder of its stored pictures; a network without has no section of them.
        drawn: network → folder of figures that `draw_figures` has drawn.

    Returns:
        The path of the page.
    """
    target = analyses["target"]
    chosen = _chosen("target", target, chosen_order)
    networks = {
        name: _views(
            folder / "figures", name, frames, spec=spec, notes=notes, chosen_order=chosen_order,
            pictures=(pictures or {}).get(name), before=(drawn or {}).get(name),
        )[0]
        for name, frames in analyses.items()
    }  # fmt: skip
    write_tables(folder / "tables", analyses)
    return write_page(
        folder,
        title=title,
        summary=summary(target, chosen, notes),
        tiles=_tiles(target, scores, chosen),
        coverage=coverage_words(target, spec),
        networks=networks,
        comparison=compare(analyses, BESIDE),
        left_out=_left_out(analyses, notes),
        spec=spec,
        provenance=provenance,
    )


def draw_figures(
    folder: Path,
    network: str,
    frames: Frames,
    *,
    spec: Mapping[str, Any],
    notes: Mapping[str, str],
    chosen_order: int | None,
    pictures: Path | None = None,
) -> None:
    """Draws one network's figures into a folder, from which reports take those whose tables are then still the same.

    The arguments are those of `write_report`.
    """
    args: Any = {"spec": spec, "notes": notes, "chosen_order": chosen_order, "pictures": pictures}
    _views(folder, network, frames, **args)[1].keep()


def _views(
    folder: Path,
    network: str,
    frames: Frames,
    *,
    spec: Mapping[str, Any],
    notes: Mapping[str, str],
    chosen_order: int | None,
    pictures: Path | None,
    before: Path | None = None,
) -> tuple[list[View], Gallery]:
    """One network's sections, and their figures."""
    coverage, limits = spec.get("analysis", {}).get("confidence"), spec.get("pictures", {}).get("limits", "robust")
    chosen = _chosen(network, frames, chosen_order)
    gallery = Gallery(folder, [chosen, limits, coverage, pictures and digest_of_folder(pictures)], before)
    sections = run_sections(chosen, None if pictures is None else Pictures.load(pictures), limits)
    there = [section for section in sections if not section.optional or set(section.tables) <= set(frames)]
    return [view(gallery, network, frames, section, notes, coverage) for section in there], gallery


def _chosen(network: str, frames: Frames, chosen_order: int | None) -> int | None:
    """The order chosen for substitution: the target's is told, another network's is the best on validation."""
    return chosen_order if network == "target" and chosen_order is not None else best_order(frames)


def run_sections(
    chosen: int | None = None, pictures: Pictures | None = None, limits: Limits = "robust"
) -> list[Section]:
    """All sections of one network in the page's order.

    Args:
        chosen: the order chosen for substitution; None: the best on validation.
        limits: of the pictures' colours.
    """
    of_orders = [
        *reliability.SECTIONS,
        *shapley.SECTIONS,
        substitution_section(chosen),
        *images.SECTIONS,
        *comparison.SECTIONS,
    ]
    return [
        *input_sections(pictures.inputs if pictures else None),
        *picture_sections(pictures, limits),
        *significance.SECTIONS[:1],
        *width.SECTIONS,
        *significance.SECTIONS[1:],
        *(replace(section, flags=with_open(section.flags)) for section in of_orders),
    ]


def _tiles(frames: Frames, scores: Mapping[str, float], chosen: int | None) -> list[Tile]:
    """The run in four figures; a dash stands for what is unknown."""
    explained = ("–", "")
    if "significance" in frames:
        last = reached(frames["significance"]).to_dict("records")[-1]
        interval = with_interval(last, "reached").partition(" ")[2]
        explained = (percent(last["reached"]), f"{interval} by the disentangler of order {last['order']}")
    shown = {key: percent(scores[key]) if key in scores else "–" for key in ("test_accuracy", "train_accuracy")}
    return [
        Tile(shown["test_accuracy"], "test accuracy", "of the target"),
        Tile(shown["train_accuracy"], "train accuracy", "of the target, on its own samples"),
        Tile(explained[0], "feature variance explained", explained[1]),
        Tile("–" if chosen is None else str(chosen), "chosen order", "for substitution, on validation images"),
    ]


def _left_out(analyses: Mapping[str, Frames], notes: Mapping[str, str]) -> list[str]:
    """Notes on what has no section here."""
    told = {name for section in run_sections() for name in (section.name, *section.tables)}
    return [
        one_sentence(f"{name}: {text}")
        for name, text in notes.items()
        if name not in told and name.rpartition(".")[2] not in told
    ]


BESIDE = (ORDER, *(Column(metric.source, metric.heading, metric.show) for metric in METRICS if metric.beside))
