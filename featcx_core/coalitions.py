"""Sums of components over coalitions, and the losses of heads that pool them.

For a head [ReLU] → mean over H×W → tail one pass over a sample's components gives 2^L vectors of C channels, and the tail
runs on those alone. Without the ReLU the mean is linear, and the components' means suffice. The pass is compiled where a
compiler is installed and the work is worth it, and plain PyTorch elsewhere; the two differ by rounding.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from featcx_core.pooled import PooledHead

LOW = 4  # players whose subsets the kernel writes out: 2^4 running sums fit a core's vector registers, 2^5 do not
ROOT = 8  # players whose 2^8 coalitions are pooled at a time
FUSED_FROM = 2**18  # additions a sample from which compiling, some seconds once a machine, is worth its while
PLAIN_ROWS = 16  # of the plain pass: with 2^4 coalitions of 64×8×8 it stays within the last-level cache
GEOMETRIES = 100  # shapes that may be compiled in one process
BROKEN: set[str] = set()  # device types on which compiling has failed in this process

log = logging.getLogger(__name__)


def subset_sums(base: Tensor, parts: Sequence[Tensor], out: Tensor) -> Tensor:
    """Σ over every subset of `parts` plus the base, in `out` (2^k, …) by bitmask: one addition an element and subset.

    Each sum is of at most k additions, so that no rounding piles up as along a walk.
    """
    out[0] = base
    for i, part in enumerate(parts):
        torch.add(out[: 1 << i], part, out=out[1 << i : 2 << i])
    return out


def cross_entropies(by_class: Tensor, labels: Tensor) -> Tensor:
    """In nats, (rows,), from logits by class (K, rows) and labels (rows,).

    The softmax runs over the first dimension: over a last one of K = 10 it takes thirty times as long.
    """
    return F.cross_entropy(by_class.float().contiguous()[None], labels[None], reduction="none")[0]


def pooled_losses(parts: Sequence[Tensor], labels: Tensor, head: PooledHead, rows: int) -> Tensor:
    """Cross-entropy of every coalition, float32 (b, 2^L), for a head that pools.

    Args:
        parts: L components and then the residual, float32 (b, C, H, W) each.
        labels: (b,).
        rows: b is padded to this before the kernel, so that it is compiled once.
    """
    players, (b, channels, h, w) = len(parts) - 1, parts[0].shape
    flat = [part.reshape(b, channels, h * w) for part in parts]
    losses = torch.empty(b, 2**players, device=labels.device)
    for start, totals in _relu_totals(flat, rows) if head.relu else _totals(flat):
        logits = _logits_by_class(totals.reshape(-1, channels), h * w, head)
        block = totals.shape[1]
        losses[:, start : start + block] = cross_entropies(logits, labels.repeat_interleave(block)).view(b, block)
    return losses


def _logits_by_class(totals: Tensor, places: int, head: PooledHead) -> Tensor:
    """(K, rows) from the totals over places (rows, C)."""
    if head.linear is not None:
        weight, bias = head.linear.weight, head.linear.bias
        shift = weight.new_zeros(len(weight)) if bias is None else bias
        return torch.addmm(shift[:, None], weight, totals.T, alpha=1 / places)
    means = totals / places
    return head.tail(means[:, :, None, None] if head.keepdim else means).T


def _totals(parts: Sequence[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """(first coalition, total over places of each coalition's sum (b, S, C)): linear, so only totals are added."""
    totals, players = [part.sum(-1) for part in parts], len(parts) - 1
    block = min(players, ROOT)
    for start in range(0, 2**players, 2**block):
        root = members_sum(totals, start)
        sums = subset_sums(root, totals[:block], root.new_empty(2**block, *root.shape))
        yield start, sums.transpose(0, 1)


def members_sum(parts: Sequence[Tensor], coalition: int) -> Tensor:
    """The last of the parts plus those that are in the coalition."""
    total = parts[-1]
    for i, part in enumerate(parts[:-1]):
        if coalition >> i & 1:
            total = total + part
    return total


def _relu_totals(parts: Sequence[Tensor], rows: int) -> Iterator[tuple[int, Tensor]]:
    """(first coalition, total over places of relu of each coalition's sum (b, S, C))."""
    players, (b, channels, places) = len(parts) - 1, parts[0].shape
    low, block = min(players, LOW), min(players, ROOT)
    fused = 2**players * channels * places >= FUSED_FROM and _compiles(parts[0].device)
    if fused and b < rows:
        parts = [F.pad(part, (0, 0, 0, 0, 0, rows - b)) for part in parts]
    for start in range(0, 2**players, 2**block):
        root = members_sum(parts, start)
        yield start, (_fused if fused else _plain)(root, parts[low:block], parts[:low]).flatten(1, 2)[:b]


def _subset_totals(
    members: Tensor, one: Tensor, root: Tensor, upper: Sequence[Tensor], lower: Sequence[Tensor]
) -> Tensor:
    """Total over places (b, A, 2^k, C) of relu(root + Σ of a subset of the parts), each part and the root (b, C, P).

    The subsets of `upper` are rows of the 0/1 matrix `members` (A, u), those of the k `lower` are written out. `one` is 1:
    its product with a part changes no bit, but makes of the addition a fused multiply-add, which does not compete with
    the maxima and the totals for a core's adders (8.4 against 10.5 µs for 64 subsets of 64×8×8 on Zen 5).
    """
    base = root[:, None, None]
    for i, part in enumerate(upper):
        base = base + members[:, i, None, None, None] * part[:, None, None]
    sums = [base]
    for part in lower:
        sums += [total + one * part[:, None, None] for total in sums]
    return torch.cat([total.relu().sum(-1) for total in sums], 2)


def _plain(root: Tensor, upper: Sequence[Tensor], lower: Sequence[Tensor]) -> Tensor:
    """The same operation by operation."""
    totals = root.new_empty(len(root), 2 ** len(upper), 2 ** len(lower), root.shape[1])
    for start in range(0, len(root), PLAIN_ROWS):
        rows = slice(start, start + PLAIN_ROWS)
        uppers, lowers = [part[rows] for part in (*upper, root)], [part[rows] for part in lower]
        sums = root.new_empty(2 ** len(lower), *uppers[-1].shape)
        for a in range(2 ** len(upper)):
            subset_sums(members_sum(uppers, a), lowers, sums)
            totals[rows, a] = sums.relu_().sum(-1).transpose(0, 1)
    return totals


def _fused(root: Tensor, upper: Sequence[Tensor], lower: Sequence[Tensor]) -> Tensor:
    """_subset_totals as one kernel, which reads a sample from memory once; _plain where compiling fails."""
    import torch._dynamo

    device, subsets = root.device.type, torch.arange(2 ** len(upper), device=root.device)
    members = torch.stack([subsets >> i & 1 for i in range(len(upper))], 1) if upper else subsets[:, None]
    try:
        with torch._dynamo.config.patch(recompile_limit=GEOMETRIES):
            return _compiled()(members.to(root.dtype), root.new_ones(()), root, list(upper), list(lower))
    except Exception as error:
        BROKEN.add(device)
        log.warning(
            "torch.compile does not work for %s here (%s); coalitions are summed in plain PyTorch.", device, error
        )
        return _plain(root, upper, lower)


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    """The compiled pass; it is imported here since torch's compiler takes seconds to import."""
    from torch._inductor import config

    options: dict[str, Any] = {
        # Else the sums of the upper parts, which many sums read, are written to memory first: 2 µs a sample.
        "realize_reads_threshold": 1000,
        "realize_acc_reads_threshold": 1000,
        "realize_opcount_threshold": 1000,
        "cpp.enable_floating_point_contract_flag": "fast",  # for the product with one; else there is none to contract
    }
    known = {name: value for name, value in options.items() if name in config.get_config_copy()}
    return torch.compile(_subset_totals, dynamic=False, fullgraph=True, options=known)


def _compiles(device: torch.device) -> bool:
    """Whether what torch.compile needs for this device is installed; never a matter of timing."""
    if device.type in BROKEN:
        return False
    if device.type == "cpu":
        return shutil.which(os.environ.get("CXX", "g++")) is not None
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None
