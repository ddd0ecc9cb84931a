"""Networks on disk: weights as safetensors beside a config that says how to build them. Nothing is ever unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors.torch import save_file
from torch import nn

from featcx_core.errors import InputError
from featcx_core.nets.checkpoints import fitted, read_checkpoint
from featcx_core.seeds import seeded


class Configured(Protocol):
    """A module that knows the keyword arguments which build another of its shape."""

    config: dict[str, Any]


M = TypeVar("M", bound=nn.Module)


def save_network(module: nn.Module, folder: Path) -> None:
    """Writes weights.safetensors and network.json (class name and `module.config`) into `folder`.

    >>> import tempfile, featcx_core as fx
    >>> from pathlib import Path
    >>> net = fx.Disentangler(1, (1, 8, 8), (3, 2, 2), width=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fx.save_network(net, Path(folder))
    ...     fx.load_network(folder).order
    4
    """
    folder.mkdir(parents=True, exist_ok=True)
    described = {"kind": type(module).__name__, "config": module.config}
    (folder / "network.json").write_text(json.dumps(described, indent=1, sort_keys=True), encoding="utf-8")
    # Clones: safetensors takes no tensors that share their memory, as tied weights do.
    tensors = {k: v.cpu().clone(memory_format=torch.contiguous_format) for k, v in module.state_dict().items()}
    save_file(tensors, folder / "weights.safetensors")


def read_network(folder: str | Path, kind: type[M], device: torch.device | str = "cpu") -> M:
    """The network of this class that `save_network` wrote, in evaluation mode.

    Raises:
        InputError: when the folder holds no network of this class.
    """
    folder = Path(folder)
    described = description(folder)
    if described["kind"] != kind.__name__:
        raise InputError(
            f"{folder} holds a {described['kind']}, not a {kind.__name__}; give the folder of another stage."
        )
    # The weights drawn here are replaced, but the draws would shift those of a net made in another thread.
    with seeded(0):
        module = kind(**{name: _tuples(value) for name, value in described["config"].items()})
    load_weights(module, folder / "weights.safetensors")
    return module.to(device).eval()


def description(folder: Path) -> dict[str, Any]:
    """Class name and `config` of the network in a folder.

    Raises:
        InputError: when it holds none.
    """
    if not (folder / "network.json").exists():
        raise InputError(f"{folder} holds no network; give a folder with network.json and weights.safetensors.")
    return json.loads((folder / "network.json").read_text(encoding="utf-8"))


def load_weights(module: nn.Module, path: Path) -> None:
    """Loads a file of weights, as `read_checkpoint` takes it, into `module`.

    Raises:
        InputError: when the file is missing, damaged, of another network, or of a training that diverged.
    """
    module.load_state_dict(fitted(read_checkpoint(path), module.state_dict(), path))


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tuples(entry) for name, entry in value.items()}
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
