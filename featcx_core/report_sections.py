"""The report's sections: which frames, figure, reading, flags and table columns make each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from featcx_core import figures, flags, readings
from featcx_core.figure_files import FigureFunction
from featcx_core.figures_comparison import comparison
from featcx_core.report_tables import Column
from featcx_core.wording import Frames, best_order, number, percent


@dataclass(frozen=True)
class Section:
    """One analysis of one network.

    Attributes:
        name: of the figure's files, the anchor and the note that stands in for missing frames.
        about: the quantity, in symbols.
        tables: frame → its columns; the frames that the figure and the reading need.
        needs: the frames without which there is no section: all, or any one of `tables`.
        widget: what the page lets the reader move, as the template's `slider` wants it.
        optional: left out of the page, not told of, where its frames are missing.
        paper: what the paper has to compare with; empty: `readings.PAPER` has it under the section's name.
    """

    name: str
    title: str
    about: str
    figure: FigureFunction
    reading: Callable[[Frames], str]
    tables: dict[str, tuple[Column, ...]]
    needs: Callable[[list[bool]], bool] = all
    flags: Callable[[Frames], list[str]] = lambda frames: []
    wide: bool = False
    widget: Callable[[Frames], dict[str, Any]] = lambda frames: {}
    paper: str = ""
    optional: bool = False


def _integer(value: Any) -> str:
    return f"{int(value):,}"


def _order(value: Any) -> str:
    return _integer(value) if value else "–"


def _size(value: Any) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _yes(value: Any) -> str:
    return "yes" if value else "no"


ORDER = Column("order", "order", _order)
SECTIONS = (
    Section(
        "significance",
        "Significance",
        "Var[c] / Var[f] an order, and what is explained up to it",
        figures.significance,
        readings.significance,
        {
            "significance": (
                ORDER,
                Column("blocks", "blocks", _integer),
                Column("significance", "significance Var[c] / Var[f]", percent),
                Column("explained", "explained increment", percent),
                Column("residual", "residual Var[f − Φ] / Var[f]", percent),
                Column("residual_rises", "residual rises", _yes),
            )
        },
        flags=lambda frames: [*flags.not_learned(frames), *flags.rising_residual(frames)],
    ),
    Section(
        "residuals",
        "Residual by split",
        "Var[f − Φ] / Var[f] within each split",
        figures.residuals,
        readings.residuals,
        {
            "splits": (
                Column("split", "split"),
                Column("rows", "images", _integer),
                ORDER,
                Column("residual", "residual", percent),
                Column("gap", "test above it by", percent),
                Column("gap_flag", "flagged", _yes),
            )
        },
        flags=flags.wide_gap,
    ),
    Section(
        "covariance",
        "Covariance between components",
        "Cov[a, b] / Var[f]: shares of variance need not sum to one",
        figures.covariance,
        readings.covariance,
        {
            "covariance": (
                Column("a", "part a"),
                Column("b", "part b"),
                Column("covariance", "Cov[a, b] / Var[f]", percent),
            )
        },
    ),
    Section(
        "reliability",
        "Reliability",
        "the published ratio, and the share that linear maps read off nets trained for the same task",
        figures.reliability,
        readings.reliability,
        {
            "reliability": (
                ORDER,
                Column("reliability", "ratio Var[Φ reli] / Var[Φ]", number),
                Column("fit", "fit Var[gψ] / Var[Φ]", number),
                Column("shrinkage", "shrinkage Var[gψ_R] / Var[gψ]", number),
                Column("component_ratio", "Var[c reli] / Var[c]", number),
                Column("above_one", "above 1", _yes),
                Column("reliable_share", "Var[c reli] / Var[f]", percent),
                Column("unreliable_share", "Var[c − c reli] / Var[f]", percent),
            ),
            "decodability": (
                Column("quantity", "quantity"),
                ORDER,
                Column("decodability", "decodability", percent),
                Column("floor", "floor (untrained net)", percent),
            ),
        },
        needs=any,
        flags=flags.above_one,
        wide=True,
    ),
    Section(
        "shapley",
        "Shapley values",
        "φ: each component's part in lowering the loss, in nats",
        figures.shapley,
        readings.shapley,
        {
            "effectiveness": (
                ORDER,
                Column("shapley_train", "φ on seen images", number),
                Column("shapley_test", "φ on test images", number),
                Column("shapley_overfit", "φ(seen) − φ(test)", number),
            )
        },
    ),
    Section(
        "interactions",
        "Interactions",
        "Shapley interaction index: how much more (above zero) or less (below) two orders lower the loss together than "
        "apart, in nats",
        figures.interactions,
        readings.interactions,
        {
            "interactions": (
                Column("split", "images"),
                Column("a", "order a", _order),
                Column("b", "order b", _order),
                Column("interaction", "interaction of a and b", number),
            )
        },
    ),
    Section(
        "effectiveness",
        "Effectiveness",
        "φ(seen) / √Var[c], nats per unit of feature",
        figures.effectiveness,
        readings.effectiveness,
        {"effectiveness": (ORDER, Column("effectiveness", "effectiveness φ / √Var[c]", number))},
    ),
    Section(
        "overfitting",
        "Over-fitting level",
        "1 − φ(test) / φ(seen)",
        figures.overfitting,
        readings.overfitting,
        {
            "effectiveness": (
                ORDER,
                Column("overfitting", "over-fitting level", percent),
                Column("overfitting_stable", "stable", _yes),
            )
        },
        flags=flags.unstable_overfitting,
    ),
    Section(
        "substitution",
        "Substitution",
        "accuracy of the target's head on Φ in place of f",
        figures.substitution,
        lambda frames: readings.substitution(frames, best_order(frames)),
        {
            "substitution": (
                ORDER,
                Column("substituted_accuracy", "test accuracy with Φ", percent),
                Column("substituted_loss", "test loss with Φ (nats)", number),
                Column("validation_accuracy", "validation accuracy with Φ", percent),
            ),
            "substitution_splits": (
                Column("split", "split"),
                Column("rows", "images", _integer),
                Column("accuracy", "accuracy with f", percent),
                Column("loss", "loss with f (nats)", number),
            ),
        },
    ),
    Section(
        "comparison",
        "What the variants changed",
        "variant − original, metric by metric and order by order",
        comparison,
        readings.comparison,
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
    ),
)

_KNOWN = {column.name: column for part in SECTIONS for columns in part.tables.values() for column in columns}
COMPARED = tuple(
    _KNOWN[name]
    for name in (
        "order",
        "significance",
        "reliability",
        "effectiveness",
        "overfitting",
        "substituted_accuracy",
    )
)
