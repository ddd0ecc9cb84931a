"""Sums of components over coalitions, and the losses of heads that pool them.

For a head [ReLU] → mean over H×W → tail one pass over a sample's components gives 2^L vectors of C channels, and the tail
runs on those alone. Without the ReLU the mean is linear, and the components' means suffice. On CPUs the pass is a kernel in
C++ (coalitions.cpp); on GPUs, and where no compiler works, it is plain PyTorch. They differ by rounding.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featcx_core.game.pooled import PooledHead
from featcx_core.kernels import kernel

KERNEL = Path(__file__).with_name("coalitions.cpp")
ROOT = 8  # players whose 2^8 coalitions are pooled at a time; coalitions.cpp takes no more
LOW = 4  # players whose subsets the plain pass holds at once
PLAIN_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20}  # of their sums: on a CPU they stay within the last-level cache


def subset_sums(base: Tensor, parts: Sequence[Tensor], out: Tensor) -> Tensor:
    """Σ over every subset of `parts` plus the base, in `out` (2^k, …) by bitmask: one addition an element and subset.

    Each sum is of at most k additions, so that no rounding piles up as along a walk.
    """
    out[0] = base
    for i, part in enumerate(parts):
        torch.add(out[: 1 << i], part, out=out[1 << i : 2 << i])
    return out


def cross_entropies(by_class: Tensor, labels: Tensor) -> Tensor:
    """In nats, (a, b), from logits by class (K, a, b) and labels that broadcast to (a, b).

    The softmax runs over the first dimension: over a last one of K = 10 it takes thirty times as long.
    """
    expected = labels.expand(by_class.shape[1:])
    return F.cross_entropy(by_class.float().contiguous()[None], expected[None], reduction="none")[0]


def pooled_losses(parts: Sequence[Tensor], labels: Tensor, head: PooledHead) -> Tensor:
    """Cross-entropy of every coalition, float32 (b, 2^L), for a head that pools.

    Args:
        parts: L components and then the residual, float32 (b, C, H, W) each.
        labels: (b,).
    """
    players, (b, channels, h, w) = len(parts) - 1, parts[0].shape
    flat = [part.reshape(b, channels, h * w) for part in parts]
    if not head.relu:  # the mean is linear, so that coalitions are sums of totals
        flat = [part.sum(-1, keepdim=True) for part in flat]
    losses = torch.empty(b, 2**players, device=labels.device)
    block = min(players, ROOT)
    for start in range(0, 2**players, 2**block):
        logits = _logits_by_class(members_sum(flat, start), flat[:block], head, h * w)
        losses[:, start : start + 2**block] = cross_entropies(logits.unflatten(1, (b, -1)), labels[:, None])
    return losses


def _logits_by_class(root: Tensor, parts: Sequence[Tensor], head: PooledHead, places: int) -> Tensor:
    """(K, b·2^k): the head on root + Σ of every subset of the parts, each part and the root (b, C, P).

    `places` are what the head takes its mean over: P, or for totals that stand for them their number.
    """
    linear = head.linear
    library = kernel(KERNEL) if head.relu and _all_float32(root, *parts, linear) else None
    if library and linear is not None:
        return _native(library, root, parts, linear)
    if library:
        totals = _native(library, root, parts, None)
    else:
        totals = (_relu_totals if head.relu else _totals)(root, parts).flatten(1)
    if linear is not None:
        return torch.addmm(_bias(linear)[:, None], linear.weight, totals, alpha=1 / places)
    means = totals.T / places
    return head.tail(means[:, :, None, None] if head.keepdim else means).T


def _all_float32(*used: Tensor | nn.Linear | None) -> bool:
    """Whether these are all on the CPU and float32: what the kernel takes."""
    tensors = [part.weight if isinstance(part, nn.Linear) else part for part in used if part is not None]
    return all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)


def _bias(linear: nn.Linear) -> Tensor:
    return linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias


def members_sum(parts: Sequence[Tensor], coalition: int) -> Tensor:
    """The last of the parts plus those that are in the coalition."""
    total = parts[-1]
    for i, part in enumerate(parts[:-1]):
        if coalition >> i & 1:
            total = total + part
    return total


def _totals(root: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """Total over places (C, b, 2^k) of root + Σ of every subset of the parts, each (b, C, P)."""
    base, added = root.sum(-1).T, [part.sum(-1).T for part in parts]
    return subset_sums(base, added, base.new_empty(2 ** len(parts), *base.shape)).permute(1, 2, 0)


def _native(library: ctypes.CDLL, root: Tensor, parts: Sequence[Tensor], linear: nn.Linear | None) -> Tensor:
    """The same by coalitions.cpp, (C, b·2^k), or with a linear layer of the means its outputs (K, b·2^k).

    It runs on as many threads as torch may use.
    """
    rows, channels, places = root.shape
    ordered = [part if part[0].is_contiguous() else part.contiguous() for part in (*parts, root)]
    layer = [] if linear is None else [(linear.weight / places).contiguous(), _bias(linear).contiguous()]
    out = root.new_empty(linear.out_features if linear else channels, rows * 2 ** len(parts))
    library.relu_totals(
        (ctypes.c_void_p * len(ordered))(*[part.data_ptr() for part in ordered]),
        (ctypes.c_int64 * len(ordered))(*[part.stride(0) for part in ordered]),
        *[ctypes.c_int64(size) for size in (len(parts), rows, channels, places)],
        *([ctypes.c_void_p(tensor.data_ptr()) for tensor in layer] or [ctypes.c_void_p(None)] * 2),
        ctypes.c_int64(linear.out_features if linear else 0),
        ctypes.c_int64(torch.get_num_threads()),
        ctypes.c_void_p(out.data_ptr()),
    )
    return out


def _relu_totals(root: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """Total over places (C, b, 2^k) of relu(root + Σ of every subset of the parts), each (b, C, P)."""
    low, k, device = parts[:LOW], len(parts), root.device.type
    totals = root.new_empty(root.shape[1], len(root), 2**k)
    at_once = max(1, PLAIN_BYTES.get(device, PLAIN_BYTES["cpu"]) // (4 * math.prod(root.shape[1:]) << len(low)))
    for start in range(0, len(root), at_once):
        rows = slice(start, start + at_once)
        upper, lower = [part[rows] for part in (*parts[LOW:], root)], [part[rows] for part in low]
        sums = root.new_empty(2 ** len(low), *upper[-1].shape)
        for a in range(2 ** (k - len(low))):
            subset_sums(members_sum(upper, a), lower, sums)
            totals[:, rows, a << len(low) : a + 1 << len(low)] = sums.relu_().sum(-1).permute(2, 1, 0)
    return totals
