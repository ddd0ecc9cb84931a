"""What the tables of one run say, in words: sentences for the report, each number taken from a frame.

A sentence ranks two orders only where their intervals are apart, and speaks of this run alone.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from featcx_core.analysis.pictures import Pictures
from featcx_core.metrics import METRICS, integer, yes
from featcx_core.report.facets.comparison import draw_comparison, read_comparison
from featcx_core.report.facets.maps import Limits
from featcx_core.report.facets.pictures import picture_sections
from featcx_core.report.facets.reliability import above_one, draw_reliability, read_reliability
from featcx_core.report.facets.shapley import (
    draw_effectiveness,
    draw_interactions,
    draw_overfitting,
    draw_shapley,
    effective_words,
    overfitted_words,
    read_effectiveness,
    read_interactions,
    read_overfitting,
    read_shapley,
    unstable_overfitting,
)
from featcx_core.report.facets.significance import (
    draw_covariance,
    draw_residuals,
    draw_significance,
    not_learned,
    not_resolved,
    read_covariance,
    read_residuals,
    read_significance,
    rising_residual,
    wide_gap,
)
from featcx_core.report.facets.substitution import draw_substitution, read_substitution
from featcx_core.report.page import (
    Tile,
    view,
    write_page,
    write_tables,
)
from featcx_core.report.section import ORDER, Section, _order, _size, columns
from featcx_core.report.tables import Column, compare
from featcx_core.wording import (
    Frames,
    best_order,
    counts,
    listed,
    number,
    one_sentence,
    percent,
    reached,
    readable,
    records,
    with_interval,
)

# METHOD.md §8: findings and reference rows.
PAPER = {
    "comparison": "The paper reports that distillation makes features more reliable and more effective, and that compression "
    "touches mostly low orders and leaves reliability alone.",
    "significance": "The paper has most at low orders and little beyond: for ResNet-20 on 2,000 CIFAR-10 images it gives "
    ".372 .299 .101 .031 .017 .016 at orders 4, 7, 13, 25, 49, 97 (other data, nets and training budgets, so compare "
    "shapes, not values).",
    "residuals": "The paper gives one residual an order and none a split: for ResNet-20 on 2,000 CIFAR-10 images it falls "
    "from .585 at order 4 to .117 at order 97.",
    "covariance": "The paper gives no covariances; in its row for ResNet-20 on 2,000 images the significances and the "
    "last residual sum to .953, so there too a part lies between components.",
    "reliability": "The paper gives ratios of .754 .529 .423 .399 .460 .362 at orders 4 to 97 for ResNet-20 on 2,000 "
    "images and no decodability; its ratio depends on where the training of the cycle's maps stops, so expect to differ.",
    "shapley": "The paper states its findings on two ratios of these values, effectiveness and over-fitting level, which "
    "the next sections give.",
    "interactions": "The paper gives no interactions; a loss that levels off draws them below zero even between parts that "
    "have nothing in common, so read which are strongest rather than their sign.",
    "effectiveness": "In the paper effectiveness peaks at orders of about half the target's depth.",
    "overfitting": "The paper compares training-set sizes, which a single run cannot: there more samples lower the "
    "over-fitting of low orders and not of high ones.",
    "substitution": "The paper gains up to about 5 points, middle orders most (ResNet-20 on 2,000 images: 56.2% to 60.8% "
    "at order 7), with the best order read off the test set and, as here, disentanglers that see more images than the "
    "target does.",
}


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

    Returns:
        The path of the page.
    """
    coverage = spec.get("analysis", {}).get("confidence")
    target = analyses["target"]
    chosen = {name: best_order(frames) for name, frames in analyses.items()}
    if chosen_order is not None:
        chosen["target"] = chosen_order
    limits = spec.get("pictures", {}).get("limits", "robust")
    stored = {name: Pictures.load(path) for name, path in (pictures or {}).items()}
    networks = {
        name: [
            view(folder, name, frames, section, notes, coverage)
            for section in run_sections(chosen[name], stored.get(name), limits)
            if not section.optional or set(section.tables) <= set(frames)
        ]
        for name, frames in analyses.items()
    }
    write_tables(folder / "tables", analyses)
    return write_page(
        folder,
        title=title,
        summary=summary(target, chosen["target"], notes),
        tiles=_tiles(target, scores, chosen["target"]),
        coverage=coverage_words(target, spec),
        networks=networks,
        comparison=compare(analyses, BESIDE),
        left_out=_left_out(analyses, notes),
        spec=spec,
        provenance=provenance,
    )


def run_sections(chosen: int | None, pictures: Pictures | None = None, limits: Limits = "robust") -> list[Section]:
    """All sections of one network in the page's order, those of its pictures first."""
    return [*picture_sections(pictures, limits), *_sections(chosen)]


def _sections(chosen: int | None) -> list[Section]:
    """The sections, substitution with the chosen order."""
    if chosen is None:
        return list(SECTIONS)
    figure = {section.name: section.figure for section in SECTIONS}["substitution"]
    bound = {
        "figure": functools.partial(figure, chosen=chosen),
        "reading": functools.partial(read_substitution, chosen_order=chosen),
    }
    return [replace(section, **bound) if section.name == "substitution" else section for section in SECTIONS]  # type: ignore[arg-type]


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
    told = {section.name for section in SECTIONS} | {frame for section in SECTIONS for frame in section.tables}
    return [
        one_sentence(f"{name}: {text}")
        for name, text in notes.items()
        if name not in told and name.rpartition(".")[2] not in told
    ]


SECTIONS = (
    Section(
        "significance",
        "Significance",
        "what chains with other seeds share of Var[c] / Var[f] an order, and what is explained up to it",
        draw_significance,
        read_significance,
        {"significance": (ORDER, *columns("significance"))},
        flags=lambda frames: [*not_learned(frames), *not_resolved(frames), *rising_residual(frames)],
        paper=PAPER["significance"],
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
        paper=PAPER["residuals"],
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
        paper=PAPER["covariance"],
    ),
    Section(
        "reliability",
        "Reliability",
        "the published ratio, and the share that linear maps read off nets trained for the same task",
        draw_reliability,
        read_reliability,
        {
            "reliability": (ORDER, *columns("reliability")),
            "decodability": (Column("quantity", "quantity"), ORDER, *columns("decodability", "reliability")),
        },
        needs=any,
        flags=above_one,
        wide=True,
        paper=PAPER["reliability"],
    ),
    Section(
        "shapley",
        "Shapley values",
        "φ: each component's part in lowering the loss, in nats",
        draw_shapley,
        read_shapley,
        {"effectiveness": (ORDER, *columns("effectiveness", "shapley"))},
        paper=PAPER["shapley"],
    ),
    Section(
        "interactions",
        "Interactions",
        "Shapley interaction index: how much more (above zero) or less (below) two orders lower the loss together than "
        "apart, in nats",
        draw_interactions,
        read_interactions,
        {
            "interactions": (
                Column("split", "images"),
                Column("a", "order a", _order),
                Column("b", "order b", _order),
                Column("interaction", "interaction of a and b", number),
            )
        },
        paper=PAPER["interactions"],
    ),
    Section(
        "effectiveness",
        "Effectiveness",
        "φ(seen) / √Var[c], nats per unit of feature",
        draw_effectiveness,
        read_effectiveness,
        {"effectiveness": (ORDER, *columns("effectiveness"))},
        paper=PAPER["effectiveness"],
    ),
    Section(
        "overfitting",
        "Over-fitting level",
        "1 − φ(test) / φ(seen)",
        draw_overfitting,
        read_overfitting,
        {"effectiveness": (ORDER, *columns("effectiveness", "overfitting"))},
        flags=unstable_overfitting,
        paper=PAPER["overfitting"],
    ),
    Section(
        "substitution",
        "Substitution",
        "accuracy of the target's head on Φ in place of f",
        draw_substitution,
        lambda frames: read_substitution(frames, best_order(frames)),
        {
            "substitution": (ORDER, *columns("substitution")),
            "substitution_splits": (
                Column("split", "split"),
                Column("rows", "images", integer),
                Column("accuracy", "accuracy with f", percent),
                Column("loss", "loss with f (nats)", number),
            ),
        },
        paper=PAPER["substitution"],
    ),
    Section(
        "comparison",
        "What the variants changed",
        "variant − original, metric by metric and order by order",
        draw_comparison,
        read_comparison,
        {
            "comparison": (
                Column("variant", "variant"),
                Column("metric", "metric"),
                ORDER,
                Column("original", "original", number),
                Column("value", "variant's value", number),
                Column("difference", "difference", number),
                Column("p_holm", "p (Holm)", number),
            ),
            "networks": (
                Column("network", "network"),
                Column("train_accuracy", "accuracy on seen images", percent),
                Column("test_accuracy", "test accuracy", percent),
                Column("compressed_bytes", "compressed size (bytes)", _size),
                Column("ratio", "times smaller than fp32", _size),
            ),
        },
        wide=True,
        optional=True,
        paper=PAPER["comparison"],
    ),
)

BESIDE = (ORDER, *(Column(metric.source, metric.heading, metric.show) for metric in METRICS if metric.beside))
