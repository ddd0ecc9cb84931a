"""Stages that take a target's components apart."""

from __future__ import annotations

import json
from typing import Any

from featcx_core.specs import AnalysisSpec, ComponentsSpec
from featcx_core.store.artifacts import ArtifactRef
from tasks.engine import Work, stage

SPLITS = ("pool", "validation", "seen", "test")


@stage("components")
def components(
    work: Work,
    *,
    data: ArtifactRef,
    target: ArtifactRef,
    disentanglers: list[ArtifactRef],
    settings: ComponentsSpec,
    seed: int,
    splits: tuple[str, ...] = SPLITS,
) -> dict[str, Any]:
    """The splits' components as Parquet, at most `settings.rows` images a split."""
    from safetensors.torch import load_file

    from featcx_core.analysis.components import extract, sample_rows
    from featcx_core.data.images import Dataset
    from featcx_core.nets.disentangler import Disentangler
    from featcx_core.nets.targets import TargetNet
    from featcx_core.nets.weights import read_network

    dataset = Dataset.load(work.path(data))
    teacher = read_network(work.path(target), TargetNet, work.device)
    seen = load_file(work.path(target) / "seen.safetensors")["seen"]
    nets = [read_network(work.path(ref), Disentangler, work.device) for ref in disentanglers]
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
            meta={"split": split, "target": target.digest, "disentanglers": [ref.digest for ref in disentanglers]},
            progress=lambda n, _, before=done: work.progress.count(before + n, total),  # type: ignore[misc]
        )
        worst, done, counts[split] = max(worst, error), done + len(labels), len(labels)
    return {"rows": counts, "rounding": worst, "shape": list(teacher.shape), "orders": [net.order for net in nets]}


@stage("significance")
def significance(work: Work, *, components: ArtifactRef, settings: AnalysisSpec, seed: int) -> dict[str, Any]:
    """Significance and residuals with intervals."""
    from safetensors.torch import save_file

    from featcx_core.analysis.components import ComponentTable
    from featcx_core.analysis.significance import measure_significance

    tables = {split: ComponentTable.open(work.path(components) / split) for split in SPLITS}
    result = measure_significance(
        tables, bootstrap=settings.bootstrap, confidence=settings.confidence, seed=seed, device=work.device
    )
    for name in ("orders", "splits", "covariance"):
        getattr(result, name).to_parquet(work.folder / f"{name}.parquet")
    save_file(result.moments._asdict(), work.folder / "moments.safetensors")
    save_file({name: t.contiguous() for name, t in result.draws.items()}, work.folder / "draws.safetensors")
    return {"feature_variance": result.feature_variance}


@stage("shapley", label="{split} {part}")
def shapley(work: Work, *, components: ArtifactRef, target: ArtifactRef, split: str, part: int) -> dict[str, Any]:
    """The loss of every coalition for the samples of one Parquet part; of more than 14 orders sampled Shapley values."""
    from safetensors.torch import save_file

    from featcx_core.analysis.components import ComponentTable
    from featcx_core.nets.targets import TargetNet
    from featcx_core.nets.weights import read_network
    from featcx_core.seeds import derive_seed
    from featcx_core.shapley.sampling import PERMUTATIONS, sampled_shapley_values
    from featcx_core.shapley.values import EXACT_PLAYERS, coalition_losses

    table = ComponentTable.open(work.path(components) / split).parts[part]
    head = read_network(work.path(target), TargetNet, work.device).head
    if len(table.orders) > EXACT_PLAYERS:
        sampled = sampled_shapley_values(table, head, seed=derive_seed(0, split), device=work.device)
        save_file(sampled._asdict(), work.folder / "sampled.safetensors")
        return {"samples": len(sampled.values), "permutations": PERMUTATIONS}
    losses = coalition_losses(table, head, device=work.device)
    save_file({"losses": losses}, work.folder / "losses.safetensors")
    return {"samples": len(losses), "coalitions": losses.shape[1]}


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
    from safetensors.torch import load_file, save_file

    from featcx_core.analysis.bootstrap import Covariance
    from featcx_core.analysis.components import ComponentTable
    from featcx_core.shapley.interactions import measure_interactions
    from featcx_core.shapley.sampling import sampling_errors
    from featcx_core.shapley.values import EXACT_PLAYERS, measure_effectiveness, shapley_values

    orders = ComponentTable.open(work.path(components) / "seen").orders
    exact = len(orders) <= EXACT_PLAYERS

    def gather(shards: list[ArtifactRef]) -> dict[str, torch.Tensor]:
        file = "losses.safetensors" if exact else "sampled.safetensors"
        parts = [load_file(work.path(ref) / file) for ref in shards]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    found = {"train": gather(seen), "test": gather(test)}
    values = {name: shapley_values(table["losses"]) if exact else table["values"] for name, table in found.items()}
    covariance = Covariance(**load_file(work.path(significance) / "moments.safetensors"))
    result = measure_effectiveness(
        orders, values["train"], values["test"], covariance, confidence=settings.confidence, seed=seed
    )
    if not exact:
        result = result._replace(
            orders=result.orders.assign(**sampling_errors(found["train"]["errors"], found["test"]["errors"]))
        )
    result.orders.to_parquet(work.folder / "orders.parquet")
    pairs = measure_interactions(
        orders,
        {"seen": found["train"]["losses"], "test": found["test"]["losses"]} if exact else {},
        draws=settings.bootstrap,
        confidence=settings.confidence,
        seed=seed,
    )
    pairs.to_parquet(work.folder / "interactions.parquet")
    save_file(values, work.folder / "values.safetensors")
    save_file({name: t.contiguous() for name, t in result.draws.items()}, work.folder / "draws.safetensors")
    ends = {}
    for name, table in found.items():
        empty, full = table["losses"].T[[0, -1]] if exact else (table["loss_empty"], table["loss_full"])
        ends[f"{name}_loss_empty"], ends[f"{name}_loss_full"] = (
            float(empty.double().mean()),
            float(full.double().mean()),
        )
    (work.folder / "losses.json").write_text(json.dumps(ends, indent=1), encoding="utf-8")
    return ends


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
    import pandas as pd
    from safetensors.torch import save_file

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
    result.orders.to_parquet(work.folder / "orders.parquet")
    result.splits.to_parquet(work.folder / "splits.parquet")
    pd.DataFrame([result.gain]).to_parquet(work.folder / "gain.parquet")
    answers = {f"{split}.{name}": t for split, p in result.predictions.items() for name, t in p._asdict().items()}
    save_file(answers, work.folder / "predictions.safetensors")
    (work.folder / "chosen.json").write_text(
        json.dumps({"chosen_order": result.chosen_order, "gain": result.gain._asdict()}), encoding="utf-8"
    )
    return {"chosen_order": result.chosen_order}
