"""Stages of reliability: trunks, cycles of linear maps, and decodability."""

from __future__ import annotations

from typing import Any, Literal

from featcx_core.specs import AnalysisSpec, Numerics, ScheduleSpec
from featcx_core.store.artifacts import ArtifactRef
from featcx_core.store.record import Record
from tasks.engine import Work, stage


@stage("trunk", label="m{blocks}")
def trunk(
    work: Work,
    *,
    data: ArtifactRef,
    target: ArtifactRef,
    exemplary: list[ArtifactRef],
    previous: ArtifactRef | None,
    blocks: int,
    width: int,
    identity: bool,
    seed: int,
    schedule: ScheduleSpec,
    numerics: Numerics,
) -> dict[str, Any]:
    """ψ and g_k of one depth, which reproduce the target's and the exemplary nets' features together."""
    from featcx_core.data.images import Augmented, Dataset
    from featcx_core.nets.targets import TargetNet
    from featcx_core.nets.trunk import Trunk
    from featcx_core.nets.weights import read_network, save_network
    from featcx_core.seeds import seeded
    from featcx_core.training.teaching import train_trunk

    dataset = Dataset.load(work.path(data))
    nets = [read_network(work.path(ref), TargetNet, work.device) for ref in (target, *exemplary)]
    with seeded(seed):
        net = Trunk(blocks, dataset.shape, [n.shape for n in nets], width, nets[0].grid)
    if previous is not None:
        net.warm_start(read_network(work.path(previous), Trunk), identity=identity)
    samples, features = Augmented(dataset, dataset.pool, work.device), [n.feature for n in nets]
    history = train_trunk(net, features, samples, schedule, **work.training(seed, numerics))
    save_network(net, work.folder)
    return {"order": net.psi.order, "loss": history.loss[-1]}


@stage("cycle", label="m{blocks}")
def cycle(
    work: Work,
    *,
    data: ArtifactRef,
    trunk: ArtifactRef,
    previous: ArtifactRef | None,
    blocks: int,
    steps: int,
    rounds: int,
    rows: int | Literal["all"],
    rows_seed: int,
    seed: int,
) -> dict[str, Any]:
    """The maps back h_k, fitted on the second moment of ψ over the pool."""
    from featcx_core.analysis.components import sample_rows
    from featcx_core.analysis.reliability import fit_cycle, second_moment
    from featcx_core.data.images import Dataset, at_once
    from featcx_core.nets.trunk import Trunk
    from featcx_core.nets.weights import read_network

    dataset = Dataset.load(work.path(data))
    net = read_network(work.path(trunk), Trunk, work.device)
    images = sample_rows(dataset.split("pool"), rows, rows_seed)[0]
    batches = (dataset.normalise(part.to(work.device)) for part in images.split(at_once(images.shape)))
    moment = second_moment(net.psi, batches).cpu()
    work.leave_gpu()
    start = None
    if previous is not None:
        stored = work.record(previous).tensors["cycle"]
        start = [stored[f"h{k}"] for k in range(len(net.maps))]
    back = fit_cycle(
        moment.float(),
        [g.cpu() for g in net.matrices()],
        steps=steps,
        rounds=rounds,
        start=start,
        seed=seed,
        checkpoint=work.checkpoint(),
        on_step=work.progress.count,
    )
    maps = {f"h{k}": h for k, h in enumerate(back)}
    Record(tensors={"cycle": {"moment": moment} | maps}).save(work.folder)
    return {"channels": len(moment)}


@stage("reliability")
def reliability(
    work: Work,
    *,
    data: ArtifactRef,
    components: ArtifactRef,
    chains: ArtifactRef,
    trunks: list[list[ArtifactRef]],
    cycles: list[list[ArtifactRef]],
    rounds: int,
    settings: AnalysisSpec,
    seed: int,
) -> dict[str, Any]:
    """Reliable and unreliable parts of every order, read off trunks and cycles, chain by chain."""
    from featcx_core.analysis.chains import Chains
    from featcx_core.analysis.components import ComponentTable
    from featcx_core.analysis.reliability import measure_reliability
    from featcx_core.data.images import Dataset
    from featcx_core.nets.trunk import Trunk
    from featcx_core.nets.weights import read_network

    dataset = Dataset.load(work.path(data))
    nets = [[read_network(work.path(ref), Trunk, work.device) for ref in chain] for chain in trunks]
    stored = [[work.record(ref).tensors["cycle"] for ref in chain] for chain in cycles]
    count = len(nets[0][0].maps)
    back = [[[maps[f"h{k}"].to(work.device) for k in range(count)] for maps in chain] for chain in stored]
    result = measure_reliability(
        ComponentTable.open(work.path(components) / "pool"),
        nets,
        back,
        lambda samples: dataset.normalise(dataset.read("train", samples).to(work.device)),
        rounds=rounds,
        bootstrap=settings.bootstrap,
        confidence=settings.confidence,
        seed=seed,
        device=work.device,
        chains=Chains.of(work.record(chains)),
    )
    Record({"reliability": result.orders}, {"draws": result.draws}).save(work.folder)
    return {"orders": result.orders.order.tolist()}


@stage("decodability")
def decodability(
    work: Work,
    *,
    data: ArtifactRef,
    components: ArtifactRef,
    exemplary: list[ArtifactRef],
    settings: AnalysisSpec,
    ridges: tuple[float, ...],
    seed: int,
    floors: int,
    floor_seed: int,
) -> dict[str, Any]:
    """How much of each component linear maps read off the exemplary nets, and off untrained ones."""
    from featcx_core.analysis.components import ComponentTable
    from featcx_core.analysis.decodability import measure_decodability
    from featcx_core.data.images import Dataset
    from featcx_core.nets.targets import TargetNet
    from featcx_core.nets.weights import read_network
    from featcx_core.seeds import seeded

    dataset = Dataset.load(work.path(data))
    nets = [read_network(work.path(ref), TargetNet, work.device) for ref in exemplary]
    with seeded(floor_seed):
        untrained = [TargetNet(**nets[0].config).to(work.device).eval() for _ in range(floors)]
    pool, test = (ComponentTable.open(work.path(components) / split) for split in ("pool", "test"))
    result = measure_decodability(
        pool,
        test,
        [net.feature for net in nets],
        [net.feature for net in untrained],
        lambda split, samples: dataset.normalise(dataset.read(split, samples).to(work.device)),
        ridges=ridges,
        bootstrap=settings.bootstrap,
        confidence=settings.confidence,
        seed=seed,
        device=work.device,
    )
    Record({"decodability": result.orders}, {"draws": result.draws}).save(work.folder)
    return {"nets": len(nets)}
