"""Which modules a net calls on an image, in what order, on tensors of what shapes: what the splitting of nets reads off."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from featcx_core.data.images import Shape
from featcx_core.errors import InputError
from featcx_core.specs import nearest

LISTED = 40  # layers that a refusal names
FEW = 3  # stages of a net; with fewer the largest is looked into


class Call(NamedTuple):
    """One call of a module: its dotted name, which of its calls it is (from 1), and shapes without the batch's size."""

    name: str
    number: int
    module: nn.Module
    given: tuple[int, ...]
    shape: tuple[int, ...]


def example(model: nn.Module, in_shape: Shape, images: int = 2) -> Tensor:
    """Noise in place of images, always the same, where the net's weights are."""
    weight = next(model.parameters(), None)
    noise = torch.randn(images, *in_shape, generator=torch.Generator().manual_seed(0))
    return noise if weight is None else noise.to(device=weight.device, dtype=weight.dtype)


@contextmanager
def jittered(model: nn.Module) -> Iterator[None]:
    """Inside, every weight is a little off: what is zero in a fresh net (gates, last layers) then hides no connection."""
    rng, kept = torch.Generator().manual_seed(1), []
    with torch.no_grad():
        for p in model.parameters():
            if p.is_floating_point() and p.device.type != "meta" and p.numel():
                kept.append((p, p.detach().clone()))
                spread = 0.1 / max(1, p[0].numel() if p.ndim else 1) ** 0.5
                p.add_((spread * torch.randn(p.shape, generator=rng)).to(p))
    try:
        yield
    finally:
        with torch.no_grad():
            for p, value in kept:
                p.copy_(value)


@torch.no_grad()
def calls(model: nn.Module, images: Tensor, giving: Tensor | None = None) -> list[Call]:
    """Every call of a submodule, in the order in which they end.

    Args:
        giving: leaves only the calls whose output is this tensor, value for value.

    Raises:
        InputError: when the net does not take such images.
    """
    found, counts = list[Call](), dict[str, int]()

    def seen(name: str) -> Any:
        def hook(module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
            counts[name] = counts.get(name, 0) + 1
            if giving is None or (_shape(result) == giving.shape[1:] and torch.equal(_tensor(result), giving)):
                found.append(Call(name, counts[name], module, _shape(given), _shape(result)))

        return hook

    hooks = [module.register_forward_hook(seen(name)) for name, module in model.named_modules() if name]
    try:
        model(images)
    except Exception as error:  # whatever the net's own code raises for images that it was not made for
        size = "×".join(map(str, images.shape[1:]))
        raise InputError(
            f"The net does not take images of {size} ({_first_line(error)}); set dataset.size, or the size that the net "
            "is built for in target.options: img_size of timm's, image_size of torchvision's nets."
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return found


def find_call(model: nn.Module, found: list[Call], layer: str) -> Call:
    """The call that `layer` means: NAME, or NAME#2 for the second call of a module that is called several times.

    Raises:
        InputError: when there is none or there are several, naming what there is.
    """
    name, _, number = layer.partition("#")
    own = [call for call in found if call.name == name]
    if not own:
        names = [n for n, _ in model.named_modules() if n]
        if name in names:
            raise InputError(f"Layer '{name}' is not used in the net's forward pass; choose another.")
        raise InputError(f"The net has no layer '{name}'; {nearest(name, names)} {listing(found)}".rstrip())
    if number and (not number.isdecimal() or not 1 <= int(number) <= len(own)):
        raise InputError(f"Layer '{name}' is called {len(own)} times; name one as {name}#1 to {name}#{len(own)}.")
    if not number and len(own) > 1:
        raise InputError(
            f"Layer '{name}' is called {len(own)} times in the net's forward pass; say which: {name}#1 to {name}#{len(own)}."
        )
    return own[int(number) - 1 if number else 0]


def listing(found: list[Call]) -> str:
    """The layers with their shapes, the outer ones first where they are many."""
    shown = [call for call in found if call.number == 1 and call.shape]
    depth = max((call.name.count(".") for call in shown), default=0)
    while depth > 0 and len(shown) > LISTED:
        depth -= 1
        shown = [call for call in shown if call.name.count(".") <= depth]
    left = len(shown) - LISTED
    told = ", ".join(f"{call.name} ({'×'.join(map(str, call.shape))})" for call in shown[:LISTED])
    return f"Layers: {told}{f', and {left} more' if left > 0 else ''}." if shown else ""


def default_layer(model: nn.Module, images: Tensor) -> str:
    """The layer in front of the head: what gives the net's `forward_features` (as timm's have it), else what ends last.

    Of the calls that give the features the outermost counts, of several such the first. Where they are one token without
    places (PiT), or there is no such method, it is the last part with places in front of the last weights that is no
    pooling. Where the features are several tensors (CoaT), no part with places has all of them: then it is what joins them.

    Raises:
        InputError: where there is none.
    """
    found, features = calls(model, images), _features(model, images)
    same = calls(model, images, features) if isinstance(features, Tensor) and _placed(features.shape[1:]) else []
    joined = isinstance(features, tuple | list) and len(features) > 1
    final = min(same, key=lambda call: call.name.count("."), default=None) or _before_head(found, "", joined)
    if final is None:
        raise InputError(f"It is not plain where the net's features end; name target.layer. {listing(found)}")
    several = sum(call.name == final.name for call in found) > 1
    return f"{final.name}#{final.number}" if several else final.name


def _before_head(found: list[Call], scope: str, joined: bool) -> Call | None:
    """The last part of a scope in front of its last weights that has places, or with `joined` any output at all."""
    own = _outermost(found, scope)
    weights = [i for i, call in enumerate(own) if _weighs(call.module)]
    if not weights:
        return None
    final = _last_part(found, own[: weights[-1]], joined)
    wraps = final is None and len(weights) == 1  # nothing but another net
    return _before_head(found, f"{own[weights[0]].name}.", joined) if wraps else final


def _last_part(found: list[Call], row: list[Call], joined: bool) -> Call | None:
    """The last of a row of calls with places, before what pools over all of them; one that gives several tensors is looked
    into.
    """
    pools = [i for i, call in enumerate(row) if _pools(call) and call.shape and math.prod(call.shape[1:]) == 1]
    for call in reversed(row[: pools[-1]] if pools and not joined else row):
        if _pools(call):
            continue
        if call.shape and (joined or _placed(call.shape)):
            return call
        within = [] if call.shape else _outermost(found, f"{call.name}.")
        if inner := _last_part(found, within, joined):
            return inner
    return None


def _outermost(found: list[Call], scope: str) -> list[Call]:
    """The calls below a scope that lie within no other called one there: entries of a list that is never called too."""
    names = {call.name for call in found if call.name.startswith(scope)}
    return [
        call for call in found if call.name in names and not any(call.name.startswith(f"{other}.") for other in names)
    ]


def stages(model: nn.Module, images: Tensor) -> list[str]:
    """The net's stages or blocks up to its default layer, in the order of their calls.

    They are the parts that hold parts of their own. Where there are fewer than three (a net that is one long row of layers,
    or of blocks), the largest gives way to its own; of a row of plain layers each counts that is the last of its size.

    Raises:
        InputError: where it is not plain where the features end.
    """
    found, last = calls(model, images), default_layer(model, images)
    at = find_call(model, found, last)
    before = found[: next(i for i, call in enumerate(found) if call[:2] == at[:2]) + 1]
    named = _parts(before, "")
    while len(named) < FEW:
        sizes = [sum(p.numel() for p in call.module.parameters()) for call in named]
        place = sizes.index(max(sizes))
        below, row = _parts(before, f"{named[place].name}."), isinstance(named[place].module, nn.Sequential)
        if not below or not (row or any(True for call in below for _ in call.module.children())):
            break  # a block: what it is made of are no stages
        named[place : place + 1] = below
    return [call.name for call in named]


def _parts(found: list[Call], scope: str) -> list[Call]:
    """The calls directly below a scope that hold parts of their own; if there are none, the last plain one of each size."""
    own = [call for call in _outermost(found, scope) if call.number == 1 and len(call.shape) >= 2]
    rows = [call for call in own if any(True for _ in call.module.children())]
    if rows:
        return rows
    plain = [call for call in own if not _pools(call)]
    following = [*plain[1:], None]
    return [c for c, after in zip(plain, following, strict=True) if after is None or c.shape[1:] != after.shape[1:]]


@torch.no_grad()
def _features(model: nn.Module, images: Tensor) -> Any:
    given: Any = getattr(model, "forward_features", None)
    return given(images) if callable(given) else None


def _placed(shape: tuple[int, ...]) -> bool:
    """Whether an output of this shape has places: a map, of whatever size, or more than one token."""
    return len(shape) > 2 or (len(shape) == 2 and min(shape) > 1)


def _pools(call: Call) -> bool:
    return "pool" in type(call.module).__name__.lower()


def _weighs(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _tensor(value: Any) -> Any:
    """What a module gives, of a tuple with one entry that."""
    return value[0] if isinstance(value, tuple | list) and len(value) == 1 else value


def _shape(value: Any) -> tuple[int, ...]:
    """A tensor's shape without the batch; of a tuple, the first entry's if it is the only tensor; else ()."""
    value = _tensor(value)
    return tuple(value.shape[1:]) if isinstance(value, Tensor) else ()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
