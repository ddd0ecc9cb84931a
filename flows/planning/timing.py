"""Real steps timed on a device: trainings of random images, forward passes, matrix products."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from flows.planning.cost import Step

if TYPE_CHECKING:
    import torch


def steps_taken(step: Step, device: str, limit: float, wall: bool = False) -> float:
    """Seconds of a step: the loop that trains runs on random images for about `limit` seconds, after some steps unseen.

    With one thread on a CPU they are the thread's own, else those of the clock on the wall.
    """
    import torch

    from featcx_core.data.images import Augmented, Dataset
    from featcx_core.specs import Numerics, ScheduleSpec
    from featcx_core.training.distillation import soft_labels
    from featcx_core.training.fit import cross_entropy, fit, reproduce
    from featcx_core.training.replay import WARM

    place, began, end, done = torch.device(device), 0.0, 0.0, 0
    unseen = 2 if place.type == "cpu" else WARM + 2  # the last of them captures the step
    clock = time.perf_counter if wall else _clock(place)
    net = step.net.build().to(place)

    def tick() -> None:
        nonlocal began, end, done
        done += 1
        _wait(place)  # what is only queued takes no time
        if done == unseen or (done > unseen and time.monotonic() > end):
            if done > unseen:
                raise _Enough
            began, end = clock(), time.monotonic() + limit

    if step.optimiser is None:
        net.eval()
        images = torch.randn(step.batch, *step.shape, device=place).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), contextlib.suppress(_Enough):
            while True:
                net(images)
                tick()
    else:
        n, classes = max(2 * step.batch, 64), step.net.settings.get("classes", 2)
        images = torch.randint(256, (n, *step.shape), dtype=torch.uint8)
        labels, rows, ones = torch.arange(n) % classes, torch.arange(n), torch.ones(step.shape[0])
        crop = round(min(step.shape[1:]) / 8)
        names = tuple(map(str, range(classes)))
        data = Dataset(images, labels, images[:2], labels[:2], rows, rows[:0], names, ones / 2, ones / 4, crop, True)
        teachers = [teacher.build().to(place).eval() for teacher in step.teachers]
        loss = reproduce(*teachers) if step.net.kind != "target" else cross_entropy
        if step.net.kind == "target" and teachers:
            loss = soft_labels(teachers[0], 4.0, 0.9)
        schedule = ScheduleSpec(draws=step.batch * 10**6, batch=step.batch, lr=1e-5, optimiser=step.optimiser)
        with contextlib.suppress(_Enough):
            numerics = Numerics(precision=step.precision)
            fit(net, Augmented(data, rows, place), loss, schedule, seed=0, numerics=numerics, after_step=tick)
    return (clock() - began) / (done - unseen)


class _Enough(Exception):
    """Ends a training that was only timed."""


def products_rate(device: str) -> float:
    """FLOPs a second of the product that bootstrap draws take: (draws × batch) with (batch × elements)."""
    import torch

    place = torch.device(device)
    clock = _clock(place)
    a, b = torch.randn(1000, 128, device=device), torch.randn(128, 8192, device=device)
    for attempt in range(3):  # the first of them unseen
        if attempt == 1:
            _wait(place)
            began = clock()
        a @ b
    _wait(place)
    return 2 * 2.0 * 1000 * 128 * 8192 / (clock() - began)


def slowdown(step: Step, device: str, threads: int, limit: float) -> float:
    """How many times longer a step takes while another thread takes the same steps."""

    def taken(_: int) -> float:
        with using_threads(threads):
            return steps_taken(step, device, limit, wall=True)

    alone = taken(0)
    with ThreadPoolExecutor(2) as pool:
        both = pool.map(taken, range(2))
        return min(2.0, max(1.0, sum(both) / 2 / alone))


def busy_cores(seconds: float = 0.1) -> float:
    """How many cores all programs use while this one waits so long; of a system that does not tell, its load."""
    try:
        before = _ticks()
        time.sleep(seconds)
        return (_ticks() - before) / (seconds * os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError):
        return os.getloadavg()[0]


def _ticks() -> int:
    """Clock ticks that all cores have worked since the start of the system; those that they were idle or waited left out."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _, _, *rest = map(int, file.readline().split()[1:])
    return user + nice + system + sum(rest[:3])


@contextlib.contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Runs the block as a stage runs: with so many CPU threads, and an allocator that keeps what is freed."""
    import torch

    from tasks.devices import settled_allocator

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with settled_allocator():
            yield
    finally:
        torch.set_num_threads(before)


def _wait(device: torch.device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _clock(place: torch.device) -> Callable[[], float]:
    """The thread's own time where it does all the work: other programs then do not count."""
    import torch

    return time.thread_time if place.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
