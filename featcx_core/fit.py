"""The one training loop: targets, exemplary nets, disentanglers, trunks, students, pruned nets and task nets."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from featcx_core.data import Augmented
from featcx_core.errors import InputError
from featcx_core.muon import Muon
from featcx_core.seeds import derive_seed, generator, seeded
from featcx_core.specs import Numerics, Precision, ScheduleSpec

Forward = Callable[[Tensor], Tensor]
Loss = Callable[[Forward, Tensor, Tensor], Tensor]


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


@dataclass(frozen=True)
class Checkpoint:
    """Where a training saves itself, every so many seconds, and resumes from.

    All randomness of a step is a function of (seed, step), so weights, optimiser and step are the whole state and a
    resumed training gives the same bytes as an unbroken one.
    """

    folder: Path
    key: str
    seconds: float = 20.0


class Training(TypedDict, total=False):
    """How a training runs: keyword arguments of every function that trains, handed on to `fit` (by `prune` a round's own).

    Attributes:
        seed: all that is random is a function of it and of the step; 0 if left out.
        numerics: precision and compilation.
        checkpoint: saved at intervals by time; resumed from when its key is this one's.
        on_step: told of progress about twice a second.
    """

    seed: int
    numerics: Numerics | None
    checkpoint: Checkpoint | None
    on_step: Callable[[Step], None] | None


def resolve_precision(precision: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """`auto` becomes bf16 where the device has fast bf16 arithmetic, else fp32; decided by capability, never by timing.

    Intel's AVX-512 products of bf16 numbers take longer than those of fp32 ones (137 against 264 GFLOP/s on two cores of
    Emerald Rapids): there AMX alone counts.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    info = Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    fast = "amx_bf16" in info or ("avx512_bf16" in info and "GenuineIntel" not in info)
    return "bf16" if fast else "fp32"


def cross_entropy(forward: Forward, images: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats of logits (n, K) against labels (n,)."""
    return F.cross_entropy(forward(images).float(), labels)


def reproduce(*teachers: Forward) -> Loss:
    """The loss of a net that reproduces features: Σ_k mean over elements of (f_k(x) − net_k(x))², eqs. of METHOD §2, §5.

    With one teacher the net gives one tensor, with several a tuple of as many.
    """

    def loss(forward: Forward, images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = [teacher(images).float() for teacher in teachers]
        given = forward(images)
        parts = (given,) if isinstance(given, Tensor) else given
        return torch.stack([F.mse_loss(p.float(), f) for p, f in zip(parts, wanted, strict=True)]).sum()

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
    after_step: Callable[[], None] | None = None,
) -> FitResult:
    """Trains `model` in place on `schedule.draws` augmented samples and leaves it in evaluation mode on data's device.

    Samples are drawn without replacement within an epoch; epochs follow one another without a seam, so every step has a
    full batch. The rate follows the schedule's shape.

    Args:
        model: any module; trained in channels-last layout.
        data: the samples and their device.
        loss: gives the loss of a forward function on (images (b, C, H, W), labels (b,)).
        seed, numerics, checkpoint, on_step: see `Training`.
        after_step: called after each update, for instance to keep pruned weights at zero.
    """
    numerics, device = numerics or Numerics(), data.device
    model.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    trainable = [p for p in model.parameters() if p.requires_grad]
    plain = torch.optim.AdamW if schedule.weight_decay else torch.optim.Adam
    make = Muon if schedule.optimiser == "muon" else plain
    optimiser = make(trainable, lr=schedule.lr, weight_decay=schedule.weight_decay, fused=True)
    forward: Forward = torch.compile(model) if numerics.compile else model
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=numerics.precision == "bf16")
    noisy = True  # until the first step has shown whether the loss draws random numbers, as dropout does

    total = math.ceil(schedule.draws / schedule.batch)
    stretch = math.ceil(total / 100)
    start, result, running = 0, FitResult([], []), torch.zeros((), device=device)
    if checkpoint is not None and (state := _resume(checkpoint, model, optimiser, running)) is not None:
        start, result = state
    began = told = saved = time.monotonic()
    order = _Order(len(data), schedule.batch, seed)
    for step in range(start, total):
        step_seed = derive_seed(seed, "step", step)
        images, labels = data.batch(order.positions(step), generator(step_seed))
        for group in optimiser.param_groups:
            group["lr"] = rate_at(schedule, step / max(1, total - 1))
        with autocast, seeded(step_seed) if noisy else nullcontext():
            before = torch.get_rng_state() if step == start else None
            value = loss(forward, images, labels)
            if before is not None:
                noisy = not torch.equal(before, torch.get_rng_state())
        value.backward()
        optimiser.step()
        optimiser.zero_grad()
        if after_step is not None:
            after_step()
        running += value.detach()

        done = step + 1
        if done % stretch == 0 or done == total:
            count = done - (done - 1) // stretch * stretch
            result.drawn.append(done * schedule.batch)
            result.loss.append(float(running) / count)
            running.zero_()
        now = time.monotonic()
        if on_step is not None and (now - told > 0.5 or done == total):
            rate = (done - start) * schedule.batch / max(now - began, 1e-9)
            on_step(Step(done, total, float(value.detach()), rate))
            told = now
        if checkpoint is not None and now - saved > checkpoint.seconds and done < total:
            _save(checkpoint, model, optimiser, running, done, result)
            saved = time.monotonic()
    model.eval()
    if not all(math.isfinite(value) for value in result.loss[-1:]):
        raise InputError(
            "The training diverged: its loss is not finite; lower the schedule's lr, or set precision=fp32."
        )
    return result


class _Order:
    """Positions of a step's samples in an endless row of seeded permutations of range(n), a function of (seed, step)."""

    def __init__(self, n: int, batch: int, seed: int) -> None:
        self.n, self.batch, self.seed = n, batch, seed
        self.epochs: dict[int, Tensor] = {}

    def positions(self, step: int) -> Tensor:
        first, last = step * self.batch, (step + 1) * self.batch
        wanted = range(first // self.n, (last - 1) // self.n + 1)
        self.epochs = {e: self.epochs[e] if e in self.epochs else self._permutation(e) for e in wanted}
        row = torch.cat(list(self.epochs.values()))
        offset = wanted.start * self.n
        return row[first - offset : last - offset]

    def _permutation(self, epoch: int) -> Tensor:
        return torch.randperm(self.n, generator=generator(derive_seed(self.seed, "epoch", epoch)))


def _save(
    checkpoint: Checkpoint,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    running: Tensor,
    done: int,
    result: FitResult,
) -> None:
    """Writes one file beside the old one and renames it over it, so a kill at any moment leaves a whole checkpoint."""
    tensors = {f"model.{name}": value.contiguous() for name, value in model.state_dict().items()}
    for i, parameter in enumerate(_parameters(optimiser)):  # one that takes no part in the loss has no state
        state = optimiser.state.get(parameter, {})
        tensors |= {f"optimiser.{i}.{name}": value.contiguous() for name, value in state.items()}
    checkpoint.folder.mkdir(parents=True, exist_ok=True)
    fresh = checkpoint.folder / "checkpoint.partial"
    meta = {"key": checkpoint.key, "done": str(done), "history": json.dumps(result)}
    save_file(tensors | {"running": running}, fresh, meta)
    with open(fresh, "rb") as file:
        os.fsync(file.fileno())
    fresh.rename(checkpoint.folder / "checkpoint.safetensors")


def _parameters(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimiser.param_groups for p in group["params"]]


def _resume(
    checkpoint: Checkpoint, model: nn.Module, optimiser: torch.optim.Optimizer, running: Tensor
) -> tuple[int, FitResult] | None:
    """Loads the checkpoint of this key into model, optimiser and running loss: (steps done, history), None without one."""
    path = checkpoint.folder / "checkpoint.safetensors"
    if not path.exists():
        return None
    with safe_open(path, "pt") as file:
        meta = file.metadata()
        if meta["key"] != checkpoint.key:
            raise InputError(f"{path} is the checkpoint of another spec; remove it to train anew.")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    model.load_state_dict({n.removeprefix("model."): v for n, v in tensors.items() if n.startswith("model.")})
    running.copy_(tensors["running"])
    for i, parameter in enumerate(_parameters(optimiser)):
        prefix = f"optimiser.{i}."
        for name, value in tensors.items():
            if name.startswith(prefix):
                like = torch.empty_like(parameter) if value.shape == parameter.shape else torch.empty_like(value)
                optimiser.state[parameter][name.removeprefix(prefix)] = like.copy_(value)
    return int(meta["done"]), FitResult(*json.loads(meta["history"]))


@torch.no_grad()
def predict(
    forward: Forward, images: Tensor, normalise: Forward, device: torch.device | str, batch: int = 250
) -> Tensor:
    """What `forward` gives for uint8 images (n, C, H, W), without augmentation, in float32, on the CPU."""
    parts = images.split(batch)
    return torch.cat([forward(normalise(part.to(device))).float().cpu() for part in parts])
