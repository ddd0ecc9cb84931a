"""Exact Shapley values of 6 components of 64×8×8 behind ReLU → global mean → linear layer → cross-entropy, samples/s.

Baselines are used as fast as they go, on the same components in memory. captum: `ShapleyValues`, which walks all 720
orders; players are a 0/1 vector a sample (a feature mask over the components themselves is a hundred times slower), 64
samples at once, 6 coalitions an evaluation. shapiq: `ExactComputer`, a sample at a time, all 64 coalitions in one call of
the game. Ours takes a table as it is, losses of all coalitions and values included. The pass reads the table once
(a sum, the fastest reading operation of torch; 470 MB). Each timing begins behind such a pass: hosts take pages of virtual
machines back that lie idle while the other side computes. The last rows take a quarter of the samples from Parquet, 117 MB:
all losses against `readinto` of the same files alone, by one thread, from the page cache and without it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.harness import Row, compare, seconds
from featcx_core.analysis.components import ComponentTable, Forward, extract
from featcx_core.game.values import coalition_losses, shapley_values

PLAYERS, SHAPE, CLASSES, SAMPLES = 6, (64, 8, 8), 10, 4096
CAPTUM_SAMPLES, SHAPIQ_SAMPLES = 64, 256
Peer = Callable[[Tensor, Tensor, nn.Module], Tensor]


def rows(quick: bool = False) -> Iterator[Row]:
    """Each comparison on one thread and on all cores; quick: on all cores alone."""
    torch.manual_seed(0)
    head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(SHAPE[0], CLASSES)).eval()
    maps, labels = torch.randn(SAMPLES, PLAYERS + 1, *SHAPE), torch.randint(CLASSES, (SAMPLES,))
    table = ComponentTable.from_tensors(maps[:, :-1], maps[:, -1], labels)
    expected = shapley_values(coalition_losses(table, head))
    threads_before, cores = torch.get_num_threads(), len(os.sched_getaffinity(0))

    def timed(work: Callable[[], object], count: int = SAMPLES) -> float:
        maps.sum()
        return seconds(work, count)

    def ours() -> float:
        return timed(lambda: shapley_values(coalition_losses(table, head)))

    def by(peer: Peer, count: int) -> float:
        return timed(lambda: peer(maps[:count], labels[:count], head), count)

    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        stored = write_table(Path(folder))
        for peer, count in ((by_captum, CAPTUM_SAMPLES), (by_shapiq, SHAPIQ_SAMPLES)):
            found = peer(maps[:count], labels[:count], head)
            torch.testing.assert_close(found, expected[:count], rtol=1e-4, atol=1e-5)
        try:
            for threads in sorted({cores} if quick else {1, cores}):
                torch.set_num_threads(threads)
                on = f"{threads} thread{'s' * (threads > 1)}"
                yield compare(f"captum, {on}", partial(by, by_captum, CAPTUM_SAMPLES), ours, 5, 2500, "samples")
                yield compare(f"shapiq, {on}", partial(by, by_shapiq, SHAPIQ_SAMPLES), ours, 7, 60, "samples")
                yield compare(f"one pass, {on}", partial(timed, maps.sum), ours, 15, 0.35, "samples")
                on_file = partial(losses, stored, head)
                yield compare(f"reading the files, {on}", partial(read, Path(folder)), on_file, 15, 0.4, "samples")
                if threads == 1:
                    cold = (partial(read, Path(folder), cold=True), partial(losses, stored, head, cold=Path(folder)))
                    yield compare(f"reading the files from disk, {on}", *cold, 5, None, "samples")
        finally:
            torch.set_num_threads(threads_before)


def read(folder: Path, cold: bool = False) -> float:
    """Seconds a sample of reading a table's files into memory that is there already."""
    files = sorted(folder.glob("*.parquet"))
    into = bytearray(max(file.stat().st_size for file in files))

    def whole() -> None:
        for file in files:
            with file.open("rb", buffering=0) as source:
                source.readinto(into)

    if cold:
        forget(folder)
    return seconds(whole, SAMPLES // 4)


def losses(table: ComponentTable, head: nn.Module, cold: Path | None = None) -> float:
    """Seconds a sample of all losses of a table in files, reading included; from disk where `cold` is its folder."""
    if cold:
        forget(cold)
    return seconds(lambda: coalition_losses(table, head), len(table))


def forget(folder: Path) -> None:
    """Drops files from the page cache."""
    for file in folder.glob("*.parquet"):
        with file.open("rb") as source:
            os.fsync(source.fileno())
            os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def by_captum(maps: Tensor, labels: Tensor, head: nn.Module) -> Tensor:
    """φ (n, L), all n samples at once."""
    from captum.attr import ShapleyValues  # type: ignore[import-untyped]

    n, players = len(maps), maps.shape[1] - 1
    components, residual = maps[:, :-1].flatten(2), maps[:, -1].flatten(1)[:, None]

    def game(members: Tensor) -> Tensor:
        coalitions = members.view(-1, n, players).transpose(0, 1)
        features = torch.baddbmm(residual, coalitions, components).transpose(0, 1).reshape(-1, *maps.shape[2:])
        return -F.cross_entropy(head(features), labels.repeat(len(coalitions[0])), reduction="none")

    values = ShapleyValues(game).attribute(
        torch.ones(n, players), torch.zeros(n, players), perturbations_per_eval=players
    )
    return values.double()


def by_shapiq(maps: Tensor, labels: Tensor, head: nn.Module) -> Tensor:
    """φ (n, L), a sample at a time."""
    from shapiq.game_theory.exact import ExactComputer

    values = []
    for sample, label in zip(maps, labels, strict=True):
        components, residual = sample[:-1].flatten(1), sample[-1].flatten()

        def game(
            coalitions: np.ndarray, components: Tensor = components, residual: Tensor = residual, label: Tensor = label
        ) -> np.ndarray:
            members = torch.from_numpy(coalitions.astype(np.float32))
            features = torch.addmm(residual, members, components).view(-1, *maps.shape[2:])
            return -F.cross_entropy(head(features), label.expand(len(features)), reduction="none").double().numpy()

        values.append(ExactComputer(game, n_players=len(components))("SV", 1).get_n_order_values(1))
    return torch.from_numpy(np.stack(values))


def write_table(folder: Path) -> ComponentTable:
    """A table of the same size in Parquet, a quarter of the samples, written as the pipeline writes it."""
    torch.manual_seed(1)
    scales = torch.randn(PLAYERS + 1, SHAPE[0], 1, 1)
    nets: dict[int, Forward] = {3 * 2**i + 1: partial(_scaled, scales[i]) for i in range(PLAYERS)}
    images = torch.randint(0, 256, (SAMPLES // 4, 1, *SHAPE[1:]), dtype=torch.uint8)
    extract(
        partial(_scaled, scales[-1]),
        nets,
        images,
        torch.randint(CLASSES, (len(images),)),
        torch.arange(len(images)),
        folder,
        normalise=lambda x: x.float() / 128 - 1,
        device=torch.device("cpu"),
    )
    return ComponentTable.open(folder)


def _scaled(scale: Tensor, x: Tensor) -> Tensor:
    return torch.tanh(x * scale)
