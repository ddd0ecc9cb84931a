"""A finished run of the command line or the UI, or a stored analysis, as a notebook's `Analysis`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featcx_core.analysis.components import ComponentTable
from featcx_core.analysis.pictures import Pictures
from featcx_core.errors import InputError
from featcx_core.nets.disentangler import Disentangler, Ensemble
from featcx_core.nets.weights import read_network
from featcx_core.notebook.analysis import Analysis
from featcx_core.report.frames import read_frames
from featcx_core.store.artifacts import ArtifactRef, Store, references
from featcx_core.store.record import Record
from featcx_core.store.trust import as_written

OPENED = ("report", "analysis")


@as_written("The run")
def open_run(store: str | Path, key: str | None = None) -> Analysis:
    """The target of a finished run, or what `analyze` left in a store; a run's variants lie in its report.

    Args:
        store: the folder of artifacts.
        key: of the run's report or of the analysis, or how it begins; None for the latest.

    Raises:
        InputError: when there is no such run, or something that it needs was pruned.

    >>> import torch, featcx_core as fx
    >>> try:
    ...     run = fx.open_run("artifacts-of-nobody")
    ... except fx.InputError as error:
    ...     print(str(error).partition(" in ")[0])
    There is no finished run
    """
    place = Store(store)
    found = [place.resolve(key)] if key else [m for m in place.manifests() if m["stage"] in OPENED]
    if not found or found[-1]["stage"] not in OPENED:
        raise InputError(
            f"There is no finished run in {place.root}{f' at {key}' if key else ''}; see `featcx artifacts list`."
        )
    last, told = found[-1], found[-1]["spec"]
    if last["stage"] == "analysis":
        nodes, settings, title = last["lineage"]["network"], told["settings"], told["title"]
    else:
        nodes, settings = last["lineage"]["networks"]["target"], told["spec"]
        target = settings["target"]
        title = f"{target['net']} on {settings['dataset']['source']}, n = {target['samples']}"
    refs = {stage: None if node is None else ArtifactRef(**node) for stage, node in nodes.items()}
    analysis = read_analysis(place, refs, settings=settings, notes=told["notes"], title=title)
    return analysis.without_seen(told["unseen"]) if told.get("unseen") else analysis


def read_analysis(
    place: Store,
    refs: Mapping[str, ArtifactRef | None],
    *,
    settings: dict[str, Any],
    notes: dict[str, str],
    title: str,
) -> Analysis:
    """One analysed network, from its artifacts by stage.

    Raises:
        InputError: when one of them was pruned.
    """
    folders = {stage: place.path(ref) for stage, ref in refs.items() if ref is not None}
    lost = [stage for stage, folder in folders.items() if not folder.is_dir()]
    if lost:
        raise InputError(
            f"The run's {lost[0]} is no longer in {place.root}; run it again, what is there is not computed anew."
        )
    components = refs["components"]
    assert components is not None
    told = {stage: Record.load(folders[stage]).numbers for stage in ("target", "significance", "substitution")}
    chain = references(place.manifest(components)["lineage"]["disentanglers"])
    nets = [read_network(place.path(ref), Disentangler) for ref in chain]
    orders = sorted({net.order for net in nets})  # of several chains Φ is the mean
    return Analysis(
        frames=read_frames(refs, place.path),
        components={
            path.name: ComponentTable.open(path) for path in sorted(folders["components"].iterdir()) if path.is_dir()
        },
        disentanglers={order: Ensemble([net for net in nets if net.order == order]) for order in orders},
        scores=told["target"]["scores"] | told["significance"],
        chosen_order=told["substitution"]["chosen_order"],
        notes=notes,
        settings=settings,
        title=title,
        pictures=Pictures.load(folders["pictures"]),
        provenance=place.lineage([ref for ref in refs.values() if ref is not None]),
    )
