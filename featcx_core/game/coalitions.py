"""Sums of components over coalitions, and the losses of heads that pool them.

For a head [ReLU] → mean over H×W → tail one pass over a sample's components gives 2^L vectors of C channels, and the tail
runs on those alone. Without the ReLU the mean is linear, and the components' means suffice. On CPUs the pass is a kernel in
C++ (coalitions.cpp), on GPUs torch compiles it, and where no compiler works it is plain PyTorch; they differ by rounding.
"""

from __future__ import annotations

import ctypes
import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featcx_core.game.pooled import PooledHead
from featcx_core.kernels import kernel

KERNEL = Path(__file__).with_name("coalitions.cpp")
ROOT = 8  # players whose 2^8 coalitions are pooled at a time; coalitions.cpp takes no more
LOW = 4  # players whose subsets torch's kernel writes out
PLAIN_ROWS = 16  # of the plain pass: with 2^4 coalitions of 64×8×8 it stays within the last-level cache
GEOMETRIES = 100  # shapes that torch may compile in one process
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


def _relu_totals(root: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """Total over places (C, b, 2^k) of relu(root + Σ of every subset of the parts), each (b, C, P)."""
    device = root.device.type
    return (_compiled_totals if device == "cuda" and device not in BROKEN else _plain)(root, parts)


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


def _plain(root: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """Operation by operation."""
    low, k = parts[:LOW], len(parts)
    totals = root.new_empty(root.shape[1], len(root), 2**k)
    for start in range(0, len(root), PLAIN_ROWS):
        rows = slice(start, start + PLAIN_ROWS)
        upper, lower = [part[rows] for part in (*parts[LOW:], root)], [part[rows] for part in low]
        sums = root.new_empty(2 ** len(low), *upper[-1].shape)
        for a in range(2 ** (k - len(low))):
            subset_sums(members_sum(upper, a), lower, sums)
            totals[:, rows, a << len(low) : a + 1 << len(low)] = sums.relu_().sum(-1).permute(2, 1, 0)
    return totals


def _subset_totals(members: Tensor, root: Tensor, upper: Sequence[Tensor], lower: Sequence[Tensor]) -> Tensor:
    """_relu_totals in a form that torch compiles to one kernel, which reads a sample from memory once.

    The subsets of `upper` are rows of the 0/1 matrix `members` (A, u); those of `lower` are written out.
    """
    base = root[:, None, None]
    for i, part in enumerate(upper):
        base = base + members[:, i, None, None, None] * part[:, None, None]
    sums = [base]
    for part in lower:
        sums += [total + part[:, None, None] for total in sums]
    return torch.cat([total.relu().sum(-1) for total in sums], 2).flatten(1, 2).permute(2, 0, 1)


def _compiled_totals(root: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """_subset_totals compiled; _plain where compiling fails.

    Rows are padded to a power of 2, so that what is compiled for them does not depend on which batches came before.
    """
    import torch._dynamo

    rows = len(root)
    padding = (0, 0, 0, 0, 0, (1 << (rows - 1).bit_length()) - rows)
    if padding[-1]:
        root, parts = F.pad(root, padding), [F.pad(part, padding) for part in parts]
    upper = parts[LOW:]
    subsets = torch.arange(2 ** len(upper), device=root.device)
    members = (subsets[:, None] >> torch.arange(len(upper), device=root.device) & 1).to(root.dtype)
    try:
        with torch._dynamo.config.patch(recompile_limit=GEOMETRIES):
            return _compiled()(members, root, list(upper), list(parts[:LOW]))[:, :rows]
    except Exception as error:
        BROKEN.add(root.device.type)
        log.warning(
            "torch.compile does not work for %s here (%s); coalitions are summed in plain PyTorch.",
            root.device.type,
            error,
        )
        return _plain(root, parts)[:, :rows]


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    """The compiled pass; torch's compiler takes seconds to import, so it is asked for only here."""
    return torch.compile(_subset_totals, dynamic=False, fullgraph=True)
