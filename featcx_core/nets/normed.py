"""relu(BatchNorm(x) + shortcut), the nonlinear layer of every block, in two passes over memory each way.

PyTorch runs it as three operations forwards and three backwards, 40% of a step of the default preset's nets. On CPUs a
kernel in C++ (normed.cpp) takes their place while training; elsewhere it is plain PyTorch, and they differ by rounding.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featcx_core.kernels import kernel

KERNEL = Path(__file__).with_name("normed.cpp")

DOUBLE, INT = ctypes.c_double, ctypes.c_int64


def norm_add_relu(norm: nn.BatchNorm2d, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
    """relu(norm(x) + shortcut), (n, C, H, W) each; in training the running statistics are updated as by the norm itself."""
    library = kernel(KERNEL) if _suits(norm, x, shortcut) else None
    if library is None:
        y = norm(x)
        return F.relu(y if shortcut is None else y + shortcut)
    y, mean, var = _NormAddRelu.apply(library, x, shortcut, norm.weight, norm.bias, norm.eps)
    rows, momentum = x.numel() // len(mean), norm.momentum or 0.0
    for kept, new in ((norm.running_mean, mean), (norm.running_var, var * (rows / (rows - 1)))):
        assert kept is not None
        kept.lerp_(new, momentum)
    norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
    return y


def _suits(norm: nn.BatchNorm2d, x: Tensor, shortcut: Tensor | None) -> bool:
    """Whether the kernel does what plain PyTorch would: training of an affine norm on channels-last tensors of a CPU."""
    return (
        norm.training
        and x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and x.dtype in (torch.bfloat16, torch.float32)
        and norm.weight.dtype == torch.float32
        and x.shape[1] % 8 == 0
        and x.numel() > x.shape[1]
        and x.is_contiguous(memory_format=torch.channels_last)
        and (shortcut is None or (shortcut.dtype == x.dtype and shortcut.shape == x.shape))
    )


class _NormAddRelu(torch.autograd.Function):
    """(y, mean, biased variance) of the kernel, on as many threads as torch may use."""

    @staticmethod
    def forward(
        ctx: Any, library: Any, x: Tensor, shortcut: Tensor | None, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, mean = torch.empty_like(x), torch.empty_like(weight)
        var = torch.empty_like(mean)
        beside = None if shortcut is None else shortcut.contiguous(memory_format=torch.channels_last)
        library.normed_forward(*_pointers(x, beside, weight, bias), *_sizes(x, eps), *_pointers(mean, var, y))
        ctx.save_for_backward(y, x, weight, mean, var)
        ctx.library, ctx.eps, ctx.has_shortcut = library, eps, shortcut is not None
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
        y, x, weight, mean, var = ctx.saved_tensors
        grad = grad.to(x.dtype).contiguous(memory_format=torch.channels_last)
        to_x, to_weight, to_bias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
        to_shortcut = torch.empty_like(x) if ctx.has_shortcut else None
        inputs, found = (grad, y, x, weight, mean, var), (to_x, to_shortcut, to_weight, to_bias)
        ctx.library.normed_backward(*_pointers(*inputs), *_sizes(x, ctx.eps), *_pointers(*found))
        return None, to_x, to_shortcut, to_weight, to_bias, None


def _pointers(*tensors: Tensor | None) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]


def _sizes(x: Tensor, eps: float) -> list[Any]:
    channels, half = x.shape[1], x.dtype == torch.bfloat16
    return [INT(x.numel() // channels), INT(channels), DOUBLE(eps), INT(half), INT(torch.get_num_threads())]
