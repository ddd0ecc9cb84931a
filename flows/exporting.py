"""From a stored run to the improved network in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import torch

from featcx_core.data.images import Dataset
from featcx_core.errors import InputError
from featcx_core.nets.disentangler import Disentangler, Ensemble
from featcx_core.nets.improved import export_network, improved_net
from featcx_core.nets.targets import TargetNet
from featcx_core.nets.weights import read_network
from featcx_core.store.artifacts import ArtifactRef, Store
from featcx_core.store.record import Record
from featcx_core.store.trust import as_written


@as_written("The run")
def export_improved(store: Path, key: str, out: Path) -> tuple[int, float, str | None]:
    """Writes the network to `out`: its order, its accuracy on all test images, and why there is no model.pt2, if so.

    Raises:
        InputError: when the key is not a report's or a substitution's, or `out` holds something already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not empty; give a folder that does not exist.")
    place = Store(store)
    manifest = place.resolve(key)
    if manifest["stage"] == "report":
        manifest = place.manifest(ArtifactRef(**manifest["lineage"]["networks"]["target"]["substitution"]))
    if manifest["stage"] != "substitution":
        raise InputError(f"'{key}' is a {manifest['stage']}; give the key of a report or a substitution.")
    folder = place.root / manifest["stage"] / manifest["key"]
    order = Record.load(folder).numbers["chosen_order"]
    parts = place.manifest(ArtifactRef(**manifest["lineage"]["components"]))["lineage"]
    chains = [
        [read_network(place.path(ArtifactRef(**ref)), Disentangler) for ref in chain]
        for chain in parts["disentanglers"]
    ]
    nets = [Ensemble(same) for same in zip(*chains, strict=True)]
    data = Dataset.load(place.path(ArtifactRef(**parts["data"])))
    target = read_network(place.path(ArtifactRef(**parts["target"])), TargetNet)
    net = improved_net(next(n for n in nets if n.order == order), target, data)
    out.mkdir(parents=True, exist_ok=True)
    missing = export_network(net, out)
    return order, accuracy(net, data), missing


@torch.no_grad()
def accuracy(net: torch.nn.Module, data: Dataset) -> float:
    """Share of the test images that a net of uint8 images gets right."""
    right = [
        (net(x).argmax(1) == y).sum()
        for x, y in zip(data.split("test")[0].split(250), data.test_labels.split(250), strict=True)
    ]
    return int(sum(right)) / len(data.test_labels)
