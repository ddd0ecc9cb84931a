"""The stage that keeps what the report shows of components as pictures."""

from __future__ import annotations

from typing import Any

from featcx_core.store.artifacts import ArtifactRef
from tasks.engine import Work, stage


@stage("pictures", computes=False)
def pictures(work: Work, *, data: ArtifactRef, components: ArtifactRef, target: ArtifactRef) -> dict[str, Any]:
    """Maps of one channel for a few test images that the target gets right or wrong, and energy maps of classes."""
    from featcx_core.analysis.components import ComponentTable
    from featcx_core.analysis.pictures import make_pictures
    from featcx_core.data.images import Dataset
    from featcx_core.nets.targets import TargetNet
    from featcx_core.nets.weights import read_network

    head = read_network(work.path(target), TargetNet, work.device).head
    test = ComponentTable.open(work.path(components) / "test")
    found = make_pictures(Dataset.load(work.path(data)), test, head)
    found.save(work.folder)
    return {"channel": found.channel, "samples": list(found.samples)}
