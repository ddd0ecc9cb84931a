"""The report on Task-n: is what a more complex task net sets found to be more complex?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from featcx_core.analysis.tasknet import PUBLISHED, RankCorrelation, mean_orders, published_ratio, rank_correlation
from featcx_core.report.complexity import figures
from featcx_core.report.complexity.figures import HALF
from featcx_core.report.gallery import Gallery
from featcx_core.report.page import Tile, view, write_page, write_tables
from featcx_core.report.section import ORDER, Section
from featcx_core.report.tables import Column
from featcx_core.specs import AnalysisSpec
from featcx_core.studies.measures import spread
from featcx_core.wording import Frames, Row, number, percent, records, with_interval

FEW = 5  # seeds; with fewer an interval over them says little
DEPTH, SEED = Column("n", "ReLU layers n", str), Column("seed", "seed", str)
R2 = Column("learner_r2", "learner's R² (test)", number)
RATIO = Column("std_ratio", "std[c] / std[f]", number)
SHARE = Column("variance_ratio", "Var[c] / Var[f]", percent)
PUBLISHED_RATIO = Column("published_std_ratio", "published std[c] / std[f]", number)


def frames_of(tables: Sequence[pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The report's frames from one table a task: 'tasks' (a row a (n, seed, order)), 'task_orders', 'task_depths'."""
    tasks = pd.concat(tables, ignore_index=True).sort_values(["n", "seed", "order"], ignore_index=True)
    rows = zip(tasks["n"], tasks["order"], strict=True)
    tasks["published_std_ratio"] = [published_ratio(int(n), int(order)) for n, order in rows]
    orders = spread(tasks, ["n", "order"], ["std_ratio", "variance_ratio", "residual"])
    rows = zip(orders["n"], orders["order"], strict=True)
    orders["published_std_ratio"] = [published_ratio(int(n), int(order)) for n, order in rows]
    return {
        "tasks": tasks,
        "task_orders": orders,
        "task_depths": spread(mean_orders(tasks), ["n"], ["mean_order", "learner_r2"]),
    }


def correlations(tasks: pd.DataFrame, settings: AnalysisSpec, seed: int) -> dict[str, RankCorrelation]:
    """The rank correlation of n with the mean order, and with the learner's R²."""
    given = (settings.bootstrap, settings.confidence, seed)
    return {column: rank_correlation(tasks, *given, column) for column in ("mean_order", "learner_r2")}


def write_complexity_report(
    folder: Path,
    frames: dict[str, pd.DataFrame],
    found: dict[str, RankCorrelation],
    *,
    spec: dict[str, Any],
    provenance: list[dict[str, Any]],
) -> Path:
    """Writes `report.html`, `figures/` and `tables/`; apart from provenance the same input gives the same bytes."""
    tables = {"target": frames}
    write_tables(folder / "tables", tables)
    sections = _sections(found)
    figures = Gallery(folder / "figures")
    views = [view(figures, "target", frames, section, {}, spec["analysis"]["confidence"]) for section in sections]
    main, level = found["mean_order"], f"{100 * spec['analysis']['confidence']:g}%"
    seeds, worst = len(main.seeds), min(records(frames, "task_depths"), key=lambda row: float(row["learner_r2"]))
    return write_page(
        folder,
        title=f"Task-n on {spec['dataset']['source'].split(':')[0]}: does disentangling see a task's complexity?",
        summary=[read_depth(frames, found), read_learning(frames, found)],
        tiles=[
            Tile(_signed(main.mean), "rank correlation", f"{_ends(main)} of n and mean order, mean over {seeds} seeds"),
            Tile(
                _signed(main.pooled), "pooled", f"the same over all {len(mean_orders(frames['tasks']))} nets together"
            ),
            Tile(_signed(found["learner_r2"].mean), "rank correlation of R²", "of n and how well the task was learned"),
            Tile(number(worst["learner_r2"]), "lowest mean R²", f"on test images, at n = {worst['n']}"),
        ],
        coverage=(
            f"A value in brackets beside a rank correlation is its {level} bootstrap interval over {seeds} seeds; brackets "
            "in the tables hold the lowest and the highest seed."
        ),
        networks={"target": views},
        spec=spec,
        provenance=provenance,
    )


def _sections(found: dict[str, RankCorrelation]) -> list[Section]:
    means = ", ".join(f"{number(_published_mean(n))} at n = {n}" for n in PUBLISHED)
    return [
        Section(
            "task_depth",
            "Complexity against depth",
            "mean order Σ l·ρ / Σ ρ with ρ = Var[c] / Var[f], and R² = 1 − Var[task − learner] / Var[task] beneath it",
            figures.depth,
            lambda frames: read_seeds(frames, found),
            {"task_depths": (DEPTH, Column("mean_order", "mean order", number), R2)},
            flags=flags,
            paper=f"From the authors' files, over orders 4 to 49 and one net an n, the mean order is {means}.",
        ),
        Section(
            "task_weights",
            "Weight of each order",
            "std[c] / std[f] by order, f being the learner's output; one line an n",
            figures.weights,
            read_weights,
            {
                "task_orders": (
                    DEPTH,
                    ORDER,
                    RATIO,
                    PUBLISHED_RATIO,
                    SHARE,
                    Column("residual", "residual Var[f − Φ] / Var[f]", percent),
                ),
                "tasks": (DEPTH, SEED, ORDER, RATIO, SHARE, R2),
            },
            wide=True,
            paper="The published values are of CIFAR-10, wider disentanglers and other budgets, so compare trends in n, not "
            "values.",
        ),
    ]


def read_depth(frames: Frames, found: Mapping[str, RankCorrelation]) -> str:
    """Whether more weight lies on high orders where the task net is deeper."""
    main, rows = found["mean_order"], records(frames, "task_depths")
    if not main.low < main.high:
        verdict = "one seed leaves open how sure that is" if len(main.seeds) < 2 else "no interval can be given"
    elif main.low > 0:
        verdict = "so the weight moves to higher orders as task nets deepen, "
        verdict += "which the flags below put in doubt" if flags(frames) else "as expected"
    elif main.high < 0:
        verdict = "so the weight moves to lower orders as task nets deepen, against expectation"
    else:
        verdict = "which is not told apart from zero"
    ends = " and ".join(f"{number(row['mean_order'])} at n = {row['n']}" for row in (rows[0], rows[-1]))
    return (
        f"In this run the rank correlation between n and the significance-weighted mean order is {_signed(main.mean)} "
        f"{_ends(main)} (mean over seeds; {_signed(main.pooled)} over all nets), {verdict}; the mean order is {ends}."
    )


def read_learning(frames: Frames, found: Mapping[str, RankCorrelation]) -> str:
    """How well the tasks were learned, without which the first sentence cannot be read."""
    learning, rows = found["learner_r2"], records(frames, "task_depths")
    parts = ", ".join(f"{number(row['learner_r2'])} at n = {row['n']}" for row in rows)
    poor = [str(row["n"]) for row in rows if _poor(row)]
    limit = (
        f"where more than half is missing, at n = {', '.join(poor)}, orders tell what was learned, not what the task is"
        if poor
        else "more than half of each, so the orders can be read as those of the tasks"
    )
    return (
        f"Of their tasks' variance on test images the learners explain on average {parts} (R², rank correlation with n "
        f"{_signed(learning.mean)} {_ends(learning)}); {limit}."
    )


def read_seeds(frames: Frames, found: Mapping[str, RankCorrelation]) -> str:
    """The rank correlation seed by seed, and the mean order at each n."""
    seeds, rows = found["mean_order"].seeds, records(frames, "task_depths")
    each = ", ".join(f"{_signed(value)} (seed {seed})" for seed, value in seeds.items())
    orders = ", ".join(f"{with_interval(row, 'mean_order', number)} at n = {row['n']}" for row in rows)
    return f"In this run the rank correlation of n and mean order is {each}; the mean order averages {orders}."


def read_weights(frames: Frames) -> str:
    """What the first and the last order hold at the lowest and the highest n."""
    rows = records(frames, "task_orders")
    ends = sorted({int(row["n"]) for row in (rows[0], rows[-1])})
    orders = sorted({int(row["order"]) for row in rows})
    by = {(row["n"], row["order"]): row for row in rows}

    def words(n: int) -> str:
        parts = [f"{_ratio(by[n, order])} at order {order}" for order in dict.fromkeys((orders[0], orders[-1]))]
        return f"{' and '.join(parts)} for n = {n}"

    return f"In this run std[c] / std[f] averages {', against '.join(words(n) for n in ends)}."


def flags(frames: Frames) -> list[str]:
    """Tasks that were not learned, outputs that the disentanglers did not fit, and seeds too few for an interval."""
    found = []
    orders = records(frames, "task_orders")
    wild = sorted({int(row["n"]) for row in orders if row["variance_ratio_high"] > 1})
    if wild:
        top = max(float(row["std_ratio_high"]) for row in orders)
        found.append(
            f"At n = {', '.join(map(str, wild))} a component varies more than the learner's whole output (std[c] / std[f] up "
            f"to {number(top)}): the disentanglers were not trained long enough for an output of that size, and their order "
            "is no finding."
        )
    poor = [f"{row['n']} ({number(row['learner_r2'])})" for row in records(frames, "task_depths") if _poor(row)]
    if poor:
        found.append(
            f"At n = {', '.join(poor)} the learners explain on average less than half of their task's variance on test "
            "images, so these rows say little about how complex the task is."
        )
    seeds = frames["tasks"]["seed"].nunique()
    if seeds < FEW:
        found.append(f"There {'is one seed' if seeds == 1 else f'are {seeds} seeds'}; an interval takes {FEW} or more.")
    return found


def _poor(row: Row) -> bool:
    return not row["learner_r2"] >= HALF


def _ratio(row: Row) -> str:
    return with_interval(row, "std_ratio", number)


def _published_mean(n: int) -> float:
    """The mean order that the published ratios of Task-n give."""
    weight = {order: ratio**2 for order, ratio in PUBLISHED[n].items()}
    return sum(order * share for order, share in weight.items()) / sum(weight.values())


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−") if math.isfinite(value) else "–"


def _ends(found: RankCorrelation) -> str:
    return (
        f"[{_signed(found.low)}, {_signed(found.high)}]" if math.isfinite(found.low + found.high) else "[no interval]"
    )
