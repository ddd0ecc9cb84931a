"""What a stage takes, put together from steps of nets and counts of work."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from featcx_core.specs import Numerics, ScheduleSpec
from flows.planning.cost import Count, Net, Step, count_step, step_memory

Shape = tuple[int, int, int]
SETUP = 0.25  # seconds of any stage that opens nets and data, for files, tracing and publishing
DRAWING = 10e-9  # seconds a sample and bootstrap draw, to draw and count it


class Work(NamedTuple):
    """A part of a stage: a step or a count of work, so many times; `products` are large matrix products in float32."""

    times: float
    what: Step | Count
    kind: Literal["step", "products"] = "step"


@dataclass(frozen=True)
class Load:
    """What a stage takes.

    Attributes:
        work: its parts.
        seconds: what is no arithmetic, on any device.
        memory: bytes held at once, beside the interpreter and its libraries.
        disk: bytes of the artifact.
        made: what stages after it have to know of its artifact.
    """

    work: tuple[Work, ...] = ()
    seconds: float = 0.0
    memory: float = 0.0
    disk: float = 0.0
    made: Any = None

    @property
    def flops(self) -> float:
        """Floating-point operations in all."""
        return sum(w.times * counted(w).flops for w in self.work)


def counted(work: Work) -> Count:
    """One time of it."""
    return count_step(work.what) if isinstance(work.what, Step) else work.what


class Images(NamedTuple):
    """A data set: (C, H, W), how many classes, and images a split, of the target's own aside."""

    shape: Shape
    classes: int
    sizes: dict[str, int]

    @property
    def bytes(self) -> float:
        """Of all images in memory."""
        return float(math.prod(self.shape) * sum(self.sizes.values()))


class Trained(NamedTuple):
    """A net whose feature is analysed: what gives the feature, its shape, and how many images it saw."""

    net: Net
    feature: Net
    shape: Shape
    seen: int


class Table(NamedTuple):
    """Components: how many orders, the feature's shape, rows a split."""

    players: int
    shape: Shape
    rows: dict[str, int]

    @property
    def elements(self) -> int:
        """Of one map."""
        return math.prod(self.shape)


def training(
    net: Net, teachers: tuple[Net, ...], shape: Shape, schedule: ScheduleSpec, numerics: Numerics, parts: int = 1
) -> Work:
    """All steps of a training, in so many parts that begin anew."""
    step = Step(net, teachers, shape, schedule.batch, schedule.optimiser, numerics.precision)
    return Work(parts * math.ceil(math.ceil(schedule.draws / parts) / schedule.batch), step)


def forward(net: Net, shape: Shape, rows: float, batch: int) -> Work:
    """A pass over so many rows without gradients, in float32."""
    return Work(rows / batch, Step(net, (), shape, batch))


def load(work: tuple[Work, ...], data: Images | None, made: Any = None, *, memory: float = 0, disk: float = 0) -> Load:
    """A load whose memory is that of its largest step beside the data set, unless more is told."""
    steps = [step_memory(w.what) for w in work if isinstance(w.what, Step)]
    images = 2 * data.bytes if data else 0.0  # as stored, and padded on the device
    return Load(work, SETUP, images + max([memory, *steps]), disk, made)


def covariance(n: int, maps: int, elements: int, draws: int) -> tuple[Work, ...]:
    """Covariances of `maps` maps over n samples with bootstrap draws (`featcx_core.analysis.bootstrap.covariance`)."""
    b, size = draws + 1.0, float(maps * elements)
    flops = 2 * b * n * size + 2.0 * n * maps * size + 2 * (2 * b * maps * size + 2 * b * n * maps * maps)
    reading = Count(0, 4 * 4.0 * n * size, 12.0 * n / 128 + 3 * b)
    return Work(1, Count(flops, 4 * (n / 128) * b * size), "products"), Work(1, reading)


def bootstrapped(work: tuple[Work, ...], n: int, maps: int, elements: int, draws: int) -> Load:
    """A load that resamples n rows, with the memory of the weights and of each draw's mean maps."""
    memory = 4.0 * (draws + 1) * (3 * n + 2 * maps * elements)
    made = load(work, None, memory=memory)
    return Load(made.work, SETUP + DRAWING * n * draws, made.memory, 8.0 * draws * maps * 4)


def chosen(size: int, rows: int | Literal["all"]) -> int:
    """Rows of a split when at most `rows` are taken."""
    return size if rows == "all" else min(size, rows)
