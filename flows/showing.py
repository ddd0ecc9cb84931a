"""What each flow leaves in Prefect's UI: its results in the words and tables of the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from featcx_core.metrics import METRICS
from featcx_core.wording import mark
from tasks.ui import Row, show

Frames = dict[str, pd.DataFrame]


def report_frames(report: Path) -> Frames:
    """The tidy tables beside a report."""
    return {path.stem: pd.read_parquet(path) for path in sorted(report.parent.glob("tables/*.parquet"))}


def pictures_of(report: Path) -> list[Path]:
    """The figures of a report that belong to its main network, in the order in which it drew them."""
    own = [path for path in report.parent.glob("figures/*.png") if "-" not in path.stem]
    return sorted(own, key=lambda path: (path.stat().st_mtime_ns, path.name))


def source_of(spec: dict[str, Any]) -> str:
    """The data set's name, without the folder."""
    return str(spec["dataset"]["source"]).partition(":")[0]


def effort(results: dict[str, Any]) -> str:
    """How many stages ran, and how many were there."""
    stages = results["stages"]
    return f"{stages['run']} stages computed, {stages['cached']} Cached."


def overview(orders: list[Row]) -> list[Row]:
    """The columns of the terminal's table, what fits beside the text; a circle marks an order that is not resolved."""
    names = {"order": "order"} | {metric.name: metric.short for metric in METRICS if metric.short}
    return [
        {short: row[name] for name, short in names.items()} | {"order": f"{row['order']}{mark(row['resolved'])}"}
        for row in orders
    ]


def show_analysis(name: str, results: dict[str, Any]) -> None:
    """One analysed target: what its report says first, a table an order for it and for each variant."""
    from featcx_core.report.run import summary

    report, target = Path(results["report"]), results["target"]
    accuracies = f"Test accuracy {target['test_accuracy']:.1%}, train {target['train_accuracy']:.1%}."
    variants = {variant: found["orders"] for variant, found in results["variants"].items() if found}
    show(
        name,
        title=f"{name} on {source_of(results['spec'])}",
        sentences=[
            *summary(report_frames(report), results["chosen_order"], results["notes"]),
            f"{accuracies} {effort(results)}",
        ],
        overview=overview(results["orders"]),
        tables={"orders": results["orders"], **variants},
        report=report,
        pictures=pictures_of(report),
    )


def show_sweep(name: str, results: dict[str, Any]) -> None:
    """A sweep: what its report says first, a row a target, a row a (target, order)."""
    from featcx_core.report.sweep.readings import summary

    report, source = Path(results["report"]), source_of(results["spec"]["base"])
    sentences = summary(report_frames(report), results["failed"], source)
    failures = [f"**{point} failed.** {reason}" for point, reason in results["failed"].items()]
    targets = [target_row(point) for point in results["points"]]
    show(
        name,
        title=f"Sweep {name} on {source}",
        sentences=[*failures, *sentences, effort(results)],
        overview=targets,
        tables={
            "targets": targets,
            "orders": [{"target": point["name"], **row} for point in results["points"] for row in point["orders"]],
        },
        report=report,
        pictures=pictures_of(report),
    )


def target_row(point: dict[str, Any]) -> Row:
    """One target of a sweep: its accuracies, what is left unexplained, what substitution gains."""
    target, gain = point["target"], point["gain"]
    return {
        "target": point["name"],
        "train acc.": target["train_accuracy"],
        "test acc.": target["test_accuracy"],
        "residual": point["orders"][-1]["residual"],
        "chosen order": point["chosen_order"],
        "gain": gain["gain"],
        "interval": [gain["low"], gain["high"]],
    }


def show_complexity(name: str, results: dict[str, Any]) -> None:
    """The validity check: its rank correlation, a row a task."""
    from flows.showing import summary_sentence

    report = Path(results["report"])
    tasks: list[Row] = [
        {"n": task["n"], "seed": task["seed"], "learner_r2": task["learner_r2"]}
        | {f"order {row['order']}": row["std_ratio"] for row in task["orders"]}
        for task in results["tasks"]
    ]
    show(
        name,
        title=f"Task complexity on {source_of(results['spec'])}",
        sentences=[summary_sentence(results), "The table gives std c / std f at each order."],
        overview=tasks,
        tables={"tasks": tasks},
        report=report,
        pictures=pictures_of(report),
    )


def show_comparison(name: str, results: dict[str, Any]) -> None:
    """Two targets order by order: what changes, a row a (metric, order)."""
    figure = Path(results["figure"])
    show(
        name,
        title=f"{name}: B − A",
        sentences=[*results["readings"], effort(results)],
        tables={"differences": results["differences"]},
        report=figure,
        pictures=[figure],
    )


def summary_sentence(results: dict[str, Any]) -> str:
    """The rank correlations in one line."""
    low, high = results["rank_correlation_ci"]
    ends = "no interval" if low is None else f"{low:+.2f} to {high:+.2f}"
    main, learning = (results[name] for name in ("rank_correlation", "learner_r2_rank_correlation"))
    words = ["–" if value is None else f"{value:+.2f}" for value in (main, learning)]
    stages = results["stages"]
    return (
        f"Rank correlation of n with the mean order: {words[0]} ({ends}, {len(results['seeds'])} seeds); with the learners' "
        f"R²: {words[1]}. {stages['run']} stages computed, {stages['cached']} Cached, {results['seconds']:.0f} s."
    )
