"""Weights from elsewhere: safetensors and torch.save files as trainings leave them. Nothing is ever unpickled but tensors."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from featcx_core.errors import InputError

NESTED = ("state_dict", "model_state_dict", "model", "model_ema")  # where trainings put a net's weights
PREFIXES = ("module.", "model.", "_orig_mod.")  # of DataParallel, Lightning and torch.compile
SHOWN = 5


def _is_zip(path: Path) -> bool:
    """As `zipfile.is_zipfile`, which raises where an archive is damaged in one way."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return True


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict in safetensors or by torch.save, alone or under one of `NESTED`.

    Raises:
        InputError: when the file is missing, damaged, holds no state dict, or needs more than tensors to be unpickled.
    """
    if not path.is_file():
        raise InputError(f"There is no checkpoint {path}; give a file of weights that exists.")
    with path.open("rb") as file:
        start = file.read(2)
    if not (_is_zip(path) or start[:1] == b"\x80"):
        try:
            return load_file(path)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} cannot be read as safetensors ({_line(error)}), nor is it a file of torch.save; "
                "give a file with the net's state dict."
            ) from error
    return _state_dict(_unpickled(path), path)


def _unpickled(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error) or "WeightsUnpickler" in str(error) or "Unsupported" in str(error):
            raise InputError(
                f"{path} holds more than tensors, which featcx does not unpickle; if you trust it, save the weights alone: "
                "torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'weights.pt'), or net.state_dict() of a net."
            ) from error
        raise InputError(f"{path} is damaged: {_line(error)}; copy it anew.") from error
    except Exception as error:  # of a damaged file torch's reader may raise anything, such as struct.error
        raise InputError(
            f"{path} cannot be read as a file of torch.save ({_line(error)}); copy or save it anew."
        ) from error


def _state_dict(value: Any, path: Path) -> dict[str, Tensor]:
    for _ in NESTED:
        if not isinstance(value, Mapping):
            break
        tensors = {str(name): entry for name, entry in value.items() if isinstance(entry, Tensor)}
        inner = next((value[name] for name in NESTED if isinstance(value.get(name), Mapping)), None)
        if inner is None and tensors:
            return tensors
        value = inner
    raise InputError(f"{path} holds no state dict, neither alone nor under {', '.join(NESTED)}; save net.state_dict().")


def fitted(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors under a net's own names and in its own types.

    Prefixes, also several, are taken off when all names then are the net's; counters of batches may be missing; half
    precision is widened.

    Args:
        tensors: as `read_checkpoint` gives them.
        own: the net's state dict.

    Raises:
        InputError: with five names at most of each kind that is missing, not the net's, of another shape or not finite.
    """
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    named = _stripped(tensors, set(own), counters)
    missing = [name for name in own if name not in named and name not in counters]
    unexpected = [name for name in named if name not in own]
    other = [
        f"{name} ({_size(named[name])} where the net has {_size(own[name])})"
        for name in own
        if name in named and named[name].shape != own[name].shape
    ]
    if missing or unexpected or other:
        kinds = (("missing", missing), ("not the net's", unexpected), ("of another shape", other))
        told = "; ".join(f"{kind}: {_some(names)}" for kind, names in kinds if names)
        raise InputError(f"{path} is the checkpoint of another network: {told}. Check net, options and classes.")
    broken = [name for name, value in named.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise InputError(
            f"{path} has weights that are not finite (NaN or infinite): {_some(broken)}; its training diverged, give another."
        )
    return {name: named.get(name, value).to(value.dtype) for name, value in own.items()}


def _stripped(tensors: Mapping[str, Tensor], own: set[str], counters: set[str]) -> dict[str, Tensor]:
    """The tensors without the prefixes that all names share, if all then are the net's and none but counters is missing."""
    named, waiting = dict(tensors), dict(tensors)
    while True:
        if set(waiting) <= own and own - set(waiting) <= counters:
            return waiting
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in waiting)), None)
        if prefix is None or not waiting:
            return named
        waiting = {name.removeprefix(prefix): value for name, value in waiting.items()}


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(f"'{name}'" for name in names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _size(value: Tensor) -> str:
    return "×".join(map(str, value.shape)) or "a number"


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
