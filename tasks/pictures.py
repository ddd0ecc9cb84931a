"""The stage that keeps what the report shows of components as pictures."""

from __future__ import annotations

from typing import Any

from featcx_core.store.artifacts import ArtifactRef
from tasks.engine import Work, stage


@stage("pictures", computes=False)
def pictures(work: Work, *, data: ArtifactRef, components: ArtifactRef, target: ArtifactRef) -> dict[str, Any]:
    """Images as the target gets them, maps of one channel for a few, right and wrong, and energy maps of classes."""
    from dataclasses import replace

    from featcx_core.analysis.components import ComponentTable
    from featcx_core.analysis.inputs import make_inputs
    from featcx_core.analysis.pictures import make_pictures
    from featcx_core.data.images import Dataset
    from featcx_core.nets.targets import TargetNet
    from featcx_core.nets.weights import read_network

    net, images = read_network(work.path(target), TargetNet, work.device), Dataset.load(work.path(data))
    test = ComponentTable.open(work.path(components) / "test")
    found = make_pictures(images, test, net.head)
    told = work.store.manifest(data)["metrics"].get("understood", [])
    replace(found, inputs=make_inputs(images, net.config["rescale"], told[1:])).save(work.folder)
    return {"channel": found.channel, "samples": list(found.samples)}
