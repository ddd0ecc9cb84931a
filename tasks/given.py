"""Stages for what somebody has in hand: a network and images in memory take the place of those that a run reads."""

from __future__ import annotations

from typing import Any

from featcx_core.specs import Layout, Preprocess
from featcx_core.store.artifacts import ArtifactRef
from featcx_core.store.held import held
from featcx_core.store.record import Record
from tasks.engine import Work, stage


@stage("given_data", computes=False)
def given_data(work: Work, *, images: str) -> dict[str, Any]:
    """The data set in hand, found by its content's digest, with its splits."""
    from featcx_core.data.images import Dataset

    data: Dataset = held(images).data
    data.save(work.folder)
    return {"classes": len(data.classes), "shape": list(data.shape), "pool": len(data.pool)}


@stage("given_target", label="{layer}")
def given_target(
    work: Work,
    *,
    data: ArtifactRef,
    images: str,
    net: str,
    layer: str,
    pre_relu: bool,
    layout: Layout | None,
    preprocess: Preprocess,
) -> dict[str, Any]:
    """A network in hand, as a target's artifact. Where nobody knows what it was trained on, the pool stands in for that."""
    from featcx_core.data.images import Dataset
    from featcx_core.nets.targets import GIVEN, TargetNet
    from featcx_core.seeds import seeded
    from featcx_core.training.brought import rescaling
    from featcx_core.training.teaching import save_target

    dataset, seen = Dataset.load(work.path(data)), held(images).seen
    rescale = rescaling(preprocess, dataset)
    with seeded(0):
        model = TargetNet(f"{GIVEN}:{net}", dataset.shape, len(dataset.classes), layer, pre_relu, None, layout, rescale)
    model.model.load_state_dict(held(net).state_dict())
    return save_target(work.folder, model, dataset, dataset.pool if seen is None else seen, work.device, None)


@stage("analysis", label="{title}", computes=False)
def analysis(
    work: Work,
    *,
    network: dict[str, ArtifactRef | None],
    settings: dict[str, Any],
    notes: dict[str, str],
    title: str,
    unseen: str | None,
) -> dict[str, Any]:
    """All that was found of a network in hand, under one key: its manifest says which artifacts, and `open_run` opens it.

    `unseen`: why it is not known which images the network was trained on; None where it is.
    """
    Record(numbers={"title": title}).save(work.folder)
    return {}
