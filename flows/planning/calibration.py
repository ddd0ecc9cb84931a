"""How fast this device works: a few real training steps timed, kept per device, and what follows for all others.

The time of a step is taken as a sum of three terms, kernels × a, bytes written × b and FLOPs × c, whose rates are fitted to
what was timed. A step that was timed itself takes what it took; another one takes what the nearest timed one took, times
the ratio of the two sums. A CPU is timed by the seconds that the thread had of it, so other programs do not count: what
follows is said of a quiet machine.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from featcx_core.store.keys import digest
from flows.planning.cost import Count, Step, count_step, parameters
from flows.planning.loads import Work, counted
from flows.planning.timing import busy_cores, products_rate, slowdown, steps_taken, using_threads

# Seconds a kernel, bytes a second and FLOPs a second of which calibration starts, and an assumed device's time a kernel.
USUAL = {
    ("cpu", "fp32"): (12e-6, 4e9, 60e9),
    ("cpu", "bf16"): (12e-6, 4e9, 150e9),
    ("cuda", "fp32"): (9e-6, 1e12, 20e12),
    ("cuda", "bf16"): (9e-6, 1e12, 150e12),
}
PRODUCTS = {"cpu": 80e9, "cuda": 30e12}  # FLOPs a second of large float32 products before they are timed
LAUNCH = 5e-6  # seconds a kernel takes to launch on a GPU; a step cannot be faster, however fast the device
LARGE = 20_000_000  # weights of a net from which on building it takes longer than timing it
EACH, IN_ALL = 0.2, 1.5  # seconds of timing: a step, a calibration


class Timed(NamedTuple):
    """What was timed: of which kind, its count, seconds."""

    kind: str
    flops: float
    traffic: float
    kernels: float
    seconds: float


@dataclass
class Rates:
    """The speed of one device.

    Attributes:
        device: its name for the reader.
        kind: cpu or cuda.
        threads: CPU threads of each stage.
        timed: step → what it took.
        met: steps that a calibration was asked for; a second one leaves them as they are.
        products: FLOPs a second of large float32 products, None until timed.
        beside: how many times longer a step takes beside another one on the next core, None until timed.
        assumed: FLOPs a second taken for granted in place of all this.
        path: where it is kept.
    """

    device: str
    kind: str
    threads: int
    timed: dict[str, Timed] = field(default_factory=dict)
    met: set[str] = field(default_factory=set)
    products: float | None = None
    beside: float | None = None
    assumed: float | None = None
    path: Path | None = None

    @staticmethod
    def stored(device: str, threads: int) -> Rates:
        """What is known of a device, 'cpu' or 'cuda:N', as this code runs on it; empty where nothing is."""
        import torch

        from featcx_core.kernels import user_cache
        from featcx_core.store.code import code_version

        kind = device.split(":")[0]
        name = torch.cuda.get_device_name(device) if kind == "cuda" else f"{_processor()} core"
        slug = re.sub(r"[^a-z0-9]+", "-", f"{name} {threads} torch {torch.__version__}".lower()).strip("-")
        rates = Rates(
            name, kind, threads, path=user_cache() / f"rates-{slug}-{code_version(steps_taken).digest[:8]}.json"
        )
        assert rates.path is not None
        try:
            known = json.loads(rates.path.read_text(encoding="utf-8"))
            rates.timed = {step: Timed(*values) for step, values in known["timed"].items()}
            rates.products, rates.beside, rates.met = known["products"], known["beside"], set(known["met"])
        except (OSError, ValueError, KeyError, TypeError):
            rates.timed = {}
        return rates

    @staticmethod
    def taken_for_granted(teraflops: float) -> Rates:
        """A device that is not here and sustains so many TFLOPS in everything it does."""
        return Rates(f"device of {teraflops:g} TFLOPS (assumed)", "cuda", 1, beside=1.0, assumed=teraflops * 1e12)

    @property
    def known(self) -> bool:
        """Whether anything was timed, or is taken for granted."""
        return bool(self.timed) or self.assumed is not None

    def seconds(self, work: Work) -> float:
        """How long a part of a stage takes, alone on the device."""
        count = counted(work)
        if self.assumed is not None:
            return work.times * max(count.flops / self.assumed, count.kernels * LAUNCH)
        if isinstance(work.what, Step):
            return work.times * self.of_step(work.what)
        if work.kind == "products":
            return work.times * (count.flops / (self.products or PRODUCTS[self.kind]) + self._sum(count, "fp32", False))
        return work.times * self._sum(count, "fp32")

    def of_step(self, step: Step) -> float:
        """How long a step takes: as timed, or by the nearest timed one of the same precision."""
        if (own := self.timed.get(label(step))) is not None:
            return own.seconds
        count, alike = count_step(step), [t for t in self.timed.values() if t.kind.split()[1] == step.precision]
        found = self._sum(count, step.precision)
        if not alike:
            return found
        nearest = min(alike, key=lambda t: _distance(t, step, count))
        counted = Count(nearest.flops, nearest.traffic, nearest.kernels)
        return found * nearest.seconds / self._sum(counted, step.precision)

    def _sum(self, count: Count, precision: str, products: bool = True) -> float:
        a, b, c = self._fitted(precision)
        return count.kernels * a + count.traffic * b + (count.flops * c if products else 0.0)

    def _fitted(self, precision: str) -> tuple[float, float, float]:
        """Seconds a kernel, a byte and a FLOP: least squares of relative errors, held near the usual ones."""
        import numpy as np

        kernel, traffic, flops = USUAL[self.kind, precision]
        usual = np.array([kernel, 1 / traffic, 1 / flops])
        own = [t for t in self.timed.values() if t.kind.split()[1] == precision]
        if not own:
            return tuple((usual * self._level(self.timed.values())).tolist())
        level = self._level(own)
        terms = np.array([[t.kernels, t.traffic, t.flops] for t in own]) * usual / [[t.seconds] for t in own]
        held = 0.3 * np.eye(3)
        x = np.linalg.lstsq(np.vstack([terms, held]), np.concatenate([np.ones(len(own)), held @ np.full(3, level)]))[0]
        return tuple((usual * x.clip(level / 5, level * 5)).tolist())

    def _level(self, timed: Iterable[Timed]) -> float:
        """How many times longer than usual things take here."""
        logs = []
        for t in timed:
            kernel, traffic, flops = USUAL[self.kind, t.kind.split()[1]]
            logs.append(math.log(t.seconds / (t.kernels * kernel + t.traffic / traffic + t.flops / flops)))
        return math.exp(sum(logs) / len(logs)) if logs else 1.0

    def calibrate(self, works: Iterable[Work], device: str, places: int) -> None:
        """Times the steps that matter most, as long as time lasts, and keeps what was found."""
        weights: dict[Step, float] = {}
        for work in works:
            if isinstance(work.what, Step) and label(work.what) not in self.met:
                weights[work.what] = weights.get(work.what, 0.0) + self.seconds(work)
        if not weights:
            return
        end, heaviest = time.monotonic() + IN_ALL, sorted(weights, key=lambda step: -weights[step])
        kinds = dict(zip(map(kind, reversed(heaviest)), reversed(heaviest), strict=True))  # the heaviest of each
        wanted = sorted(heaviest, key=lambda step: step != kinds[kind(step)])
        with using_threads(self.threads):
            for step in wanted:
                if time.monotonic() < end:
                    self._time(step, device, end)
            self.products = self.products or products_rate(device)
            # What another program takes is no slowdown of ours: two cores are to be free.
            free = self.kind == "cpu" and places > 1 and busy_cores() < (os.cpu_count() or 1) - 2 + 0.2
            if self.beside is None and free and (small := self._quick(wanted)) is not None:
                self.beside = slowdown(small, device, self.threads, EACH)
        self.met |= set(map(label, wanted))
        self.keep()

    def _time(self, step: Step, device: str, end: float) -> None:
        """Times a step; where it would take too long, of the shallowest net of its kind, and then on fewer images."""
        if self.of_step(step) > EACH / 5 and step.net.settings.get("blocks", 1) > 1:
            step = step._replace(net=step.net.deep(1))
        share = EACH / (5 * self.of_step(step))
        step = step._replace(batch=max(2, round(step.batch * share)) if share < 1 else step.batch)
        if label(step) in self.timed or self.of_step(step) > 2 * EACH or parameters(step.net) > LARGE:
            return
        with contextlib.suppress(RuntimeError):  # a net that cannot run on random data is estimated by the others
            count = count_step(step)
            taken = steps_taken(step, device, min(EACH, max(0.05, end - time.monotonic())))
            self.timed[label(step)] = Timed(kind(step), count.flops, count.traffic, count.kernels, taken)

    def _quick(self, steps: list[Step]) -> Step | None:
        training = [step for step in steps if step.optimiser and label(step) in self.timed]
        return next((step for step in training if self.of_step(step) < EACH / 5), None)

    def keep(self) -> None:
        """Writes what is known where `stored` finds it."""
        assert self.path is not None
        known = {"timed": self.timed, "met": sorted(self.met), "products": self.products, "beside": self.beside}
        with contextlib.suppress(OSError):  # a read-only home only costs the next plan a few seconds
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self.path.with_suffix(f".{os.getpid()}")
            fresh.write_text(json.dumps(known, indent=1), encoding="utf-8")
            fresh.rename(self.path)


def label(step: Step) -> str:
    """What a timing is kept under."""
    return digest(step)[:16]


def kind(step: Step) -> str:
    """Which steps are alike: 'disentangler bf16 muon'."""
    return f"{step.net.kind} {step.precision} {step.optimiser or 'forward'}"


def _distance(timed: Timed, step: Step, count: Count) -> float:
    """How far a timed step is from a wanted one: of another kind, or of another size."""
    unlike = sum(a != b for a, b in zip(timed.kind.split(), kind(step).split(), strict=True))
    return 3.0 * unlike + abs(math.log((timed.flops + 1) / (count.flops + 1)))


def _processor() -> str:
    """The CPU's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
