"""The two sides of a comparison: a process for the baseline and one for featcx, on the same data and target."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from featcx_core.data.images import Augmented, Dataset, balanced_subset
from featcx_core.data.sources import load_dataset
from featcx_core.nets.targets import TargetNet
from featcx_core.nets.weights import read_network, save_network
from featcx_core.seeds import seeded
from featcx_core.specs import DatasetSpec, Numerics, ScheduleSpec
from featcx_core.training.teaching import train_target

Side = Callable[..., Any]
HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"  # as featcx's command line sets it, before torch allocates


class Scene(NamedTuple):
    """What is disentangled: a data set and the feature f of a target."""

    data: Dataset
    feature: nn.Module
    shape: tuple[int, int, int]


def source() -> str:
    """The data set: that of $FEATCX_BENCH_DATA, such as parquet:DIR, else MNIST, which is always there."""
    return os.environ.get("FEATCX_BENCH_DATA", "mnist")


def prepare(folder: str, net: str, draws: int = 0) -> None:
    """Writes the data set and a target to `folder`, trained on so many draws of 2,000 images; 0: left untrained."""
    data = load_dataset(DatasetSpec(source=source()))
    data.save(Path(folder))
    with seeded(0):
        target = TargetNet(net, data.shape, len(data.classes))
    if draws:
        seen = balanced_subset(data.train_labels, data.pool, 2000, seed=0)
        schedule = ScheduleSpec(draws=draws, batch=64, lr=3e-3, lr_end=1e-4)
        train_target(target, Augmented(data, seen, device()), schedule, numerics=Numerics(precision="bf16"))
    save_network(target, Path(folder))


def device() -> torch.device:
    """Where both sides compute: the first GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@functools.cache
def scene(folder: str) -> Scene:
    """What `prepare` wrote, once a process; the feature is on the device."""
    target = read_network(Path(folder), TargetNet, device())
    return Scene(Dataset.load(Path(folder)), target.feature, target.shape)


def _settle(ours: bool) -> None:
    from tasks.devices import settled_allocator

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    if ours:  # stages of featcx run within it
        settled_allocator().__enter__()


@contextlib.contextmanager
def sides() -> Iterator[tuple[Side, Side]]:
    """(baseline, ours): each calls a function in a process of its own and gives its result; both use all cores.

    The baseline runs in plain PyTorch; ours with the allocator and the huge pages that featcx's stages run with. They work
    in turns, never at once.
    """
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        calls = []
        for ours in (False, True):
            pool = stack.enter_context(ProcessPoolExecutor(1, context, _settle, (ours,)))
            with _environment({HUGE_PAGES: "1"} if ours else {}):
                pool.submit(os.getpid).result()
            calls.append(lambda function, *args, pool=pool: pool.submit(function, *args).result())
        yield calls[0], calls[1]


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {HUGE_PAGES: os.environ.pop(HUGE_PAGES, None)}
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.pop(HUGE_PAGES, None)
        os.environ.update({name: value for name, value in before.items() if value is not None})
