"""What is told of each complexity order: every metric once, for all that show it.

From here come the report's table columns, the fields of `--json` and of the sweep's table, the columns of the terminal and
the UI, what a comparison compares and what a sweep follows over sizes. Figures and sentences are the facets'.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from featcx_core.wording import number, percent


def integer(value: Any) -> str:
    """'1,000'."""
    return f"{int(value):,}"


def yes(value: Any) -> str:
    """'yes' or 'no'."""
    return "yes" if value else "no"


def word(value: Any) -> str:
    """A word as it stands; a dash where there is none."""
    return value if isinstance(value, str) else "–"


@dataclass(frozen=True)
class Metric:
    """A number, or a truth, an order.

    Attributes:
        name: the field of `--json` and the column of the sweep's table.
        frame: where it stands, a row an order.
        heading: of the report's column; empty: it has none.
        show: the value in words.
        section: of the report; empty: the frame's own.
        column: of the frame; empty: as `name`.
        interval: whether `<column>_low` and `<column>_high` are told too.
        told: whether `--json` and the sweep's table have it; others are in the report alone.
        short: heading in the terminal and the UI; empty: not shown there.
        form: the terminal's format.
        noun: the name under which a comparison tests its differences, which takes bootstrap draws of the frame's stage;
            empty: not compared.
        beside: whether the report sets networks side by side in it.
        sweep: the section of the sweep's report that follows it over sizes; empty: none.
    """

    name: str
    frame: str
    heading: str = ""
    show: Callable[[Any], str] = percent
    section: str = ""
    column: str = ""
    interval: bool = False
    told: bool = True
    short: str = ""
    form: str = ".3f"
    noun: str = ""
    beside: bool = False
    sweep: str = ""

    @property
    def source(self) -> str:
        """The frame's column."""
        return self.column or self.name


METRICS = (
    Metric("blocks", "significance", "blocks", integer),
    Metric(
        "cross_seed", "significance", "significance Cov[c_a, c_b] / Var[f]", interval=True, short="signif.",
        noun="Significance", beside=True, sweep="significance",
    ),
    Metric(
        "significance", "significance", "as published Var[c] / Var[f]", interval=True, short="raw", beside=True,
        sweep="significance",
    ),
    Metric("reproducible_share", "significance", "reproducible share"),
    Metric("explained", "significance", "explained increment", told=False),
    Metric(
        "residual", "significance", "residual Var[f − Φ] / Var[f]", interval=True, short="residual", sweep="significance",
    ),
    Metric("gain", "significance", "gain over the shallower net trained on", interval=True),
    Metric("null", "significance", "significance in null targets"),
    Metric("resolved", "significance", "resolved", word, beside=True),
    Metric("draws", "significance", "draws a chain", integer),
    Metric("residual_rises", "significance", "residual rises", yes),
    Metric(
        "reliability", "reliability", "ratio Var[Φ reli] / Var[Φ]", number,
        noun="Reliability (ratio)", beside=True, sweep="reliability",
    ),
    Metric("fit", "reliability", "fit Var[gψ] / Var[Φ]", number, sweep="reliability"),
    Metric("shrinkage", "reliability", "shrinkage Var[gψ_R] / Var[gψ]", number, sweep="reliability"),
    Metric("component_ratio", "reliability", "Var[c reli] / Var[c]", number, told=False),
    Metric("above_one", "reliability", "above 1", yes, told=False),
    Metric("reliable_share", "reliability", "Var[c reli] / Var[f]"),
    Metric("unreliable_share", "reliability", "Var[c − c reli] / Var[f]"),
    Metric("reliable_cross_seed", "reliability"),
    Metric("unreliable_cross_seed", "reliability"),
    Metric(
        "decodability", "decodability", "decodability", section="reliability", interval=True, short="decod.", form=".2f",
        noun="Decodability", sweep="decodability",
    ),
    Metric(
        "decodability_floor", "decodability", "floor (untrained nets)", section="reliability", column="floor",
        sweep="decodability",
    ),
    Metric("shapley_train", "effectiveness", "φ on seen images", number, section="shapley"),
    Metric("shapley_test", "effectiveness", "φ on test images", number, section="shapley", told=False),
    Metric("shapley_overfit", "effectiveness", "φ(seen) − φ(test)", number, section="shapley"),
    Metric(
        "effectiveness", "effectiveness", "effectiveness φ / √Var[c]", number, interval=True, short="effect.", form=".4f",
        noun="Effectiveness", beside=True, sweep="effectiveness",
    ),
    Metric(
        "overfitting", "effectiveness", "over-fitting level", section="overfitting", interval=True, short="overfit",
        form=".2f", noun="Over-fitting", beside=True, sweep="overfitting",
    ),
    Metric("overfitting_stable", "effectiveness", "stable", yes, section="overfitting"),
    Metric(
        "substituted_accuracy", "substitution", "test accuracy with Φ", short="acc. Φ", form=".1%", beside=True,
    ),
    Metric("substituted_loss", "substitution", "test loss with Φ (nats)", number, told=False),
    Metric("validation_accuracy", "substitution", "validation accuracy with Φ", told=False),
    Metric("image_share", "image_orders", "mean share of an image's energy", section="images", interval=True),
    Metric("images_explained", "image_orders", "images explained to 90%", section="images", interval=True),
)  # fmt: skip
