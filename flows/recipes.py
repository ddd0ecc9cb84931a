"""The DAG as recipes: which stage takes what from which. Read this to know what a run does."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

from featcx_core.seeds import derive_seed
from featcx_core.sources import source_files, split_sizes
from featcx_core.specs import Numerics, RunSpec, ScheduleSpec
from featcx_core.store import FileRef
from tasks import analyse, train
from tasks.engine import Stage

Node = Any  # a future of an ArtifactRef, or what else stands for one


class Submit(Protocol):
    """Puts a stage into the DAG; the flow hands it to Prefect, the planner only looks at it."""

    def __call__(self, stage: Stage, scope: str = "", **arguments: Any) -> Node: ...


class Analysed(NamedTuple):
    """The artifacts of one analysed target, by what they are."""

    target: Node
    disentanglers: list[Node]
    components: Node
    significance: Node
    effectiveness: Node
    substitution: Node


def data_set(submit: Submit, spec: RunSpec) -> Node:
    """The data stage. A user's own folder enters the key by the bytes of its files."""
    kind, _, folder = spec.dataset.source.partition(":")
    files = source_files(spec.dataset)
    own = FileRef.of(folder, files) if files else None
    return submit(train.data, settings=spec.dataset.model_copy(update={"source": kind}), files=own)


def target_net(submit: Submit, spec: RunSpec, data: Node, numerics: Numerics) -> Node:
    """The net whose feature is analysed, trained on its own samples."""
    target = spec.target
    return submit(
        train.target, data=data, net=target.net, layer=target.layer, pre_relu=target.pre_relu, options=target.options,
        weights=_weights(target.checkpoint), samples=target.samples, subset_seed=derive_seed(spec.seed, "subset"),
        seed=derive_seed(spec.seed, "target"), schedule=target.schedule, numerics=numerics,
    )  # fmt: skip


def disentangle(submit: Submit, spec: RunSpec, data: Node, target: Node, numerics: Numerics, scope: str) -> list[Node]:
    """The chain of disentanglers, each depth warm-started from the one before."""
    settings, chain = spec.disentangler, []
    for i, blocks in enumerate(settings.blocks):
        chain.append(
            submit(
                train.disentangler, scope, data=data, target=target, previous=chain[-1] if chain else None, blocks=blocks,
                width=settings.width, identity=settings.protocol == "fast",
                seed=derive_seed(spec.seed, "disentangler", blocks),
                schedule=with_batch(settings.schedule, settings.batches, i), numerics=numerics,
            )
        )  # fmt: skip
    return chain


def analyse_target(
    submit: Submit, spec: RunSpec, data: Node, target: Node, numerics: Numerics, scope: str = ""
) -> Analysed:
    """The sub-DAG that every network goes through: disentangle, extract, then fan out the analyses."""
    chain = disentangle(submit, spec, data, target, numerics, scope)
    components = submit(
        analyse.components, scope, data=data, target=target, disentanglers=chain, settings=spec.components,
        seed=derive_seed(spec.dataset.split_seed, "rows"),
    )  # fmt: skip
    seed = derive_seed(spec.seed, "bootstrap")
    significance = submit(analyse.significance, scope, components=components, settings=spec.analysis, seed=seed)
    shards = {
        split: [
            submit(analyse.shapley, scope, components=components, target=target, split=split, part=part)
            for part in range(parts(spec, split))
        ]
        for split in ("seen", "test")
    }
    effectiveness = submit(
        analyse.effectiveness, scope, components=components, significance=significance, **shards,
        settings=spec.analysis, seed=seed,
    )  # fmt: skip
    substitution = submit(analyse.substitution, scope, components=components, target=target)
    return Analysed(target, chain, components, significance, effectiveness, substitution)


def parts(spec: RunSpec, split: str) -> int:
    """Parquet parts of a split, known before anything is computed."""
    rows = split_sizes(spec.dataset, spec.target.samples)[split]
    if spec.components.rows is not None:
        rows = min(rows, spec.components.rows)
    return math.ceil(rows / spec.components.part_rows)


def with_batch(schedule: ScheduleSpec, batches: tuple[int, ...] | None, depth: int) -> ScheduleSpec:
    """The schedule at one depth of a chain."""
    return schedule if batches is None else schedule.model_copy(update={"batch": batches[depth]})


def _weights(path: str | None) -> FileRef | None:
    from pathlib import Path

    return FileRef.of(path, [Path(path)]) if path else None
