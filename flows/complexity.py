"""The flow `task-complexity`: does disentangling see how complex a task is? (Task-n, METHOD §7)"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import flow
from rich.table import Table

from featcx_core.seeds import derive_seed
from featcx_core.specs import Numerics, RunSpec
from featcx_core.store import Store
from flows.preflight import check, numerics_for
from flows.recipes import Node, Submit, bootstrap, data_set, disentangle, rows_seed, told
from flows.running import Submitter, new_env, nothing_left, settled, task_runner
from tasks import complexity as stages
from tasks.engine import Env
from tasks.frames import plain
from tasks.progress import counts

UNUSED = {"target", "exemplary", "reliability", "substitution", "variants", "pictures"}


def task_complexity(submit: Submit, spec: RunSpec, numerics: Numerics) -> Node:
    """The DAG: for each depth and seed a learner, its chain of disentanglers and the weights of orders; one report.

    Learners and chains of one seed start alike at every depth and see the same batches, so depths compare in pairs.
    """
    settings, data = spec.complexity, data_set(submit, spec)
    weights = []
    for depth in settings.depths:
        for task_seed in settings.seeds:
            own = spec.model_copy(update={"seed": derive_seed(spec.seed, "task", task_seed)})
            learner = submit(
                stages.task_learner,
                data=data,
                depth=depth,
                task_seed=task_seed,
                blocks=settings.blocks,
                width=spec.disentangler.width,
                weights_seed=derive_seed(own.seed, "weights", depth),
                seed=derive_seed(own.seed, "learner"),
                schedule=settings.schedule,
                numerics=numerics,
            )
            scope = f"n{depth} s{task_seed}"
            weights.append(
                submit(
                    stages.task_weights,
                    data=data,
                    learner=learner,
                    disentanglers=disentangle(submit, own, data, learner, numerics, scope),
                    depth=depth,
                    task_seed=task_seed,
                    rows=spec.components.rows,
                    rows_seed=rows_seed(spec),
                )
            )
    shown = told(spec, UNUSED)
    return submit(stages.complexity_report, weights=weights, spec=shown, **bootstrap(spec))


@flow(name="task-complexity", flow_run_name="{name}", validate_parameters=False)
def complexity_flow(spec: RunSpec, env: Env, name: str) -> dict[str, Any]:
    """Learns random tasks of known complexity, takes what was learned apart, reports the rank correlation with depth."""
    return run_complexity(spec, env)


def run_complexity(spec: RunSpec, env: Env) -> dict[str, Any]:
    """The body of the flow; its results in the form of `--json`."""
    began, submit = time.monotonic(), Submitter(env)
    report = task_complexity(submit, spec, numerics_for(spec))
    settled(submit.futures)
    folder = Store(env.store).path(report.result())
    found = json.loads((folder / "correlations.json").read_text())
    main = found["mean_order"]
    results = {
        "spec": spec.model_dump(mode="json"),
        "rank_correlation": plain(main["mean"]),
        "rank_correlation_ci": [plain(main["low"]), plain(main["high"])],
        "rank_correlation_pooled": plain(main["pooled"]),
        "learner_r2_rank_correlation": plain(found["learner_r2"]["mean"]),
        "seeds": list(spec.complexity.seeds),
        "tasks": task_rows(pd.read_parquet(folder / "tables" / "tasks.parquet")),
        "report": str(folder / "report.html"),
        "store": str(Store(env.store).root),
        "stages": counts(env.store, env.run),
        "seconds": round(time.monotonic() - began, 2),
    }
    if env.shown:
        from flows.showing import show_complexity

        show_complexity(complexity_name(spec), results)
    return results


def complexity_name(spec: RunSpec) -> str:
    """What runs: digits-5x5, depths by seeds."""
    return f"{spec.dataset.source.split(':')[0]}-{len(spec.complexity.depths)}x{len(spec.complexity.seeds)}"


def complexity(spec: RunSpec, store: Path, env: Env | None = None) -> dict[str, Any]:
    """Runs the flow on the Prefect API in force and gives the results in the form of `--json`.

    Raises:
        InputError: for a spec that cannot run here.
    """
    began = time.monotonic()
    check(spec, store)
    env = env or new_env(spec, store)
    with nothing_left(Store(env.store)):
        results = complexity_flow.with_options(task_runner=task_runner(spec))(spec, env, complexity_name(spec))
    return results | {"seconds": round(time.monotonic() - began, 2)}


def task_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """One object a task net, its orders within."""
    columns = ("order", "std_ratio", "variance_ratio", "residual", "published_std_ratio")
    rows = []
    for _, part in frame.groupby(["n", "seed"], sort=True):
        first = part.iloc[0]
        orders = [{name: plain(row[name]) for name in columns} for row in part.to_dict("records")]
        r2 = plain(first["learner_r2"])
        rows.append({"n": int(first["n"]), "seed": int(first["seed"]), "learner_r2": r2, "orders": orders})
    return rows


def tasks_table(results: dict[str, Any]) -> Table:
    """A row an n: std[c] / std[f] at each order and the learner's R², means over seeds."""
    tasks = results["tasks"]
    orders = [row["order"] for row in tasks[0]["orders"]]
    table = Table(title="std c / std f by complexity order, mean over seeds", title_justify="left")
    for heading in ("n", *(f"order {order}" for order in orders), "learner's R²"):
        table.add_column(heading, justify="right")
    for depth in dict.fromkeys(task["n"] for task in tasks):
        own = [task for task in tasks if task["n"] == depth]
        columns = [[task["orders"][i]["std_ratio"] for task in own] for i in range(len(orders))]
        table.add_row(str(depth), *(_mean(values) for values in [*columns, [task["learner_r2"] for task in own]]))
    return table


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


def _mean(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.3f}" if known else "–"
