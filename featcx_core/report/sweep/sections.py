"""The sections of a sweep's report: which frames, figure, reading and table columns make each."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

from featcx_core.metrics import METRICS
from featcx_core.report.figure_files import FigureFunction
from featcx_core.report.section import ORDER, Section
from featcx_core.report.sweep import claim_figures, claim_readings, figures, readings
from featcx_core.report.tables import Cell, Column
from featcx_core.studies.claims import STATEMENTS
from featcx_core.wording import Row, number, percent


@dataclass(frozen=True)
class Ranged(Column):
    """A column whose interval is left out where there is none, as with one seed."""

    def cell(self, row: Row) -> Cell:
        ends = (f"{self.name}_low", f"{self.name}_high")
        known = all(math.isfinite(row.get(end, math.nan)) for end in ends)
        return super().cell(row if known else {key: value for key, value in row.items() if key not in ends})


def _count(value: Any) -> str:
    return f"{value:,.0f}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


GROUP, SAMPLES = Column("group", "architecture"), Column("samples", "samples", _count)
SEED, SEEDS = Column("seed", "seed", str), Column("seeds", "seeds", _count)


def _by_order(name: str, title: str, about: str, label: str, noun: str, paper: str, **more: Any) -> Section:
    """A metric by order, a line a size."""
    own = [metric for metric in METRICS if metric.sweep == name]
    flags = more.pop("flags", lambda frames: [])
    columns: list[Column] = [Ranged(metric.name, metric.heading, metric.show) for metric in own]
    if name == "overfitting":
        columns.append(Column("unstable", "unstable values", _count))
    return Section(
        name,
        title,
        about,
        functools.partial(figures.by_order, name=name, label=label),
        more.pop("reading", functools.partial(readings.over_sizes, name=name, noun=noun, show=own[0].show)),
        {name: (GROUP, SAMPLES, ORDER, *columns, SEEDS)},
        wide=True,
        paper=paper,
        flags=lambda frames: [*flags(frames), *readings.open_orders(frames)],
        **more,
    )


def _claim(k: str, title: str, figure: FigureFunction, paper: str, **tables: tuple[Column, ...]) -> Section:
    """A claim: its verdicts, what they rest on."""
    about = "; ".join(f"{s.name}: {s.about}" for s in STATEMENTS if s.name[0] == k)
    columns = (
        Column("statement", "statement"),
        GROUP,
        Column("verdict", "verdict"),
        Ranged("value", "measured", number),
        SEEDS,
        Column("targets", "targets", _count),
    )
    return Section(
        f"claim_{k}",
        f"Claim {k}: {title}",
        about,
        figure,
        functools.partial(claim_readings.claim, number_of=k),
        {f"claim_{k}": columns, **tables},
        wide=k in "14",
        paper=paper,
    )


ACCURACY = Section(
    "accuracy",
    "Targets and their accuracy",
    "accuracy on test images with f, and with Φ of the order chosen on validation images",
    figures.accuracy,
    readings.accuracy,
    {
        "targets": (
            Column("target", "target", link="report"),
            SAMPLES,
            SEED,
            Column("train_accuracy", "train accuracy", percent),
            Column("test_accuracy", "test accuracy", percent),
            Column("chosen_order", "chosen order", _count),
            Column("substituted_accuracy", "test accuracy with Φ", percent),
            Ranged("gain", "gain (points)", _points),
            Column("depth", "depth", _count),
        )
    },
    wide=True,
    paper="The paper's targets on CIFAR-10 see 200 to 5,000 samples; ResNet-20 on 2,000 has 56.2%.",
)
PROFILE = Section(
    "profile",
    "Where in the net complexity arises",
    "significance by layer and order; what an order adds at each layer of one net",
    figures.profile,
    readings.profile,
    {
        "profile": (
            Column("net", "net"),
            Column("layer", "layer"),
            ORDER,
            Column("significance", "significance", percent),
            Column("residual", "residual", percent),
            Column("resolved", "resolved (share of seeds)", percent),
            SEEDS,
        )
    },
    wide=True,
    optional=True,
    paper="The paper takes one layer of each net.",
)
SECTIONS = (
    ACCURACY,
    PROFILE,
    _by_order(
        "significance",
        "Significance over sizes",
        "what chains with other seeds share of Var[c] / Var[f] an order",
        "share of Var[f]",
        "significance",
        "The paper finds the distribution over orders much the same at all sizes; claim 1 below puts a number on that.",
        flags=readings.rising,
    ),
    _by_order(
        "reliability",
        "Reliability over sizes",
        "the published ratio Var[Φ reli] / Var[Φ]",
        "reliability ratio",
        "the reliability ratio",
        "The paper finds features more reliable with more samples; its ratio depends on where the training of the cycle's "
        "maps stops, so read it beside decodability.",
        flags=readings.above_one,
    ),
    _by_order(
        "decodability",
        "Decodability over sizes",
        "share of Var[c] that a linear map reads off nets trained for the same task; grey: off an untrained net",
        "decodable share of Var[c]",
        "decodability",
        "The paper has no such measure.",
        reading=readings.decodability,
    ),
    _by_order(
        "effectiveness",
        "Effectiveness over sizes",
        "φ(seen) / √Var[c], nats per unit of feature",
        "effectiveness φ / √Var[c]",
        "effectiveness",
        "In the paper effectiveness peaks at orders of about half the target's depth; values of targets whose features "
        "differ in scale do not compare, so compare where the peak stands.",
    ),
    _by_order(
        "overfitting",
        "Over-fitting over sizes",
        "1 − φ(test) / φ(seen), stable values alone",
        "over-fitting level",
        "the over-fitting level",
        "In the paper more samples lower the over-fitting of low orders and not of high ones.",
        flags=readings.unstable,
    ),
    _claim(
        "1",
        "reliability and significance",
        claim_figures.reliability,
        "The paper reports that more training samples make features more reliable and change the distribution of "
        "significance little; it gives no number for 'little', and its own rows show weight moving from order 4 "
        "towards 7 and 13.",
    ),
    _claim(
        "2",
        "where effectiveness peaks",
        claim_figures.effectiveness,
        "The paper reports that effectiveness peaks at orders of about half the target's depth.",
        peaks=(
            Column("target", "target"),
            Column("depth", "depth", _count),
            Column("half", "half", number),
            Column("nearest", "tested order nearest to half", _count),
            Column("peak", "peak at order", _count),
            Column("top", "between orders", number),
            Column("tied", "not told apart from"),
            Column("edge", "at the edge", lambda value: "yes" if value else "no"),
        ),
    ),
    _claim(
        "3",
        "over-fitting of low orders",
        claim_figures.overfitting,
        "The paper reports that more training samples lower the over-fitting of low orders, and not of high ones.",
    ),
    _claim(
        "4",
        "substitution",
        claim_figures.substitution,
        "The paper reports that Φ in place of f raises test accuracy by up to about 5 points, middle orders most, with the "
        "order read off the test set; here it is chosen on validation images. The disentangler saw the whole pool, the "
        "target its own samples alone: the control for that stands in each target's own report.",
    ),
    Section(
        "prediction",
        "Predicting performance",
        "test accuracy and loss from Var[c reli] / Var[f] and Var[c unreli] / Var[f] of each order, by least squares",
        claim_figures.prediction,
        readings.prediction,
        {
            "prediction": (
                Column("performance", "predicted"),
                Column("predictors", "from"),
                Column("r2", "R² of the fit to all", readings.r_squared),
                Column("leave_one_out_r2", "R², one architecture and size left out", readings.r_squared),
                Column("leave_one_out_mae", "mean error (fraction, nats)", number),
                Column("by_arch_r2", "R², one architecture left out", readings.r_squared),
                Column("by_samples_r2", "R², one size left out", readings.r_squared),
                Column("partial_r2", "explained by shares of what it leaves", percent),
                Column("partial_r2_by_chance", "by chance", percent),
                Column("partial_p", "p", number),
                Column("targets", "targets", _count),
            )
        },
        wide=True,
        flags=readings.few_rows,
        paper="The paper fits and scores the same targets; on the authors' own 25 rows R² with one target left out is .944 "
        "for the shares and .968 for log(samples) alone.",
    ),
)
