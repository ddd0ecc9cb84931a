"""Checkpoints of a training: all of its state in one file, from which it goes on to the same bytes."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from featcx_core.errors import InputError


@dataclass(frozen=True)
class Checkpoint:
    """Where a training saves itself, every so many seconds, and resumes from.

    All randomness of a step is a function of (seed, step), so weights, optimiser and step are the whole state and a
    resumed training gives the same bytes as an unbroken one.
    """

    folder: Path
    key: str
    seconds: float = 20.0


def tensors_of(model: nn.Module, optimiser: torch.optim.Optimizer, running: Tensor) -> dict[str, Tensor]:
    """The whole state of a training between two steps, by name, as it lies: its net, its optimiser, its running loss."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for i, parameter in enumerate(_parameters(optimiser)):  # one that takes no part in the loss has no state
        state = optimiser.state.get(parameter, {})
        tensors |= {f"optimiser.{i}.{name}": value for name, value in state.items()}
    return tensors | {"running": running}


def load(tensors: dict[str, Tensor], model: nn.Module, optimiser: torch.optim.Optimizer, running: Tensor) -> None:
    """Brings a training back to where `tensors_of` was taken; what they lack the optimiser forgets."""
    model.load_state_dict({n.removeprefix("model."): v for n, v in tensors.items() if n.startswith("model.")})
    running.copy_(tensors["running"])
    optimiser.state.clear()
    for i, parameter in enumerate(_parameters(optimiser)):
        prefix = f"optimiser.{i}."
        for name, value in tensors.items():
            if name.startswith(prefix):
                like = parameter if value.shape == parameter.shape else value  # for its layout
                own = torch.empty_like(like, dtype=value.dtype, device=parameter.device)
                optimiser.state[parameter][name.removeprefix(prefix)] = own.copy_(value)


def write(checkpoint: Checkpoint, tensors: dict[str, Tensor], done: int, history: Sequence[Any] = ()) -> None:
    """Writes one file beside the old one and renames it over it, so a kill at any moment leaves a whole checkpoint."""
    checkpoint.folder.mkdir(parents=True, exist_ok=True)
    fresh = checkpoint.folder / "checkpoint.partial"
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    meta = {"key": checkpoint.key, "done": str(done), "history": json.dumps(history)}
    save_file(whole, fresh, meta | {"sha256": _digest(whole, meta)})
    with open(fresh, "rb") as file:
        os.fsync(file.fileno())
    fresh.rename(checkpoint.folder / "checkpoint.safetensors")


def _digest(tensors: dict[str, Tensor], meta: dict[str, str]) -> str:
    """Of all that a checkpoint holds."""
    found = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        found.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def _parameters(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimiser.param_groups for p in group["params"]]


def read(checkpoint: Checkpoint) -> tuple[dict[str, Tensor], int, list[Any]] | None:
    """(tensors, steps done, history) as `write` took them; None without a checkpoint, or where it is damaged.

    Raises:
        InputError: for the checkpoint of another key.
    """
    path = checkpoint.folder / "checkpoint.safetensors"
    try:
        with safe_open(path, "pt") as file:
            meta = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError):
        return None
    if meta.pop("sha256", None) != _digest(tensors, meta):
        return None
    if meta["key"] != checkpoint.key:
        raise InputError(f"{path} is the checkpoint of another spec; remove it to train anew.")
    return tensors, int(meta["done"]), json.loads(meta["history"])


class _Saving:
    """Has the trainings of this process save themselves at once, since it is to end."""

    def __init__(self) -> None:
        self.changed, self.asked = threading.Condition(), False
        self.under_way, self.numbers = set[int](), itertools.count()

    @contextlib.contextmanager
    def one(self) -> Iterator[int]:
        """A training that can save itself; its number."""
        with self.changed:
            number = next(self.numbers)
            self.under_way.add(number)
        try:
            yield number
        finally:
            self.done(number)

    def done(self, number: int) -> None:
        """It has saved itself, or it has ended."""
        with self.changed:
            self.under_way.discard(number)
            self.changed.notify_all()

    def wanted(self, number: int) -> bool:
        """Whether it should, and has not."""
        return self.asked and number in self.under_way

    def all_done(self, patience: float = 1.5) -> bool:
        """Asks all, and waits so many seconds at most."""
        self.asked = True
        with self.changed:
            return self.changed.wait_for(lambda: not self.under_way, patience)


SAVING = _Saving()
