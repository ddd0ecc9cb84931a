"""A row of a benchmark is a ratio: two ways of doing the same, timed in turn in one process on one machine."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "benchmarks.md"
HEADER = "| what | baseline | ours | ratio: median (min–max) | at least | n |\n| --- | --- | --- | --- | --- | --- |"


class Row(NamedTuple):
    """One comparison; times in seconds a unit, the ratio is baseline/ours in each repetition."""

    name: str
    baseline: list[float]
    ours: list[float]
    unit: str = "unit"
    target: float | None = None

    @property
    def ratios(self) -> list[float]:
        return [slow / fast for slow, fast in zip(self.baseline, self.ours, strict=True)]

    def __str__(self) -> str:
        rates = [f"{number(1 / statistics.median(times))} {self.unit}/s" for times in (self.baseline, self.ours)]
        ratios = self.ratios
        ratio = f"{number(statistics.median(ratios))} ({number(min(ratios))}–{number(max(ratios))})"
        goal = "" if self.target is None else number(self.target)
        return f"| {self.name} | {rates[0]} | {rates[1]} | {ratio} | {goal} | {len(ratios)} |"


def number(value: float) -> str:
    """Three digits, thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def seconds(work: Callable[[], object], units: int = 1) -> float:
    """Wall-clock seconds a unit of one call that does `units` of them; what a GPU has in hand is waited for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / units


def compare(
    name: str,
    baseline: Callable[[], float],
    ours: Callable[[], float],
    repeats: int = 5,
    target: float | None = None,
    unit: str = "unit",
) -> Row:
    """Baseline and ours in turn, `repeats` times; both give seconds a unit. Each runs once beforehand, untimed."""
    baseline(), ours()
    pairs = [(baseline(), ours()) for _ in range(repeats)]
    return Row(name, [pair[0] for pair in pairs], [pair[1] for pair in pairs], unit, target)


def machine() -> str:
    """Date, processor, cores that may be used, GPU if any, and torch's version."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    today = datetime.date.today().isoformat()
    return f"{today}: {_processor()}, {cores} core{'s' * (cores != 1)}{gpu}, torch {torch.__version__}"


def _processor() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text()
        model = next(line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name"))
        return model + (" with AVX-512" if "avx512f" in info else "")
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
