"""Activations that are computed again on the way back rather than kept: the same bytes in less memory, a third more work."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or a CPU."""
    words = ("not enough memory", "can't allocate memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(part in str(error).lower() for part in words)
    )


@contextlib.contextmanager
def recomputing(net: nn.Module) -> Iterator[None]:
    """Inside, each block of a net keeps its input alone. Random numbers are drawn again as they were.

    The global generator is set back meanwhile, so other threads must not draw from it (`seeds.seeded`).
    """
    blocks = blocks_of(net)
    for block in blocks:
        block.forward = functools.partial(_recomputed, block, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def blocks_of(net: nn.Module) -> list[nn.Module]:
    """The innermost modules in a net's sequences that are made of several; without any, the parts of the net itself."""
    rows = [module for module in net.modules() if isinstance(module, nn.Sequential | nn.ModuleList)]
    made = dict.fromkeys(child for row in rows for child in row if any(True for _ in child.children()))
    inner = [block for block in made if not any(part in made for part in block.modules() if part is not block)]
    return inner or [child for child in net.children() if any(True for _ in child.parameters())]


def _recomputed(block: nn.Module, forward: Any, *given: Any, **named: Any) -> Any:
    return checkpoint(
        forward, *given, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), _told(block)), **named
    )


@contextlib.contextmanager
def _told(block: nn.Module) -> Iterator[None]:
    """Running statistics have been told of this batch on the way forwards."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    kept = [(norm, norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]  # type: ignore[union-attr]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in kept:
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)  # type: ignore[union-attr]
