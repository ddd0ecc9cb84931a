"""The flow `task-complexity`: does disentangling see how complex a task is? (Task-n, METHOD §7)"""

from __future__ import annotations

from typing import Any

import pandas as pd

from featcx_core.report.frames import plain
from featcx_core.seeds import Seeds
from featcx_core.specs import Numerics, RunSpec
from featcx_core.store.artifacts import Store
from featcx_core.store.record import Record
from flows.job import Job
from flows.recipes import Node, Submit, bootstrap, data_set, disentangle, told
from flows.running.preflight import check, numerics_for
from flows.running.submitting import settled, submitter
from flows.showing import show_complexity
from tasks.complexity import complexity_report, task_learner, task_weights
from tasks.env import Env, opened

UNUSED = {"target", "exemplary", "reliability", "substitution", "variants", "pictures"}


def task_complexity(submit: Submit, spec: RunSpec, numerics: Numerics) -> Node:
    """The DAG: for each depth and seed a learner, its chain of disentanglers and the weights of orders; one report.

    Learners and chains of one seed start alike at every depth and see the same batches, so depths compare in pairs.
    """
    settings, data = spec.complexity, data_set(submit, spec)
    weights = []
    for depth in settings.depths:
        for task_seed in settings.seeds:
            own = spec.model_copy(update={"seed": Seeds(spec).task(task_seed)})
            learner = submit(
                task_learner,
                data=data,
                depth=depth,
                task_seed=task_seed,
                blocks=settings.blocks,
                width=spec.disentangler.width,
                weights_seed=Seeds(own).weights(depth),
                seed=Seeds(own).learner,
                schedule=settings.schedule,
                numerics=numerics,
            )
            scope = f"n{depth} s{task_seed}"
            weights.append(
                submit(
                    task_weights,
                    data=data,
                    learner=learner,
                    disentanglers=disentangle(submit, own, data, learner, numerics, scope).nets,
                    depth=depth,
                    task_seed=task_seed,
                    rows=spec.components.rows,
                    rows_seed=Seeds(spec).rows,
                )
            )
    shown = told(spec, UNUSED)
    return submit(complexity_report, weights=weights, spec=shown, **bootstrap(spec))


def run_complexity(spec: RunSpec, env: Env) -> dict[str, Any]:
    """The body of the flow: learns random tasks of known complexity, takes what was learned apart, correlates."""
    submit = submitter(env)
    report = stages(submit, spec)
    settled(submit.futures)
    folder = opened(env).path(report.result())
    found = Record.load(folder).numbers
    main = found["mean_order"]
    return {
        "spec": spec.model_dump(mode="json"),
        "rank_correlation": plain(main["mean"]),
        "rank_correlation_ci": [plain(main["low"]), plain(main["high"])],
        "rank_correlation_pooled": plain(main["pooled"]),
        "learner_r2_rank_correlation": plain(found["learner_r2"]["mean"]),
        "seeds": list(spec.complexity.seeds),
        "tasks": task_rows(pd.read_parquet(folder / "tables" / "tasks.parquet")),
        "report": str(folder / "report.html"),
        "store": str(Store(env.store).root),
        "stages": submit.counts(),
    }


def stages(submit: Submit, spec: RunSpec) -> Node:
    """The DAG on this device."""
    return task_complexity(submit, spec, numerics_for(spec))


def complexity_name(spec: RunSpec) -> str:
    """What runs: digits-5x5, depths by seeds."""
    return f"{spec.dataset.source.split(':')[0]}-{len(spec.complexity.depths)}x{len(spec.complexity.seeds)}"


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


complexity: Job[RunSpec] = Job("task-complexity", complexity_name, check, stages, run_complexity, show_complexity)
