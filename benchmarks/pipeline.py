"""Extraction against bare forward passes, memory against the number of samples, a cached run against an empty flow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from benchmarks.harness import Row, number
from benchmarks.sides import Scene, prepare, scene, sides, source
from featcx_core.analysis.components import ComponentTable, Forward, extract
from featcx_core.game.values import coalition_losses, shapley_values
from featcx_core.nets.disentangler import Disentangler
from featcx_core.seeds import seeded

IMAGES, BATCH = 1024, 128  # `extract`'s own batch
EMPTY = """
from prefect import flow, task

@task
def nothing(): ...

@flow
def empty():
    for future in [nothing.submit() for _ in range({tasks})]:
        future.result()

empty()
"""


def _nets(place: Scene) -> dict[int, Forward]:
    with seeded(0):
        nets = [Disentangler(blocks, place.data.shape, place.shape, 32).eval() for blocks in (1, 2, 4, 8)]
    return {net.order: net.to(memory_format=torch.channels_last) for net in nets}


@torch.no_grad()
def bare_forward(folder: str) -> float:
    """Seconds an image of f and every Φ on the batches that `extract` takes, in its float32."""
    place = scene(folder)
    nets = _nets(place)
    began = time.perf_counter()
    for part in place.data.train_images[:IMAGES].split(BATCH):
        x = place.data.normalise(part)
        place.feature(x)
        for net in nets.values():
            net(x)
    return (time.perf_counter() - began) / IMAGES


def extraction(folder: str) -> float:
    """Seconds an image until the components lie in Parquet."""
    place = scene(folder)
    nets = _nets(place)
    with tempfile.TemporaryDirectory() as out:
        began = time.perf_counter()
        extract(
            place.feature,
            nets,
            place.data.train_images[:IMAGES],
            place.data.train_labels[:IMAGES],
            torch.arange(IMAGES),
            Path(out),
            normalise=place.data.normalise,
            device=torch.device("cpu"),
        )
        return (time.perf_counter() - began) / IMAGES


def peak_memory(samples: int) -> float:
    """MiB that a process needs at most to extract so many of 50,000 images in memory and to play their games.

    Nets are tiny and images noise, so that what is seen is what grows with the samples.
    """
    from tasks.devices import settled_allocator

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (50_000, 3, 16, 16), dtype=torch.uint8, generator=rng)[:samples]
    labels = torch.randint(10, (samples,), generator=rng)
    nets = {3 * m + 1: Disentangler(m, (3, 16, 16), (16, 4, 4), 4).eval() for m in (1, 2, 3, 4, 5, 6)}
    head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)).eval()
    feature = Disentangler(2, (3, 16, 16), (16, 4, 4), 4).eval()
    with settled_allocator(), tempfile.TemporaryDirectory() as folder:
        extract(
            feature,
            dict(nets),
            images,
            labels,
            torch.arange(samples),
            Path(folder),
            normalise=lambda part: part.float() / 255,
            device=torch.device("cpu"),
        )
        parts = ComponentTable.open(folder).parts
        losses = torch.cat([coalition_losses(part, head) for part in parts])
        shapley_values(losses)
    # Not ru_maxrss: a process that was forked inherits its parent's.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


@dataclass
class Memory:
    """A row of peaks of memory in MiB: of few samples, and of ten times as many."""

    few: list[float]
    many: list[float]

    def __str__(self) -> str:
        """As a row of times; the ratio is that of the peaks, at most 1.1."""
        ratios = sorted(b / a for a, b in zip(self.few, self.many, strict=True))
        middle = [number(sorted(peaks)[len(peaks) // 2]) for peaks in (self.few, self.many)]
        ratio = f"{ratios[len(ratios) // 2]:.3f} ({ratios[0]:.3f}–{ratios[-1]:.3f})"
        name = "peak memory of extraction and Shapley values, 5,000 against 50,000 samples of 50,000 in memory"
        return f"| {name} | {middle[0]} MiB | {middle[1]} MiB | {ratio} | at most 1.1 | {len(ratios)} |"


def _process(*command: str, **environment: str) -> tuple[float, str]:
    """(seconds, standard output) of a process from start to end."""
    began = time.perf_counter()
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    return time.perf_counter() - began, done.stdout


def _memory(samples: int) -> float:
    code = f"from benchmarks.pipeline import peak_memory; print(peak_memory({samples}))"
    return float(_process(sys.executable, "-c", code)[1].split()[-1])


def _cached_rows(repeats: int, preset: str = "digits") -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        featcx = [
            sys.executable,
            "-c",
            "from flows.cli import main; main()",
            "run",
            preset,
            "--store",
            f"{folder}/store",
        ]
        home = {"PREFECT_HOME": str(folder / "home"), "PREFECT_LOGGING_LEVEL": "ERROR"}
        home |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "TMPDIR": name}
        _process(*featcx, "--json", f"{folder}/first.json", **home)
        tasks = sum(json.loads((folder / "first.json").read_text())["stages"].values())
        (folder / "empty.py").write_text(EMPTY.format(tasks=tasks))
        empty = [sys.executable, str(folder / "empty.py")]
        _process(*empty, **home)  # makes its server's database, which later ones find
        pairs = [(_process(*empty, **home)[0], _process(*featcx, **home)[0]) for _ in range(repeats)]
    what = f"`featcx run {preset}` again, all {tasks} stages Cached, against an empty Prefect flow of as many tasks"
    yield Row(what, [slow for slow, _ in pairs], [fast for _, fast in pairs], "runs", 1 / 1.5)


def rows(quick: bool = False) -> Iterator[Row | Memory]:
    """Extraction, memory, a cached run."""
    repeats = 2 if quick else 5
    with sides() as (_, ours), tempfile.TemporaryDirectory() as folder:
        ours(prepare, folder, "resnet8")
        ours(extraction, folder)
        pairs = [(ours(bare_forward, folder), ours(extraction, folder)) for _ in range(repeats)]
    name = f"extraction of 4 orders to Parquet against bare forward passes, κ = 1/4, float32, {source().split(':')[0]}"
    yield Row(name, [slow for slow, _ in pairs], [fast for _, fast in pairs], "images", 1 / 1.15)
    peaks = [(_memory(5_000), _memory(50_000)) for _ in range(1 if quick else 3)]
    yield Memory([few for few, _ in peaks], [many for _, many in peaks])
    yield from _cached_rows(1 if quick else 5)
