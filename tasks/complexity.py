"""Stages of Task-n: a net that learns a random task net's output, what each order holds of it, and the report on all."""

from __future__ import annotations

from typing import Any, Literal

from featcx_core.specs import AnalysisSpec, Numerics, ScheduleSpec
from featcx_core.store.artifacts import ArtifactRef
from featcx_core.store.record import Record
from tasks.engine import Work, stage


@stage("task_learner", label="n{depth} s{task_seed}")
def task_learner(
    work: Work,
    *,
    data: ArtifactRef,
    depth: int,
    task_seed: int,
    blocks: int,
    width: int,
    weights_seed: int,
    seed: int,
    schedule: ScheduleSpec,
    numerics: Numerics,
) -> dict[str, Any]:
    """A net of the disentangler's shape that has learned the task of a random net with `depth` ReLU layers."""
    from featcx_core.analysis.tasknet import TaskNet, measure_learner
    from featcx_core.data.images import Augmented, Dataset, at_once
    from featcx_core.nets.disentangler import Disentangler
    from featcx_core.nets.weights import save_network
    from featcx_core.seeds import seeded
    from featcx_core.training.teaching import train_disentangler

    dataset = Dataset.load(work.path(data))
    test = dataset.split("test")[0]
    with seeded(weights_seed):
        task = TaskNet(depth, dataset.shape[0])
    save_network(task, work.folder / "task")
    task = task.to(work.device).eval()
    batches = (dataset.normalise(part.to(work.device)) for part in test.split(at_once(test.shape)))
    channels, height, breadth = task(dataset.normalise(test[:1].to(work.device))).shape[1:]
    with seeded(seed):
        learner = Disentangler(blocks, dataset.shape, (channels, height, breadth), width)
    samples = Augmented(dataset, dataset.pool, work.device)
    history = train_disentangler(learner, task, samples, schedule, **work.training(seed, numerics))
    save_network(learner, work.folder)
    scores = measure_learner(task, learner, batches, len(test), work.device)._asdict()
    Record(numbers={"scores": scores, "history": history._asdict()}).save(work.folder)
    return scores


@stage("task_weights", label="n{depth} s{task_seed}")
def task_weights(
    work: Work,
    *,
    data: ArtifactRef,
    learner: ArtifactRef,
    disentanglers: list[list[ArtifactRef]],
    depth: int,
    task_seed: int,
    rows: int | Literal["all"],
    rows_seed: int,
) -> dict[str, Any]:
    """A table of what each order holds of the learner's output over the pool, with the learner's R² beside it."""
    from featcx_core.analysis.components import sample_rows
    from featcx_core.analysis.tasknet import measure_weights
    from featcx_core.data.images import Dataset, at_once
    from featcx_core.nets.disentangler import Disentangler, Ensemble
    from featcx_core.nets.weights import read_network

    dataset = Dataset.load(work.path(data))
    net, *nets = (
        read_network(work.path(ref), Disentangler, work.device)
        for ref in (learner, *(ref for chain in disentanglers for ref in chain))
    )
    players = len(disentanglers[0])
    chain = [Ensemble(nets[i::players]) for i in range(players)]
    images = sample_rows(dataset.split("pool"), rows, rows_seed)[0]
    batches = (dataset.normalise(part.to(work.device)) for part in images.split(at_once(images.shape)))
    frame = measure_weights(net, {phi.order: phi for phi in chain}, batches, len(images), work.device)
    frame.insert(0, "n", depth)
    frame.insert(1, "seed", task_seed)
    frame["learner_r2"] = work.record(learner).numbers["scores"]["r2"]
    Record({"tasks": frame}).save(work.folder)
    return {"orders": frame["order"].tolist(), "std_ratio": frame["std_ratio"].tolist()}


@stage("complexity_report", computes=False)
def complexity_report(
    work: Work, *, weights: list[ArtifactRef], settings: AnalysisSpec, seed: int, spec: dict[str, Any]
) -> dict[str, Any]:
    """The table over all (n, seed, order), the rank correlation, figures and page.

    The page tells times and devices, so it is no part of the artifact's digest.
    """
    from featcx_core.report.complexity.page import correlations, frames_of, write_complexity_report

    frames = frames_of([work.record(ref).frames["tasks"] for ref in weights])
    found = correlations(frames["tasks"], settings, seed)
    write_complexity_report(work.folder, frames, found, spec=spec, provenance=work.store.lineage(weights))
    Record(numbers={name: result._asdict() for name, result in found.items()}).save(work.folder)
    return {"rank_correlation": found["mean_order"].mean, "volatile": ["report.html"]}
