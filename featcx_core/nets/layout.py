"""Features of every shape, brought to (C, H, W): maps with channels first or last, tokens, vectors."""

from __future__ import annotations

import math

from torch import Tensor, nn

from featcx_core.data.images import Shape
from featcx_core.errors import InputError
from featcx_core.nets.calls import Call
from featcx_core.specs import Layout

DIMENSIONS: dict[int, tuple[Layout, ...]] = {3: ("chw", "hwc"), 2: ("td", "dt"), 1: ("d",)}
# By definition; what follows may take the same numbers in another order, where rows, columns and channels are as many.
CHANNELS_FIRST = (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
PREFIX = 16  # tokens beside the patches at most


class Canonical(nn.Module):
    """What a layer gives, as maps (n, C, H, W); tokens (n, T, D) as (n, D, T, 1), vectors (n, D) as (n, D, 1, 1)."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, x: Tensor) -> Tensor:
        if self.layout == "hwc":
            return x.permute(0, 3, 1, 2)
        if self.layout == "td":
            return x.transpose(1, 2).unsqueeze(3)
        return x.reshape(*x.shape, *(1,) * (4 - x.ndim))


class Original(nn.Module):
    """The inverse of `Canonical`: maps as the layer itself gives them, in memory's order."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, x: Tensor) -> Tensor:
        if self.layout == "hwc":
            return x.permute(0, 2, 3, 1).contiguous()
        if self.layout == "td":
            return x.squeeze(3).transpose(1, 2).contiguous()
        return x.flatten(1) if self.layout == "d" else x.squeeze(3).contiguous()


def canonical_shape(shape: tuple[int, ...], layout: Layout) -> Shape:
    """(C, H, W) of a layer's output, given its own shape without the batch."""
    if layout == "hwc":
        return shape[2], shape[0], shape[1]
    if layout == "td":
        return shape[1], shape[0], 1
    c, h, w = (*shape, 1, 1)[:3]
    return c, h, w


def find_layout(found: list[Call], at: Call, asked: Layout | None) -> Layout:
    """How a layer's output is laid out: as asked, else as the modules beside it declare their channels.

    Conclusive is the first module after the layer that declares channels and takes a tensor of that very shape, then the
    last that gave one, then the first after it that declares a number that only one of the two dimensions has.

    Raises:
        InputError: for an output that is no map, tokens or vector, or not of the layout asked for.
    """
    if len(at.shape) not in DIMENSIONS:
        kind = f"a tensor of {len(at.shape)} dimensions a sample" if at.shape else "no single tensor"
        raise InputError(f"Layer '{at.name}' gives {kind}; choose one that gives a map, tokens or a vector.")
    choices = DIMENSIONS[len(at.shape)]
    if asked is not None:
        if asked not in choices:
            size = "×".join(map(str, at.shape))
            raise InputError(
                f"target.layout = '{asked}' does not fit layer '{at.name}', which gives {size}: {' or '.join(choices)}."
            )
        return asked
    if len(choices) == 1 or isinstance(at.module, CHANNELS_FIRST):
        return choices[0]
    usual = choices[0]
    if len(at.shape) == 2 and min(at.shape) == 1:  # one token, not one channel
        return "td" if at.shape[0] == 1 else "dt"
    i = found.index(at)
    before, after = [c for c in reversed(found[: i + 1]) if _declared(c.module)], found[i + 1 :]
    after = [c for c in after if _declared(c.module)]
    votes = [_vote(c, at.shape, choices) for c in after[:4] if c.given == at.shape]
    votes += [_vote(c, at.shape, choices) for c in before[:4] if c.shape == at.shape]
    votes += [_vote(c, at.shape, choices) for c in after[:1]]
    return next((vote for vote in votes if vote is not None), usual)


def patch_grid(found: list[Call], at: Call, layout: Layout) -> tuple[int, int] | None:
    """(h, w) of the patches among tokens: of the last map before them whose places they number, up to `PREFIX` more.

    Where no map tells, the largest square. None for what is no sequence of tokens.
    """
    if layout not in ("td", "dt"):
        return None
    tokens = at.shape[0] if layout == "td" else at.shape[1]
    for call in reversed(found[: found.index(at)]):
        maps = isinstance(call.module, nn.Conv2d) and len(call.shape) == 3
        if maps and 0 <= tokens - math.prod(call.shape[1:]) <= PREFIX and math.prod(call.shape[1:]) > PREFIX // 8:
            return call.shape[1], call.shape[2]
    return math.isqrt(tokens), math.isqrt(tokens)


def _declared(module: nn.Module) -> int | None:
    """The number of channels that a module says it takes."""
    for name in ("in_channels", "num_features", "num_channels", "in_features"):
        if isinstance(value := getattr(module, name, None), int) and list(module.parameters(recurse=False)):
            return value
    shape = getattr(module, "normalized_shape", None)
    return shape[-1] if isinstance(shape, tuple | list) and len(shape) == 1 else None


def _vote(call: Call, shape: tuple[int, ...], choices: tuple[Layout, ...]) -> Layout | None:
    first_is_channels = choices[0] == "chw"
    sizes = {
        _declared(call.module),
        getattr(call.module, "out_channels", None),
        getattr(call.module, "out_features", None),
    }
    first, last = shape[0] in sizes, shape[-1] in sizes
    if first and last:  # a Linear and a plain LayerNorm work on the last dimension, whatever its size
        last, first = isinstance(call.module, nn.Linear) or type(call.module) is nn.LayerNorm, False
        first = not last
    if first == last:
        return None
    return choices[0] if first == first_is_channels else choices[1]
