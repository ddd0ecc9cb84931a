"""Where the truth is known: what the protocol calls complex of nets whose order is given, and how often it errs.

    python -m benchmarks.known_truth table|same|twice|difference [--first 0] [--trials 40] [--out FILE]

`table`: targets that are nets of order 4, 7 and 13: raw and cross-seed significance, gain over the shallower net trained
on, and what is called resolved. `same`: one target taken apart twice with other seeds, and what the comparison calls
different. `twice`: an order trained twice and presented as two. `difference`: an order-4 net against the same with a share
of its variance given to an order-7 net. One thread; seconds a trial. A trial's rows are added to FILE as it ends, so that
trials can be run in portions; what is printed is of all that FILE holds.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from featcx_core.analysis.chains import Chains, chain_moments, components, cross_seed
from featcx_core.analysis.comparison import Measured, compare_networks
from featcx_core.analysis.components import ComponentTable, decompose
from featcx_core.analysis.decodability import measure_decodability
from featcx_core.analysis.depth import chain_frame
from featcx_core.analysis.significance import measure_significance
from featcx_core.data.images import Augmented, Dataset, Shape, balanced_subset
from featcx_core.data.sources import load_dataset
from featcx_core.game.replicates import measure_chain, variance_over_chains
from featcx_core.game.values import coalition_losses, measure_effectiveness, shapley_values
from featcx_core.nets.disentangler import Disentangler, Ensemble
from featcx_core.nets.targets import TargetNet
from featcx_core.seeds import derive_seed, generator, seeded
from featcx_core.specs import DatasetSpec, ScheduleSpec
from featcx_core.training.teaching import train_disentangler, train_target

SHAPE = (16, 4, 4)
FAST = ScheduleSpec(lr=2e-2, lr_end=2e-5, shape="trapezoid", optimiser="muon", batch=32)


class Protocol(NamedTuple):
    """Two chains at half the draws each, and the shallower nets trained on beside them."""

    blocks: tuple[int, ...] = (1, 2, 4)
    draws: tuple[int, ...] = (6000, 5000, 3000)
    width: int = 8
    chains: int = 2
    nulls: int = 2


def known_net(blocks: int, data: Dataset, seed: int, width: int = 4) -> nn.Module:
    """A random net of order 3·blocks + 1, its BatchNorms settled on the pool, so that every ReLU cuts in the middle."""
    with seeded(seed):
        net = Disentangler(blocks, data.shape, SHAPE, width)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.bias, 0, 0.3)
                module.momentum = None
    with torch.no_grad():
        net.train()(Augmented(data, data.pool).plain(torch.arange(len(data.pool))))
    return net.eval()


def train_chains(
    feature: nn.Module,
    data: Dataset,
    protocol: Protocol,
    seed: int,
    presented: Sequence[int] | None = None,
    shape: Shape = SHAPE,
) -> tuple[list[list[Disentangler]], list[list[Disentangler]]]:
    """(chains, continued nets), as the recipe trains them.

    Args:
        presented: blocks that are really trained in place of `protocol.blocks`, to present an order as another.
    """
    samples, real = Augmented(data, data.pool), presented or protocol.blocks
    chains, continued = [], []
    for k in range(protocol.chains):
        chain: list[Disentangler] = []
        beside = []
        for i, blocks in enumerate(real):
            schedule = FAST.model_copy(update={"draws": protocol.draws[i] // protocol.chains})
            own = derive_seed(seed, "disentangler", i, k)

            def trained(blocks=blocks, schedule=schedule, own=own, chain=chain) -> Disentangler:
                with seeded(own):
                    net = Disentangler(blocks, data.shape, shape, protocol.width)
                if chain:
                    net.warm_start(chain[-1], identity=True)
                train_disentangler(net, feature, samples, schedule, seed=own)
                return net

            if chain:
                other = derive_seed(own, "continued") if presented else own
                beside.append(trained(blocks=real[i - 1], own=other))
            chain.append(trained())
        chains.append(chain)
        continued.append(beside)
    return chains, continued


def measured(
    feature: nn.Module, data: Dataset, protocol: Protocol, seed: int, presented=None
) -> tuple[Chains, list[Disentangler]]:
    """The chains' moments on 400 images of the pool, and each chain's net of the lowest order, a null target."""
    chains, continued = train_chains(feature, data, protocol, seed, presented)
    images = Augmented(data, data.pool).plain(torch.randperm(len(data.pool), generator=generator(0))[:400])
    orders = [3 * m + 1 for m in protocol.blocks]
    found = chain_moments(feature, chains, continued, orders, images.split(100), len(images), bootstrap=300, seed=0)
    return found, [chain[0] for chain in chains]


def judged(feature: nn.Module, data: Dataset, protocol: Protocol, seed: int, presented=None) -> pd.DataFrame:
    """A row an order, the null targets' floor included."""
    found, lowest = measured(feature, data, protocol, seed, presented)
    nulls = [
        measured(net, data, protocol, derive_seed(seed, "null", k), presented)[0]
        for k, net in enumerate(lowest[: protocol.nulls])
    ]
    frame = chain_frame(found, nulls, 0.95)
    mean = torch.stack([components(found.phi(k)) for k in range(found.chains)]).mean(0)
    frame["significance"] = (found.moments.variance(mean)[0] / found.moments.variance(found.feature)[0]).numpy()
    return frame


def compared(
    target: TargetNet, other: TargetNet, data: Dataset, seen: Tensor, protocol: Protocol, seed: int
) -> Measured:
    """All metrics of one target taken apart, with their spread over chains, as the comparison takes them."""
    chains, _ = train_chains(target.feature, data, protocol, seed, shape=target.shape)
    chosen = {split: tuple(part[:300] for part in data.split(split, seen)) for split in ("pool", "seen", "test")}
    images = {split: data.normalise(part[0]) for split, part in chosen.items()}
    mean = [Ensemble(same) for same in zip(*chains, strict=True)]

    def tables(nets: Sequence[nn.Module]) -> dict[str, ComponentTable]:
        phi = {net.order: net for net in nets}
        return {split: decompose(target.feature, phi, x, chosen[split][1]) for split, x in images.items()}

    whole, settings = tables(mean), {"confidence": 0.95, "seed": 0}
    moments = chain_moments(
        target.feature, chains, (), [n.order for n in mean], [images["pool"]], 300, bootstrap=300, seed=0
    )
    found = measure_significance(whole, bootstrap=300, chains=moments, **settings)
    values = {split: shapley_values(coalition_losses(whole[split], target.head)) for split in ("seen", "test")}
    effective = measure_effectiveness(whole["pool"].orders, values["seen"], values["test"], found.moments, **settings)
    decodable = measure_decodability(
        whole["pool"], whole["test"], [other.feature], (), lambda split, samples: images[split][samples],
        ridges=(1e-4, 1e-2, 1.0), bootstrap=300, **settings,
    )  # fmt: skip
    each = [
        measure_chain(
            tables(c), target.head, [other.feature], lambda s, rows: images[s][rows], ridges=(1e-4, 1e-2, 1.0)
        )
        for c in chains
    ]
    moved = variance_over_chains([n.order for n in mean], each)
    spread = {str(metric): rows.variance.to_numpy() for metric, rows in moved.groupby("metric")}
    values = {"cross_seed": found.orders.cross_seed} | {
        m: effective.orders[m] for m in ("effectiveness", "overfitting")
    }
    share = decodable.orders[decodable.orders.quantity == "component"].decodability
    return Measured(
        whole["pool"].orders,
        {name: value.to_numpy() for name, value in (values | {"decodability": share}).items()},
        found.draws | effective.draws | decodable.draws,
        spread | {"cross_seed": found.orders.cross_seed_variance.to_numpy()},
        protocol.chains,
    )


def same(data: Dataset, protocol: Protocol, trial: int) -> pd.DataFrame:
    """One target taken apart twice: a row a (metric, order), as `featcx compare` gives it; a target for ten trials."""
    target, other, seen = trained_targets(data, trial // 10 * 10)
    a, b = (compared(target, other, data, seen, protocol, derive_seed(trial, side)) for side in "ab")
    return compare_networks(a, {"again": b}, 0.95)


@functools.cache
def trained_targets(data: Dataset, seed: int) -> tuple[TargetNet, TargetNet, Tensor]:
    """A ResNet-8 on 200 images, another on the whole pool, and those 200."""
    seen, nets = balanced_subset(data.train_labels, data.pool, 200, seed), []
    for own, images in (("target", seen), ("other", data.pool)):
        with seeded(derive_seed(seed, own)):
            net = TargetNet("resnet8", data.shape, len(data.classes))
        train_target(
            net, Augmented(data, images), ScheduleSpec(draws=12_000, batch=64, lr=3e-3, lr_end=1e-4), seed=seed
        )
        nets.append(net)
    return nets[0], nets[1], seen


def difference(data: Dataset, protocol: Protocol, trial: int, share: float) -> pd.DataFrame:
    """An order-4 net against the same with a share of its variance given to an order-7 net: what is found at order 7."""
    plain, deep = known_net(1, data, trial), known_net(2, data, derive_seed(trial, "deep"))
    found = []
    for part, side in ((0.0, "a"), (share, "b")):
        mixed = Mixed(plain, deep, part, Augmented(data, data.pool).plain(torch.arange(400)))
        moments, _ = measured(mixed, data, protocol, derive_seed(trial, side))
        frame = chain_frame(moments, [], 0.95)
        found.append(
            Measured(moments.orders, {"cross_seed": frame.cross_seed.to_numpy()},
                     {"cross_seed": torch.from_numpy(cross_seed(moments).draws)},
                     {"cross_seed": frame.cross_seed_variance.to_numpy()}, protocol.chains)
        )  # fmt: skip
    return compare_networks(found[0], {"deeper": found[1]}, 0.95).assign(share=share)


class Mixed(nn.Module):
    """√(1 − s)·f + √s·g of two nets of unit variance."""

    def __init__(self, first: nn.Module, second: nn.Module, share: float, images: Tensor) -> None:
        super().__init__()
        self.nets, self.parts = nn.ModuleList([first, second]), ((1 - share) ** 0.5, share**0.5)
        with torch.no_grad():
            self.scales = [float(net(images).var(0).mean().sqrt()) for net in self.nets]

    def forward(self, x: Tensor) -> Tensor:
        return sum(p / s * net(x) for p, s, net in zip(self.parts, self.scales, self.nets, strict=True))


def trials(what: str, data: Dataset, protocol: Protocol, numbers: range, share: float) -> Iterator[pd.DataFrame]:
    """The rows of each trial."""
    short = protocol._replace(blocks=(1, 2), draws=protocol.draws[:2])
    for trial in numbers:
        if what == "same":
            yield same(data, protocol, trial).assign(trial=trial)
        elif what == "difference":
            yield difference(data, protocol, trial, share).assign(trial=trial)
        elif what == "twice":
            yield judged(known_net(2, data, trial), data, short, trial, (1, 1)).assign(trial=trial, truth=4)
        else:
            for blocks in protocol.blocks:
                frame = judged(known_net(blocks, data, trial), data, protocol, trial)
                yield frame.assign(trial=trial, truth=3 * blocks + 1)


def counted(what: str, rows: pd.DataFrame) -> str:
    """What the trials show: means and their spread over trials, and how often something was called."""
    if what in ("same", "difference"):
        called = rows.assign(called=rows.p_holm < 0.05, nominal=rows.p < 0.05)
        by = ["share", "order"] if what == "difference" else ["metric", "order"]
        return called.groupby(by)[["original", "value", "called", "nominal"]].mean().round(4).to_string()
    columns = ["residual", "significance", "cross_seed", "null", "gain", "gained_share", "null_gained_share"]
    own = rows.groupby(["truth", "order"])
    parts = [own[columns].mean(), own[columns].std(), own.resolved.value_counts().unstack(fill_value=0)]
    return "\n".join(part.round(4).to_string() for part in parts)


def main() -> None:
    """Runs some trials of one of the four and prints what was counted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["table", "same", "twice", "difference"])
    parser.add_argument("--first", type=int, default=0, help="number of the first trial, which is its seed")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--draws", type=float, default=1.0, help="times the protocol's draws")
    parser.add_argument("--share", type=float, default=0.2, help="of the variance, in `difference`")
    parser.add_argument("--out", type=Path, help="a CSV file to which all rows are added")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data, protocol, parts = load_dataset(DatasetSpec(source="digits")), Protocol(), list[pd.DataFrame]()
    protocol = protocol._replace(draws=tuple(int(args.draws * draws) for draws in protocol.draws))
    began, numbers = time.monotonic(), range(args.first, args.first + args.trials)
    for frame in trials(args.what, data, protocol, numbers, args.share):
        parts.append(frame)
        print(f"trial {frame.trial.iloc[0]}: {time.monotonic() - began:.0f} s", flush=True)
        if args.out:
            frame.to_csv(args.out, mode="a", header=not args.out.exists(), index=False)
    print(counted(args.what, pd.read_csv(args.out) if args.out else pd.concat(parts)))


if __name__ == "__main__":
    main()
