"""Stages that make variants of a target: each writes what stage `target` writes, and goes through the same sub-DAG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featcx_core.specs import DistilledSpec, Numerics, PrunedSpec, QuantisedSpec, ScheduleSpec
from featcx_core.store.artifacts import ArtifactRef
from tasks.engine import Work, stage

if TYPE_CHECKING:
    from torch import Tensor

    from featcx_core.data.images import Dataset
    from featcx_core.nets.targets import TargetNet


@stage("distilled", label="T={settings.temperature:g}")
def distilled(
    work: Work,
    *,
    data: ArtifactRef,
    target: ArtifactRef,
    teacher: ArtifactRef,
    settings: DistilledSpec,
    seed: int,
    schedule: ScheduleSpec,
    numerics: Numerics,
) -> dict[str, Any]:
    """A student from the target's initial weights, on its batches: with the target's seed only the loss differs."""
    from featcx_core.data.images import Augmented
    from featcx_core.nets.targets import TargetNet
    from featcx_core.nets.weights import read_network
    from featcx_core.seeds import seeded
    from featcx_core.training.distillation import train_student
    from featcx_core.training.teaching import save_target

    dataset, original, seen = _opened(work, data, target)
    with seeded(seed):
        student = TargetNet(**original.config)
    history = train_student(
        student,
        read_network(work.path(teacher), TargetNet, work.device),
        Augmented(dataset, seen, work.device),
        schedule,
        temperature=settings.temperature,
        mix=settings.mix,
        **work.training(seed, numerics),
    )
    return save_target(work.folder, student, dataset, seen, work.device, history._asdict())


@stage("pruned", label="{settings.sparsity:.0%}")
def pruned(
    work: Work, *, data: ArtifactRef, target: ArtifactRef, settings: PrunedSpec, seed: int, numerics: Numerics
) -> dict[str, Any]:
    """The target with its smallest weights at zero."""
    from featcx_core.data.images import Augmented
    from featcx_core.training.compression import prune
    from featcx_core.training.teaching import save_target

    dataset, net, seen = _opened(work, data, target)
    size = prune(
        net,
        Augmented(dataset, seen, work.device),
        settings.schedule,
        sparsity=settings.sparsity,
        rounds=settings.rounds,
        **work.training(seed, numerics),
    )
    return save_target(work.folder, net, dataset, seen, work.device, None, size=size._asdict())


@stage("quantised", label="{settings.bits} bits")
def quantised(
    work: Work, *, data: ArtifactRef, target: ArtifactRef, settings: QuantisedSpec, seed: int, numerics: Numerics
) -> dict[str, Any]:
    """The target with 2^bits different weights a layer at most."""
    from featcx_core.data.images import Augmented
    from featcx_core.training.compression import quantise
    from featcx_core.training.teaching import save_target

    dataset, net, seen = _opened(work, data, target)
    samples = Augmented(dataset, seen, work.device)
    size = quantise(net, samples, settings.schedule, bits=settings.bits, **work.training(seed, numerics))
    return save_target(work.folder, net, dataset, seen, work.device, None, size=size._asdict())


def _opened(work: Work, data: ArtifactRef, target: ArtifactRef) -> tuple[Dataset, TargetNet, Tensor]:
    """The data set, the original target and the images that it saw."""
    from featcx_core.data.images import Dataset
    from featcx_core.nets.targets import TargetNet
    from featcx_core.nets.weights import read_network

    seen = work.record(target).tensors["seen"]["seen"]
    return Dataset.load(work.path(data)), read_network(work.path(target), TargetNet), seen
