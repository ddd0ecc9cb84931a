"""The report of a sweep: the paper's figures over training-set sizes, its claims 1–4, and performance prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from featcx_core.report.gallery import Gallery
from featcx_core.report.page import Tile, view, write_page, write_tables
from featcx_core.report.section import Section
from featcx_core.report.sweep import claim_readings, readings
from featcx_core.report.sweep.sections import SECTIONS
from featcx_core.studies.claims import FEW, STATEMENTS
from featcx_core.studies.frames import BY_ORDER, frames_of
from featcx_core.wording import Frames

NONE = "No target was analysed."
ABSENT = "Not measured for any target; reliability and decodability take exemplary nets."


def write_sweep_report(
    folder: Path,
    table: pd.DataFrame,
    *,
    fields: tuple[str, ...],
    failed: Mapping[str, str],
    links: Mapping[str, str],
    spec: dict[str, Any],
    provenance: list[dict[str, Any]],
) -> Path:
    """Writes `report.html`, `figures/` and `tables/`; apart from provenance the same rows give the same bytes.

    Args:
        table: a row a (target, order), in any order of rows: target, arch, samples, seed, `fields`, order, blocks, the
            analyses under the names of `--json` with `_low` and `_high` for intervals (NaN where missing), and on each
            row of a target depth (nonlinear layers from image to logits), train_accuracy, test_accuracy, train_loss,
            test_loss, feature_variance, chosen_order, gain, gain_low and gain_high (fractions).
        fields: columns of further varied settings, by their dotted paths.
        failed: target → why it is missing.
        links: target → address of its own report, relative to `folder`.
        spec: settings; `analysis.confidence` is the coverage of intervals.
        provenance: manifests of the artifacts.

    Raises:
        InputError: for a table that lacks columns, or has targets that nothing tells apart.
    """
    analysis = spec.get("analysis", {})
    confidence = float(analysis.get("confidence", 0.95))
    source = str(spec.get("dataset", {}).get("source", "its data")).split(":")[0]
    frames, notes = frames_of(table, fields, links, confidence)
    write_tables(folder / "tables", {"target": frames})
    drawn = {
        name: frame
        for name, frame in frames.items()
        if name[:6] != "claim_" or claim_readings.drawable(frames, name[6:])
    }
    for name in set(frames) - set(drawn):
        notes[name] = claim_readings.claim(frames, name[6:])
    for section in SECTIONS:
        if not section.optional and not section.needs(
            [frame in drawn for frame in section.tables]
        ):  # a note stands there
            notes.setdefault(section.name, ABSENT if frames else NONE)
    figures = Gallery(folder / "figures")
    return write_page(
        folder,
        title=f"Sweep over {'training-set sizes' if _sizes(frames) > 1 else 'targets'} on {source}",
        failures=[f"{target}: {reason}" for target, reason in sorted(failed.items())],
        summary=readings.summary(frames, failed, source),
        tiles=_tiles(frames, failed),
        coverage=_coverage(confidence, analysis.get("bootstrap")),
        networks={
            "target": [view(figures, "target", drawn, section, notes, confidence) for section in _sections(frames)]
        },
        spec=spec,
        provenance=provenance,
    )


def _sizes(frames: Frames) -> int:
    return frames["sweep"]["samples"].nunique() if frames else 0


def _sections(frames: Frames) -> list[Section]:
    """The sections; a figure of one panel is as wide as others of one."""
    single = "sweep" in frames and frames["sweep"]["group"].nunique() == 1
    there = [section for section in SECTIONS if not section.optional or set(section.tables) <= set(frames)]
    return [replace(section, wide=section.wide and not (single and section.name in BY_ORDER)) for section in there]


def _tiles(frames: Frames, failed: Mapping[str, str]) -> list[Tile]:
    """How much of the sweep there is, and each claim's verdict."""
    done = len(frames["targets"]) if frames else 0
    told = f"{len(failed)} failed" if failed else "none failed"
    tiles = [Tile(f"{done} of {done + len(failed)}", "targets analysed", told)]
    if frames:
        tiles += [Tile(word, f"claim {k}", each) for k in "1234" for word, each in [claim_readings.verdict(frames, k)]]
    return tiles


def _coverage(confidence: float, draws: int | None) -> str:
    level = f"{100 * confidence:g}%"
    own = f" ({draws:,} draws)" if draws else ""
    return (
        f"Values in brackets beside a claim's measure are {level} intervals over seeds (Student's t of the mean; a verdict "
        f"takes {FEW} seeds or more), not adjusted for the number of statements ({len(STATEMENTS)}); elsewhere brackets hold "
        f"the lowest and the highest seed, and with a single seed the target's own {level} bootstrap interval over "
        f"images{own}. A seed moves the training subset, the target and its disentanglers; test images and exemplary nets "
        "stay the same."
    )
