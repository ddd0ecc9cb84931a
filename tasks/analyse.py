"""Stages that take a target's components apart."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from featcx_core.specs import AnalysisSpec, ComponentsSpec
from featcx_core.store.artifacts import ArtifactRef
from featcx_core.store.record import Record
from tasks.engine import Work, stage

if TYPE_CHECKING:
    from torch import Tensor

    from featcx_core.nets.disentangler import Disentangler

SPLITS = ("pool", "validation", "seen", "test")


@stage("components")
def components(
    work: Work,
    *,
    data: ArtifactRef,
    target: ArtifactRef,
    disentanglers: list[list[ArtifactRef]],
    settings: ComponentsSpec,
    seed: int,
    splits: tuple[str, ...] = SPLITS,
) -> dict[str, Any]:
    """The splits' components as Parquet, at most `settings.rows` images a split; Φ is the mean of the chains' nets."""
    from featcx_core.analysis.components import extract, sample_rows
    from featcx_core.data.images import Dataset
    from featcx_core.nets.disentangler import Ensemble
    from featcx_core.nets.targets import TargetNet
    from featcx_core.nets.weights import read_network

    dataset = Dataset.load(work.path(data))
    teacher = read_network(work.path(target), TargetNet, work.device)
    seen = work.record(target).tensors["seen"]["seen"]
    nets = [Ensemble(same) for same in zip(*_opened(work, disentanglers), strict=True)]
    chosen = {split: sample_rows(dataset.split(split, seen), settings.rows, seed) for split in splits}
    total, done, worst, counts = sum(len(rows[1]) for rows in chosen.values()), 0, 0.0, {}
    for split, (images, labels, samples) in chosen.items():
        error = extract(
            teacher.feature,
            {net.order: net for net in nets},
            images,
            labels,
            samples,
            work.folder / split,
            normalise=dataset.normalise,
            device=work.device,
            dtype=settings.dtype,
            part_rows=settings.part_rows,
            meta={
                "split": split,
                "target": target.digest,
                "disentanglers": [[r.digest for r in refs] for refs in disentanglers],
            },
            progress=lambda n, _, before=done: work.progress.count(before + n, total),  # type: ignore[misc]
        )
        worst, done, counts[split] = max(worst, error), done + len(labels), len(labels)
    return {"rows": counts, "rounding": worst, "shape": list(teacher.shape), "orders": [net.order for net in nets]}


def _opened(work: Work, chains: list[list[ArtifactRef]]) -> list[list[Disentangler]]:
    from featcx_core.nets.disentangler import Disentangler
    from featcx_core.nets.weights import read_network

    return [[read_network(work.path(ref), Disentangler, work.device) for ref in refs] for refs in chains]


@stage("chains")
def chains(
    work: Work,
    *,
    data: ArtifactRef,
    target: ArtifactRef,
    disentanglers: list[list[ArtifactRef]],
    continued: list[list[ArtifactRef]],
    rows: int | Literal["all"],
    rows_seed: int,
    settings: AnalysisSpec,
    seed: int,
) -> dict[str, Any]:
    """Second moments of all that the chains made of a feature, over the pool's rows: what they share, what depth adds.

    Args:
        target: a target, or a disentangler, whose output is then the feature (the null target).
        continued: of each chain the nets before the higher orders, trained on beside them; empty lists for none.
    """
    from featcx_core.analysis.chains import chain_moments
    from featcx_core.analysis.components import maps_at_once, sample_rows
    from featcx_core.data.images import Dataset, at_once
    from tasks.train import feature_of

    dataset = Dataset.load(work.path(data))
    feature, shape, _ = feature_of(work.path(target), work.device)
    nets, others = _opened(work, disentanglers), _opened(work, continued)
    images = sample_rows(dataset.split("pool"), rows, rows_seed)[0]
    few = maps_at_once(1 + sum(map(len, (*nets, *others))), shape)
    batches = (dataset.normalise(part.to(work.device)) for part in images.split(at_once(images.shape, few)))
    orders = [net.order for net in nets[0]]
    found = chain_moments(
        feature,
        nets,
        others if others[0] else (),
        orders,
        batches,
        len(images),
        bootstrap=settings.bootstrap,
        seed=seed,
        device=work.device,
    )
    found.record().save(work.folder)
    return {"orders": orders, "chains": len(nets)}


@stage("wide_control")
def wide_control(
    work: Work, *, chains: ArtifactRef, wide: ArtifactRef, width: int, settings: AnalysisSpec
) -> dict[str, Any]:
    """What a shallower chain of `width` channels leaves of the feature, held against the highest order of the chains."""
    from featcx_core.analysis import depth
    from featcx_core.analysis.chains import Chains
    from featcx_core.store.record import Record

    found, wider = (Chains.of(work.record(ref)) for ref in (chains, wide))
    Record({"wide_control": depth.wide_control(found, wider, width, settings.confidence)}).save(work.folder)
    return {"order": wider.orders[-1], "width": width}


@stage("significance")
def significance(
    work: Work,
    *,
    components: ArtifactRef,
    chains: ArtifactRef,
    nulls: list[ArtifactRef],
    draws: tuple[int, ...],
    settings: AnalysisSpec,
    seed: int,
) -> dict[str, Any]:
    """Significance, as published and what chains share of it, residuals and gains with intervals.

    `draws`: samples that the net of each order was trained on in a chain, warm starts counted in.
    """
    from featcx_core.analysis.chains import Chains
    from featcx_core.analysis.components import ComponentTable
    from featcx_core.analysis.significance import measure_significance

    tables = {split: ComponentTable.open(work.path(components) / split) for split in SPLITS}
    result = measure_significance(
        tables,
        bootstrap=settings.bootstrap,
        confidence=settings.confidence,
        seed=seed,
        device=work.device,
        chains=Chains.of(work.record(chains)),
        nulls=[Chains.of(work.record(null)) for null in nulls],
    )
    result = result._replace(orders=result.orders.assign(draws=draws))
    result.record().save(work.folder)
    return {"feature_variance": result.feature_variance}


@stage("spread")
def spread(
    work: Work,
    *,
    data: ArtifactRef,
    target: ArtifactRef,
    disentanglers: list[list[ArtifactRef]],
    exemplary: list[ArtifactRef] | None,
    ridges: tuple[float, ...],
    rows: int,
    rows_seed: int,
) -> dict[str, Any]:
    """How far effectiveness, over-fitting and decodability move with the chain: each chain's own, and the variance."""
    from featcx_core.analysis.components import ComponentTable, extract, sample_rows
    from featcx_core.data.images import Dataset
    from featcx_core.game.replicates import measure_chain, variance_over_chains
    from featcx_core.nets.targets import TargetNet
    from featcx_core.nets.weights import read_network

    dataset = Dataset.load(work.path(data))
    net = read_network(work.path(target), TargetNet, work.device)
    others = [read_network(work.path(ref), TargetNet, work.device).feature for ref in exemplary or ()]
    seen = work.record(target).tensors["seen"]["seen"]
    chosen = {split: sample_rows(dataset.split(split, seen), rows, rows_seed) for split in ("pool", "seen", "test")}
    found = []

    def images(split: str, samples: Tensor) -> Tensor:
        return dataset.normalise(dataset.read(split, samples).to(work.device))

    for chain in _opened(work, disentanglers):
        with tempfile.TemporaryDirectory(dir=work.folder) as place:  # of large features more than memory holds
            tables = {}
            for split, (part, labels, samples) in chosen.items():
                extract(
                    net.feature,
                    {own.order: own for own in chain},
                    part,
                    labels,
                    samples,
                    Path(place) / split,
                    normalise=dataset.normalise,
                    device=work.device,
                )
                tables[split] = ComponentTable.open(Path(place) / split)
            found.append(measure_chain(tables, net.head, others, images, ridges=ridges, device=work.device))
    moved = variance_over_chains([own.order for own in chain], found)
    Record(frames={"spread": moved}, numbers={"chains": len(found)}).save(work.folder)
    return {"chains": len(found), "rows": rows}


@stage("shapley", label="{split} {part}")
def shapley(work: Work, *, components: ArtifactRef, target: ArtifactRef, split: str, part: int) -> dict[str, Any]:
    """The loss of every coalition for the samples of one Parquet part; of more than 14 orders sampled Shapley values."""
    from featcx_core.analysis.components import ComponentTable
    from featcx_core.game.games import played
    from featcx_core.game.sampling import PERMUTATIONS
    from featcx_core.nets.targets import TargetNet
    from featcx_core.nets.weights import read_network

    table = ComponentTable.open(work.path(components) / split).parts[part]
    game = played(table, read_network(work.path(target), TargetNet, work.device).head, split, work.device)
    Record(tensors={"game": game}).save(work.folder)
    if "losses" not in game:
        return {"samples": len(game["values"]), "permutations": PERMUTATIONS}
    return {"samples": len(table), "coalitions": game["losses"].shape[1]}


@stage("effectiveness")
def effectiveness(
    work: Work,
    *,
    components: ArtifactRef,
    significance: ArtifactRef,
    seen: list[ArtifactRef],
    test: list[ArtifactRef],
    settings: AnalysisSpec,
    seed: int,
) -> dict[str, Any]:
    """Shapley values, effectiveness, over-fitting and interactions from the shards' losses.

    Of more than 14 orders the shards hold sampled values, which leave the table of interactions empty.
    """
    import torch

    from featcx_core.analysis.bootstrap import Covariance
    from featcx_core.analysis.components import ComponentTable
    from featcx_core.game.games import outcome

    def gather(shards: list[ArtifactRef]) -> dict[str, torch.Tensor]:
        parts = [work.record(ref).tensors["game"] for ref in shards]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    found = outcome(
        ComponentTable.open(work.path(components) / "seen").orders,
        gather(seen),
        gather(test),
        Covariance(**work.record(significance).tensors["moments"]),
        bootstrap=settings.bootstrap,
        confidence=settings.confidence,
        seed=seed,
    )
    found.record().save(work.folder)
    return found.ends


@stage("substitution")
def substitution(
    work: Work,
    *,
    components: ArtifactRef,
    target: ArtifactRef,
    settings: AnalysisSpec,
    seed: int,
) -> dict[str, Any]:
    """Accuracy of the head on Φ^(l), the order chosen on the validation split."""
    from featcx_core.analysis.components import ComponentTable
    from featcx_core.analysis.substitution import measure_substitution
    from featcx_core.nets.targets import TargetNet
    from featcx_core.nets.weights import read_network

    there = [split for split in ("validation", "seen", "test") if (work.path(components) / split).exists()]
    tables = {split: ComponentTable.open(work.path(components) / split) for split in there}
    head = read_network(work.path(target), TargetNet, work.device).head
    result = measure_substitution(
        tables, head, bootstrap=settings.bootstrap, confidence=settings.confidence, seed=seed, device=work.device
    )
    result.record().save(work.folder)
    return {"chosen_order": result.chosen_order}


@stage("images")
def images(
    work: Work,
    *,
    data: ArtifactRef,
    components: ArtifactRef,
    significance: ArtifactRef,
    substitution: ArtifactRef,
    settings: AnalysisSpec,
    seed: int,
) -> dict[str, Any]:
    """Of which orders each test image's feature is made, held against the loss; the simplest and most complex images."""
    from featcx_core.analysis.components import ComponentTable
    from featcx_core.analysis.images import measure_images, strip_of
    from featcx_core.data.images import Dataset
    from featcx_core.wording import readable, records

    dataset = Dataset.load(work.path(data))
    found = measure_images(
        ComponentTable.open(work.path(components) / "test"),
        work.record(substitution).tensors["predictions"]["test.losses"][:, 0],
        readable=[row["order"] for row in readable(records(work.record(significance).frames, "significance"))],
        bootstrap=settings.bootstrap,
        confidence=settings.confidence,
        seed=seed,
        device=work.device,
    )
    strip = strip_of(found.images, dataset.classes, lambda samples: dataset.read("test", samples))
    found.record(strip).save(work.folder)
    return {"images": len(found.images)}
