"""The one training loop: targets, exemplary nets, disentanglers, trunks, students, pruned nets and task nets."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featcx_core.data.images import Augmented, Rows, ahead, at_once
from featcx_core.nets.unit import Unit
from featcx_core.seeds import Seeded, derive_seed, generator
from featcx_core.specs import Numerics, Precision, ScheduleSpec
from featcx_core.training.checkpoint import SAVING, Checkpoint
from featcx_core.training.guard import Guard
from featcx_core.training.muon import Muon
from featcx_core.training.recompute import is_out_of_memory
from featcx_core.training.replay import Replayed, own_stream

Forward = Callable[[Tensor], Tensor]
Loss = Callable[[Forward, Tensor, Tensor], Tensor]
NOTHING = nullcontext()


class Step(NamedTuple):
    """Progress of a training: steps done and in all, the latest mean loss, samples a second."""

    done: int
    total: int
    loss: float
    rate: float


class FitResult(NamedTuple):
    """Mean training loss over each of at most 100 equal stretches: samples drawn by its end, loss."""

    drawn: list[int]
    loss: list[float]


class Training(TypedDict, total=False):
    """How a training runs: keyword arguments of every function that trains, handed on to `fit` (by `prune` a round's own).

    Attributes:
        seed: all that is random is a function of it and of the step; 0 if left out.
        numerics: precision and compilation.
        checkpoint: saved at intervals by time; resumed from when its key is this one's.
        on_step: told of progress about twice a second.
        on_remark: told what was done about a loss that was not finite, or too little memory.
    """

    seed: int
    numerics: Numerics | None
    checkpoint: Checkpoint | None
    on_step: Callable[[Step], None] | None
    on_remark: Callable[[str], None] | None


def resolve_precision(precision: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """`auto` becomes bf16 where the device has fast bf16 arithmetic, else fp32; decided by capability, never by timing.

    Intel's AVX-512 products of bf16 numbers take longer than those of fp32 ones (137 against 264 GFLOP/s on two cores of
    Emerald Rapids): there AMX alone counts.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8") if os.path.exists("/proc/cpuinfo") else ""
    fast = "amx_bf16" in info or ("avx512_bf16" in info and "GenuineIntel" not in info)
    return "bf16" if fast else "fp32"


def cross_entropy(forward: Forward, images: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats of logits (n, K) against labels (n,)."""
    return F.cross_entropy(forward(images).float(), labels)


def reproduce(*teachers: Forward, units: Sequence[Unit] = ()) -> Loss:
    """The loss of a net that reproduces features: Σ_k mean over elements of ((f_k(x) − net_k(x)) / scale_k)², METHOD §2, §5.

    With one teacher the net gives one tensor, with several a tuple of as many. `units` are those of the features, whose
    scales divide the errors; without them the errors are raw.
    """

    def loss(forward: Forward, images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = [teacher(images).float() for teacher in teachers]
        given = forward(images)
        parts = (given,) if isinstance(given, Tensor) else given
        scales: list[Tensor | float] = [unit.scale for unit in units] or [1.0] * len(wanted)
        errors = [(p.float() - f) / scale for p, f, scale in zip(parts, wanted, scales, strict=True)]
        return torch.stack([error.square().mean() for error in errors]).sum()

    return loss


def rate_at(schedule: ScheduleSpec, progress: float) -> float:
    """The learning rate when the share `progress` of the steps is done."""
    lr, end = schedule.lr, schedule.lr_end
    if schedule.shape == "log":
        return lr * (end / lr) ** progress
    return end + (lr - end) * min(1.0, 10 * progress + 0.01, 2 * (1 - progress))


def fit(
    model: nn.Module,
    data: Augmented,
    loss: Loss,
    schedule: ScheduleSpec,
    *,
    seed: int = 0,
    numerics: Numerics | None = None,
    checkpoint: Checkpoint | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_remark: Callable[[str], None] | None = None,
    after_step: Callable[[], None] | None = None,
) -> FitResult:
    """Trains `model` in place on `schedule.draws` augmented samples and leaves it in evaluation mode on data's device.

    Samples are drawn without replacement within an epoch; epochs follow one another without a seam, so every step has a
    full batch. The rate follows the schedule's shape. A loss that is not finite is seen within an epoch, and memory that does
    not suffice at once: see `Guard`.

    Args:
        model: any module; trained in channels-last layout.
        data: the samples and their device.
        loss: gives the loss of a forward function on (images (b, C, H, W), labels (b,)).
        seed, numerics, checkpoint, on_step, on_remark: see `Training`.
        after_step: called after each update, for instance to keep pruned weights at zero.

    >>> import torch, featcx_core as fx
    >>> data, schedule = fx.load_dataset(fx.DatasetSpec(source="digits")), fx.ScheduleSpec(draws=640, batch=32)
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> loss = lambda forward, images, labels: torch.nn.functional.cross_entropy(forward(images), labels)
    >>> found = fx.fit(net, fx.Augmented(data, data.pool), loss, schedule)
    >>> net.training
    False
    """
    numerics, device = numerics or Numerics(), data.device
    model.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser, forward = _optimiser(model, schedule, device), torch.compile(model) if numerics.compile else model
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=numerics.precision == "bf16")

    def update(*fetched: Tensor, random: AbstractContextManager[Any] = NOTHING) -> Tensor:
        images, labels = data.take(*fetched)
        optimiser.zero_grad()
        with random:
            with autocast:
                value = loss(forward, images, labels)
            value.backward()
        optimiser.step()
        return value.detach()

    advance = Replayed(update) if device.type == "cuda" else update
    noisy = True  # until the first step has shown whether the loss draws random numbers, as dropout does
    total = math.ceil(schedule.draws / schedule.batch)
    stretch, running = math.ceil(total / 100), torch.zeros((), device=device)
    guard = Guard(model, optimiser, running, math.ceil(len(data) / schedule.batch), on_remark)
    start, (drawn_by, losses) = guard.begin(checkpoint)
    step, began = start, time.monotonic()
    told = saved = began  # times of the last note, of the last checkpoint
    order = _Order(len(data), schedule.batch, seed)

    def fetch(step: int) -> tuple[Tensor, ...]:
        fetched = data.fetch(data.draw(order.positions(step), generator(derive_seed(seed, "step", step))))
        # A copy from memory that is not pinned waits for the step before.
        return tuple(part.pin_memory() for part in fetched) if device.type == "cuda" else fetched

    def batches(start: int) -> Generator[tuple[Tensor, ...]]:
        steps = range(start, total)
        return ahead(fetch, steps) if data.reads_ahead else (fetch(step) for step in steps)

    with own_stream(device), guard.memory, SAVING.one() as number, ExitStack() as reading:
        read = reading.enter_context(closing(batches(step)))
        while step < total:
            step_seed = derive_seed(seed, "step", step)
            _set_rate(optimiser, guard.rate * rate_at(schedule, step / max(1, total - 1)))
            fetched = next(read)
            try:
                if noisy or guard.recomputes:
                    random = Seeded(step_seed, device)
                    value = update(*fetched, random=random)
                    noisy = random.drew or step > start
                else:
                    value = advance(*fetched)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                step, (drawn_by, losses) = guard.out_of_memory(schedule.batch, error)
                read = reading.enter_context(closing(batches(step)))
                continue
            if after_step is not None:
                after_step()
            running += value
            step = done = step + 1

            if done % guard.every == 0 or done % stretch == 0 or done == total:
                keeps = done % guard.seldom == 0
                if not guard.is_good(weights=keeps or done == total):
                    step, (drawn_by, losses) = guard.diverged()
                    advance = Replayed(update) if device.type == "cuda" else update
                    read = reading.enter_context(closing(batches(step)))
                    continue
            if done % stretch == 0 or done == total:
                count = done - (done - 1) // stretch * stretch
                drawn_by.append(done * schedule.batch)
                losses.append(float(running) / count)
                running.zero_()
            if done % guard.seldom == 0:
                guard.keep(done, [drawn_by, losses])
            now = time.monotonic()
            if on_step is not None and (now - told > 0.5 or done == total):
                rate = (done - start) * schedule.batch / max(now - began, 1e-9)
                on_step(Step(done, total, float(value), rate))
                told = now
            if checkpoint is not None and (SAVING.wanted(number) or now - saved > checkpoint.seconds) and done < total:
                guard.save(checkpoint, done, [drawn_by, losses])
                SAVING.done(number)
                saved = time.monotonic()
    optimiser.zero_grad()
    model.eval()
    return FitResult(drawn_by, losses)


def _optimiser(model: nn.Module, schedule: ScheduleSpec, device: torch.device) -> torch.optim.Optimizer:
    """The schedule's optimiser. On a GPU the rate is a tensor, so that a captured step sees it change."""
    plain = torch.optim.AdamW if schedule.weight_decay else torch.optim.Adam
    make, on_gpu = Muon if schedule.optimiser == "muon" else plain, device.type == "cuda"
    lr = torch.tensor(schedule.lr, device=device) if on_gpu else schedule.lr
    trainable = [p for p in model.parameters() if p.requires_grad]
    return make(trainable, lr=lr, weight_decay=schedule.weight_decay, fused=True, capturable=on_gpu)


def _set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


class _Order:
    """Positions of a step's samples in an endless row of seeded permutations of range(n), a function of (seed, step)."""

    def __init__(self, n: int, batch: int, seed: int) -> None:
        self.n, self.batch, self.seed = n, batch, seed
        self.epochs: dict[int, Tensor] = {}

    def positions(self, step: int) -> Tensor:
        first, last = step * self.batch, (step + 1) * self.batch
        wanted = range(first // self.n, (last - 1) // self.n + 1)
        self.epochs = {e: self.epochs[e] if e in self.epochs else self._permutation(e) for e in wanted}
        return torch.cat([row[max(0, first - e * self.n) : last - e * self.n] for e, row in self.epochs.items()])

    def _permutation(self, epoch: int) -> Tensor:
        return torch.randperm(self.n, generator=generator(derive_seed(self.seed, "epoch", epoch)))


@torch.no_grad()
def predict(
    forward: Forward, images: Tensor | Rows, normalise: Forward, device: torch.device | str, most: int = 250
) -> Tensor:
    """What `forward` gives for uint8 images (n, C, H, W), without augmentation, in float32, on the CPU."""
    parts = images.split(at_once(images.shape, most))
    return torch.cat([forward(normalise(part.to(device))).float().cpu() for part in parts])
