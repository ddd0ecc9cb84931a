"""Stages that make data and networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featcx_core.specs import DatasetSpec, Layout, Numerics, Preprocess, ScheduleSpec
from featcx_core.store.artifacts import ArtifactRef, FileRef
from featcx_core.store.record import Record
from tasks.engine import Work, stage

if TYPE_CHECKING:
    import torch
    from torch import nn


@stage("data", label="{settings.source}", computes=False)
def data(work: Work, *, settings: DatasetSpec, files: FileRef | None) -> dict[str, Any]:
    """Decoded images and their splits. A source of the user's own is named by its kind; `files` says where it lies."""
    from featcx_core.data.sources import load_dataset, understood

    where = settings.model_copy(update={"source": f"{settings.source}:{files.path}"}) if files else settings
    loaded = load_dataset(where, work.progress.count, work.folder)
    return {
        "understood": understood(where),
        "classes": len(loaded.classes),
        "shape": list(loaded.shape),
        "pool": len(loaded.pool),
        "validation": len(loaded.validation),
        "test": len(loaded.test_labels),
    }


@stage("target", label="{net} n={samples}")
def target(
    work: Work,
    *,
    data: ArtifactRef,
    net: str,
    layer: str | None,
    pre_relu: bool | None,
    layout: Layout | None,
    options: dict[str, Any],
    preprocess: Preprocess,
    allow_chance: bool,
    weights: FileRef | None,
    code: dict[str, str] | None,
    samples: int | None,
    subset_seed: int,
    seed: int,
    schedule: ScheduleSpec,
    numerics: Numerics,
) -> dict[str, Any]:
    """A target or exemplary net, trained on `samples` images of the pool (None: all of it), or read from `weights`.

    `code` is the user's module behind a net of their own; its digest is written beside the weights, so that what is made
    from the net depends on it too.
    """
    from featcx_core.data.images import Augmented, Dataset, balanced_subset
    from featcx_core.nets.named import brings_weights, own_statistics
    from featcx_core.nets.targets import TargetNet
    from featcx_core.nets.weights import load_weights
    from featcx_core.seeds import seeded
    from featcx_core.training.brought import check_brought, rescaling
    from featcx_core.training.teaching import save_target, train_target

    dataset = Dataset.load(work.path(data))
    seen = (
        dataset.pool if samples is None else balanced_subset(dataset.train_labels, dataset.pool, samples, subset_seed)
    )
    brought = weights is not None or brings_weights(net, options)
    statistics = own_statistics(net, options, len(dataset.mean)) if brought else None
    rescale = rescaling(preprocess, dataset, statistics)
    with seeded(seed):
        model = TargetNet(net, dataset.shape, len(dataset.classes), layer, pre_relu, options, layout, rescale)
    history, own = None, dict[str, Any]({"code": code} if code else {})
    if weights is not None:
        load_weights(model.model, Path(weights.path))
    if brought:
        own["chance"] = check_brought(model, dataset, options, work.device, allow_chance)._asdict()
    else:
        images = Augmented(dataset, seen, work.device)
        history = train_target(model, images, schedule, **work.training(seed, numerics))
    return save_target(work.folder, model, dataset, seen, work.device, history, **own)


@stage("disentangler", label="m{blocks}")
def disentangler(
    work: Work,
    *,
    data: ArtifactRef,
    target: ArtifactRef,
    previous: ArtifactRef | None,
    blocks: int,
    width: int,
    identity: bool,
    seed: int,
    schedule: ScheduleSpec,
    numerics: Numerics,
    images: str = "pool",
) -> dict[str, Any]:
    """Φ of one depth, warm-started from the previous one; on the pool, or as a control on the target's own images."""
    from featcx_core.data.images import Augmented, Dataset
    from featcx_core.nets.disentangler import Disentangler
    from featcx_core.nets.weights import read_network, save_network
    from featcx_core.training.teaching import taught_disentangler

    dataset = Dataset.load(work.path(data))
    feature, shape, grid = feature_of(work.path(target), work.device)
    own = work.record(target).tensors["seen"]["seen"] if images == "seen" else dataset.pool
    net, history = taught_disentangler(
        blocks,
        Augmented(dataset, own, work.device),
        feature,
        shape,
        schedule,
        previous=None if previous is None else read_network(work.path(previous), Disentangler),
        width=width,
        identity=identity,
        grid=grid,
        **work.training(seed, numerics),
    )
    save_network(net, work.folder)
    Record(numbers=history._asdict()).save(work.folder)
    return {"order": net.order, "loss": history.loss[-1]}


def feature_of(folder: Path, device: torch.device) -> tuple[nn.Module, tuple[int, int, int], tuple[int, int] | None]:
    """Of the net in a folder the feature, its shape and its tokens' grid.

    Of a target it is what its layer gives, of a disentangler its output (Task-n, and null targets).
    """
    from featcx_core.nets.disentangler import Disentangler
    from featcx_core.nets.targets import TargetNet
    from featcx_core.nets.weights import read_network

    if json.loads((folder / "network.json").read_text(encoding="utf-8"))["kind"] == Disentangler.__name__:
        learner = read_network(folder, Disentangler, device)
        return learner, learner.out_shape, learner.grid
    target = read_network(folder, TargetNet, device)
    return target.feature, target.shape, target.grid
