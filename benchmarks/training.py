"""Training: time of an epoch, share of the matrix rate, and time to an equal held-out residual."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import Row
from benchmarks.published import (
    BATCHES,
    DRAWS,
    PublishedDisentangler,
    evaluate,
    test_batches,
    train_depth,
    train_epoch,
    training_batches,
)
from benchmarks.sides import Scene, Side, device, prepare, scene, sides, source
from featcx_core.data.images import Augmented
from featcx_core.nets.disentangler import Disentangler
from featcx_core.seeds import seeded
from featcx_core.specs import Numerics, ScheduleSpec
from featcx_core.training.fit import fit, reproduce, resolve_precision
from featcx_core.training.teaching import train_disentangler

CHAIN = (1, 2, 4, 8)
TESTED = 2000  # images of the test set that the baseline's evaluation is timed on; its time is scaled to all of them


class Timer:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self.began = time.perf_counter()

    def __float__(self) -> float:
        return time.perf_counter() - self.began


def published_net(place: Scene, blocks: int, width: int) -> PublishedDisentangler:
    """A fresh net of the baseline."""
    return PublishedDisentangler(blocks, place.data.shape[0], place.shape[0], width).to(device())


def our_net(place: Scene, blocks: int, width: int, seed: int = 0) -> Disentangler:
    """A fresh net of ours."""
    with seeded(seed):
        return Disentangler(blocks, place.data.shape, place.shape, width).to(device())


def published_epoch(folder: str, blocks: int, width: int) -> tuple[float, float]:
    """Seconds of one epoch of DRAWS updates' samples, and of the evaluation of the whole test set after it."""
    place = scene(folder)
    net = published_net(place, blocks, width)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    timer = Timer()
    train_epoch(net, place.feature, training_batches(place.data, BATCHES[blocks]), optimiser)
    return float(timer), published_test(place, net, BATCHES[blocks])


def published_test(place: Scene, net: nn.Module, batch: int) -> float:
    """Seconds of the evaluation of the whole test set, timed on TESTED images."""
    data = place.data
    few = vars(data) | {"test_images": data.test_images[:TESTED], "test_labels": data.test_labels[:TESTED]}
    batches = test_batches(type(data)(**few), batch)
    timer = Timer()
    evaluate(net, place.feature, batches)
    return float(timer) * len(data.test_labels) / len(few["test_labels"])


def our_epoch(folder: str, blocks: int, width: int, batch: int = 128, warm: int = 5) -> float:
    """Seconds of DRAWS samples in featcx's training loop; the first `warm` steps (capturing) are left out.

    On a GPU, where DRAWS samples take hundredths of a second, ten times as many are timed.
    Nothing is evaluated in between: residuals are measured once, at the end, by the components stage.
    """
    place, on_gpu = scene(folder), device().type == "cuda"
    steps, clock = -(-DRAWS // batch) * (10 if on_gpu else 1), []

    def tick() -> None:
        if on_gpu and len(clock) in (warm - 1, warm + steps - 1):
            torch.cuda.synchronize()
        clock.append(time.perf_counter())

    fit(
        our_net(place, blocks, width),
        Augmented(place.data, place.data.pool, device()),
        reproduce(place.feature),
        ScheduleSpec(draws=(warm + steps) * batch, batch=batch),
        seed=0,
        numerics=Numerics(precision=fast_precision()),
        after_step=tick,
    )
    return (clock[-1] - clock[warm - 1]) * DRAWS / (steps * batch)


def fast_precision() -> Literal["fp32", "bf16"]:
    """What featcx trains in on this machine."""
    return resolve_precision("auto", device())


def epoch_flops(folder: str, blocks: int, width: int) -> float:
    """Operations of products and convolutions in an epoch's forward and backward passes, the target's included."""
    place = scene(folder)
    net = our_net(place, blocks, width).train()
    x, y = Augmented(place.data, place.data.pool, device()).batch(torch.arange(8), torch.Generator())
    with FlopCounterMode(display=False) as counter:
        reproduce(place.feature)(net, x, y).backward()
    return counter.get_total_flops() * DRAWS / 8


def matrix_rate(side: int = 4096) -> float:
    """Operations a second of a product of two large matrices in the precision of training, the best of five."""
    dtype = torch.bfloat16 if fast_precision() == "bf16" else torch.float32
    a, b = (torch.randn(side, side, dtype=dtype, device=device()) for _ in range(2))
    seconds = []
    for _ in range(6):
        timer = Timer()
        a @ b
        if a.is_cuda:
            torch.cuda.synchronize()
        seconds.append(float(timer))
    return 2 * side**3 / min(seconds[1:])


def published_depth(folder: str, blocks: int, width: int, epochs: int) -> tuple[float, float, float]:
    """Trains the baseline's next depth: seconds of training, seconds of its tests, the held-out residual at the end."""
    place = scene(folder)
    torch.manual_seed(blocks)
    timer, net = Timer(), published_net(place, blocks, width)
    if _SHALLOWER:
        net.start_from(_SHALLOWER.pop())
    for _ in train_depth(net, place.feature, place.data, epochs=epochs, batch=BATCHES[blocks], test=False):
        pass
    seconds = float(timer)
    _SHALLOWER.append(net)
    return seconds, epochs * published_test(place, net, BATCHES[blocks]), held_out(place, net)


_SHALLOWER: list[PublishedDisentangler] = []


# Draws and batch a depth at which every order is at or below the baseline's residual; the other settings are the preset's.
FAST = ScheduleSpec(lr=2e-2, lr_end=2e-5, shape="trapezoid", optimiser="muon")
FAST_DRAWS, FAST_BATCHES = (1500, 1200, 1200, 1600), (16, 16, 16, 32)


def our_chain(folder: str, width: int, seed: int) -> list[tuple[float, float]]:
    """Of each depth: seconds of training by the protocol `fast`, and the held-out residual."""
    place, previous, rows = scene(folder), None, []
    for blocks, draws, batch in zip(CHAIN, FAST_DRAWS, FAST_BATCHES, strict=True):
        timer = Timer()
        samples, net = Augmented(place.data, place.data.pool, device()), our_net(place, blocks, width, seed)
        if previous is not None:
            net.warm_start(previous, identity=True)
        schedule = FAST.model_copy(update={"draws": draws, "batch": batch})
        numerics = Numerics(precision=fast_precision())
        train_disentangler(net, place.feature, samples, schedule, seed=seed, numerics=numerics)
        rows.append((float(timer), held_out(place, net)))
        previous = net
    return rows


@torch.no_grad()
def held_out(place: Scene, net: nn.Module) -> float:
    """Var[f − Φ]/Var[f] over the validation images, which no net has seen, in float32."""
    net.eval()
    f, error = [], []
    for part in place.data.split("validation")[0].split(250):
        images = place.data.normalise(part.to(device()))
        f.append(place.feature(images))
        error.append(f[-1] - net(images))
    return _variance(torch.cat(error)) / _variance(torch.cat(f))


def _variance(maps: Tensor) -> float:
    return float(maps.double().var(0, correction=0).sum())


def rows(quick: bool = False) -> Iterator[Row]:
    """Epochs at κ = 1; the share of the bf16 matrix rate; time to an equal held-out residual at κ = 1/4."""
    with sides() as (baseline, ours):
        with tempfile.TemporaryDirectory() as folder:
            ours(prepare, folder, "resnet20")
            for blocks in (1,) if quick else (1, 2):
                yield from _epoch_rows(folder, blocks, baseline, ours, repeats=2 if quick else 5 if blocks == 1 else 3)
        if not quick:
            with tempfile.TemporaryDirectory() as folder:
                ours(prepare, folder, "resnet8", 30_000)
                yield from _chain_rows(folder, baseline, ours)


def _epoch_rows(folder: str, blocks: int, baseline: Side, ours: Side, repeats: int, width: int = 128) -> Iterator[Row]:
    fast, slow, tested, peak = [], [], [], []
    ours(our_epoch, folder, blocks, width)
    for _ in range(repeats):
        train, test = baseline(published_epoch, folder, blocks, width)
        slow.append(train / DRAWS)
        tested.append((train + test) / DRAWS)
        fast.append(ours(our_epoch, folder, blocks, width) / DRAWS)
        peak.append(1 / ours(matrix_rate))
    name = f"epoch of {DRAWS} samples, κ = 1, m = {blocks}, {source().split(':')[0]}"
    yield Row(
        f"{name}, with the baseline's test evaluation (timed on {TESTED} images, scaled)", tested, fast, "samples", 9
    )
    yield Row(f"{name}, without it", slow, fast, "samples", 3.5)
    each = ours(epoch_flops, folder, blocks, width) / DRAWS
    whole = [value * 1e9 for value in peak], [value / each * 1e9 for value in fast]
    yield Row(
        f"share of a large {ours(fast_precision)} matrix product's rate, κ = 1, m = {blocks}", *whole, "GFLOP", 0.65
    )


def _chain_rows(folder: str, baseline: Side, ours: Side, width: int = 32, epochs: int = 12) -> Iterator[Row]:
    slow, fast = [], []
    for i, blocks in enumerate(CHAIN):  # the baseline's minutes and our seconds in turn
        slow.append(baseline(published_depth, folder, blocks, width, epochs))
        if i:
            fast.append(ours(our_chain, folder, width, i))
    train, test, residuals = (list(column) for column in zip(*slow, strict=True))
    reached = [statistics.median(run[i][1] for run in fast) for i in range(len(CHAIN))]
    equal = all(mine[1] <= theirs for run in fast for mine, theirs in zip(run, residuals, strict=True))
    name = f"time to an equal held-out residual, κ = 1/4, m = {CHAIN}, {source().split(':')[0]}, baseline {epochs} epochs a "
    name += f"depth, run once: {_plain(residuals)} against our {_plain(reached)}{'' if equal else ' (NOT REACHED)'}"
    times = [sum(depth[0] for depth in run) for run in fast]
    tested = [sum(train) + sum(test)] * len(times)
    yield Row(f"{name}; with the baseline's tests (timed on {TESTED} images, scaled)", tested, times, "chains", 25)
    yield Row(f"{name}; without them", [sum(train)] * len(times), times, "chains", 10)


def _plain(values: list[float]) -> str:
    return " ".join(f"{value:.3f}".lstrip("0") for value in values)
