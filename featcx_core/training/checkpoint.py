"""Checkpoints of a training: all of its state in one file, from which it goes on to the same bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
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


def save(
    checkpoint: Checkpoint,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    running: Tensor,
    done: int,
    history: Sequence[Any],
) -> None:
    """Saves a training: its net, its optimiser and its running loss."""
    tensors = {f"model.{name}": value.contiguous() for name, value in model.state_dict().items()}
    for i, parameter in enumerate(_parameters(optimiser)):  # one that takes no part in the loss has no state
        state = optimiser.state.get(parameter, {})
        tensors |= {f"optimiser.{i}.{name}": value.contiguous() for name, value in state.items()}
    write(checkpoint, tensors | {"running": running}, done, history)


def write(checkpoint: Checkpoint, tensors: dict[str, Tensor], done: int, history: Sequence[Any] = ()) -> None:
    """Writes one file beside the old one and renames it over it, so a kill at any moment leaves a whole checkpoint."""
    checkpoint.folder.mkdir(parents=True, exist_ok=True)
    fresh = checkpoint.folder / "checkpoint.partial"
    meta = {"key": checkpoint.key, "done": str(done), "history": json.dumps(history)}
    save_file(tensors, fresh, meta)
    with open(fresh, "rb") as file:
        os.fsync(file.fileno())
    fresh.rename(checkpoint.folder / "checkpoint.safetensors")


def _parameters(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimiser.param_groups for p in group["params"]]


def resumed(
    checkpoint: Checkpoint, model: nn.Module, optimiser: torch.optim.Optimizer, running: Tensor
) -> tuple[int, list[Any]] | None:
    """Loads the checkpoint of this key into model, optimiser and running loss: (steps done, history), None without one."""
    if (found := read(checkpoint)) is None:
        return None
    tensors, done, history = found
    model.load_state_dict({n.removeprefix("model."): v for n, v in tensors.items() if n.startswith("model.")})
    running.copy_(tensors["running"])
    for i, parameter in enumerate(_parameters(optimiser)):
        prefix = f"optimiser.{i}."
        for name, value in tensors.items():
            if name.startswith(prefix):
                like = parameter if value.shape == parameter.shape else value  # for its layout
                own = torch.empty_like(like, dtype=value.dtype, device=parameter.device)
                optimiser.state[parameter][name.removeprefix(prefix)] = own.copy_(value)
    return done, history


def read(checkpoint: Checkpoint) -> tuple[dict[str, Tensor], int, list[Any]] | None:
    """(tensors, steps done, history) as `write` took them; None without a checkpoint.

    Raises:
        InputError: for the checkpoint of another key.
    """
    path = checkpoint.folder / "checkpoint.safetensors"
    if not path.exists():
        return None
    with safe_open(path, "pt") as file:
        meta = file.metadata()
        if meta["key"] != checkpoint.key:
            raise InputError(f"{path} is the checkpoint of another spec; remove it to train anew.")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    return tensors, int(meta["done"]), json.loads(meta["history"])
