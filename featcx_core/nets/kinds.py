"""A saved network of any class. Stages name the class instead, so that their keys see the code that runs it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from featcx_core.errors import InputError
from featcx_core.nets.disentangler import Disentangler
from featcx_core.nets.improved import ImprovedNet
from featcx_core.nets.targets import TargetNet
from featcx_core.nets.trunk import Trunk
from featcx_core.nets.weights import description, read_network

KINDS = {kind.__name__: kind for kind in (TargetNet, Disentangler, Trunk, ImprovedNet)}


def load_network(
    folder: str | Path, kind: type[nn.Module] | None = None, device: torch.device | str = "cpu"
) -> nn.Module:
    """The network that `save_network` wrote, in evaluation mode.

    Args:
        kind: its class; None takes the one that the folder names, out of those that featcx saves.

    Raises:
        InputError: when the folder holds no such network.

    >>> import tempfile, featcx_core as fx
    >>> from pathlib import Path
    >>> net = fx.Disentangler(1, (1, 8, 8), (3, 2, 2), width=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fx.save_network(net, Path(folder))
    ...     fx.load_network(folder).order
    4
    """
    named = description(Path(folder))["kind"]
    if kind is None and named not in KINDS:
        raise InputError(f"{folder} holds a {named!r}; featcx loads {', '.join(KINDS)}.")
    return read_network(folder, kind or KINDS[named], device)
