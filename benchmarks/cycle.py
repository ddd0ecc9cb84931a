"""Reliability's maps back: the whole schedule on second moments against the published loop over images."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator

from torch import nn

from benchmarks.harness import Row
from benchmarks.published import fit_cycle_on_images
from benchmarks.sides import Scene, prepare, scene, sides, source
from featcx_core.analysis.reliability import fit_cycle, second_moment
from featcx_core.nets.trunk import Trunk
from featcx_core.seeds import seeded

BLOCKS, WIDTH = 8, 32  # κ = 1/4
STEPS = 32_000
TIMED = 30  # steps of the loop over images that are timed, all of the first round, which is the cheapest
IMAGES = 1000  # that the second moment is taken over, components.rows of the default preset


def _trunk(place: Scene) -> Trunk:
    with seeded(0):
        return Trunk(BLOCKS, place.data.shape, [place.shape] * 3, WIDTH).eval()


def published_step(folder: str) -> float:
    """Seconds a step of the loop over images, K = 3."""
    place = scene(folder)
    trunk, channels = _trunk(place), place.shape[0]
    back = [nn.Conv2d(channels, channels, 1, bias=False) for _ in range(3)]
    forth = [g for g in trunk.maps if isinstance(g, nn.Conv2d)]
    steps = fit_cycle_on_images(trunk.psi, forth, back, place.data)
    next(steps)  # the worker starts
    began = time.perf_counter()
    for _ in itertools.islice(steps, TIMED):
        pass
    return (time.perf_counter() - began) / TIMED


def our_step(folder: str) -> float:
    """Seconds a step of the whole schedule, with the pass over images that the second moment takes."""
    place = scene(folder)
    trunk = _trunk(place)
    began = time.perf_counter()
    images = place.data.split("pool")[0][:IMAGES]
    moment = second_moment(trunk.psi, [place.data.normalise(part) for part in images.split(250)])
    fit_cycle(moment.float(), trunk.matrices(), steps=STEPS)
    return (time.perf_counter() - began) / STEPS


def rows(quick: bool = False) -> Iterator[Row]:
    """One row."""
    with sides() as (baseline, ours), tempfile.TemporaryDirectory() as folder:
        ours(prepare, folder, "resnet8")
        pairs = [(baseline(published_step, folder), ours(our_step, folder)) for _ in range(1 if quick else 5)]
    name = f"reliability cycle, κ = 1/4, m = {BLOCKS}, {source().split(':')[0]}, {STEPS:,} steps"
    name += f" (the loop over images timed on {TIMED} of them)"
    yield Row(name, [slow for slow, _ in pairs], [fast for _, fast in pairs], "steps", 300)
