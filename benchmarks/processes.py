"""Two processes on two cores against one process on one core: Shapley shards, and a sweep of small targets."""

from __future__ import annotations

import functools
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch import nn

from benchmarks.harness import Row
from featcx_core.analysis.components import ComponentTable
from featcx_core.game.values import coalition_losses

SHARD, SHARDS = 4096, 8
SWEEP = ("digits", "--sizes", "100,200,500", "--seeds", "0,1", "--runner", "processes", "--device", "cpu")


def _settle(core: int) -> None:
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)


@functools.cache
def _shard() -> tuple[ComponentTable, nn.Module]:
    rng = torch.Generator().manual_seed(0)
    maps, labels = torch.randn(SHARD, 7, 64, 8, 8, generator=rng), torch.randint(10, (SHARD,), generator=rng)
    head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)).eval()
    return ComponentTable.from_tensors(maps[:, :6], maps[:, 6], labels), head


def shards(count: int) -> None:
    """The losses of so many shards of 4,096 samples, L = 6, 64×8×8, on one thread."""
    for _ in range(count):
        coalition_losses(*_shard())


def shapley_seconds(pools: list[ProcessPoolExecutor]) -> float:
    """Seconds a sample of all shards, shared among the processes."""
    began = time.perf_counter()
    for done in [pool.submit(shards, SHARDS // len(pools)) for pool in pools]:
        done.result()
    return (time.perf_counter() - began) / (SHARD * SHARDS)


def sweep_seconds(cores: set[int]) -> float:
    """Seconds of a whole `featcx sweep` of six small targets into a fresh store, its start and its reports included."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "flows.cli", "sweep", *SWEEP, "--store", str(Path(folder) / "store")]
        began = time.perf_counter()
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, cores)
        )
        return time.perf_counter() - began


def rows(quick: bool = False) -> Iterator[Row]:
    """Two rows; nothing on a machine of one core."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        return
    context = multiprocessing.get_context("spawn")
    pools = [ProcessPoolExecutor(1, context, _settle, (core,)) for core in cores]
    for pool in pools:
        pool.submit(shards, 1).result()
    pairs = [(shapley_seconds(pools[:1]), shapley_seconds(pools)) for _ in range(3 if quick else 7)]
    for pool in pools:
        pool.shutdown()
    name = "two processes on two cores against one on one core"
    yield Row(f"{name}: Shapley, {SHARDS} shards", *map(list, zip(*pairs, strict=True)), "samples", 1.8)
    pairs = [(sweep_seconds({cores[0]}), sweep_seconds(set(cores))) for _ in range(1 if quick else 3)]
    yield Row(f"{name}: `featcx sweep {' '.join(SWEEP)}`", *map(list, zip(*pairs, strict=True)), "sweeps", 1.8)
