"""A net run whole, stopped at one call of a layer or with that call's output replaced: for nets whose graph nobody knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from featcx_core.data.images import Shape
from featcx_core.nets.calls import Call
from featcx_core.nets.graphs import CannotCut


class _Reached(Exception):
    """The layer was called: what follows is not needed."""


@contextmanager
def _at_call(model: nn.Module, layer: str, number: int, act: Callable[[Any], Any]) -> Iterator[None]:
    """Inside, `act` is given the output of the layer's call of this number and gives what goes on in its place."""
    seen = 0

    def hook(module: nn.Module, given: Any, result: Any) -> Any:
        nonlocal seen
        seen += 1
        return act(result) if seen == number else None

    handle = model.get_submodule(layer).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


class HookedFeature(nn.Module):
    """Images to the output of one call of a layer; the net is stopped there."""

    def __init__(self, model: nn.Module, layer: str, number: int) -> None:
        super().__init__()
        self.model, self.layer, self.number = model, layer, number

    def forward(self, x: Tensor) -> Tensor:
        kept = list[Tensor]()

        def stop(result: Any) -> Any:
            kept.append(_tensor(result))
            raise _Reached

        with _at_call(self.model, self.layer, self.number, stop):
            try:
                self.model(x)
            except _Reached:
                return kept[0]
        raise CannotCut(f"the call {self.number} of '{self.layer}' does not come")


class HookedHead(nn.Module):
    """The layer's output to logits: the whole net, run on black images, with that output replaced."""

    def __init__(self, model: nn.Module, layer: str, number: int, in_shape: Shape) -> None:
        super().__init__()
        self.model, self.layer, self.number, self.in_shape = model, layer, number, in_shape

    def forward(self, feature: Tensor) -> Tensor:
        def replace(result: Any) -> Any:
            given = feature.clone()  # in-place layers behind it would change it
            return type(result)([given]) if isinstance(result, tuple | list) else given

        images = torch.zeros(len(feature), *self.in_shape, device=feature.device, dtype=feature.dtype)
        with _at_call(self.model, self.layer, self.number, replace):
            return logits_of(self.model(images))


def cut_by_hook(model: nn.Module, at: Call, pre_relu: bool, in_shape: Shape) -> tuple[nn.Module, nn.Module]:
    """(feature, head) by running the whole net.

    Raises:
        CannotCut: for the input of a ReLU, which no module has as its output.
    """
    if pre_relu:
        raise CannotCut("the input of a ReLU shows in a traced graph alone; set target.pre_relu=false")
    return HookedFeature(model, at.name, at.number), HookedHead(model, at.name, at.number, in_shape)


def logits_of(output: Any) -> Tensor:
    """The logits of what a net gives: a tensor, or what it calls `logits`."""
    value = output.get("logits") if isinstance(output, dict) else getattr(output, "logits", output)
    if not isinstance(value, Tensor):
        raise CannotCut(f"it gives a {type(output).__name__} without logits; let forward return the logits")
    return value


def _tensor(result: Any) -> Tensor:
    value = result[0] if isinstance(result, tuple | list) and len(result) == 1 else result
    if not isinstance(value, Tensor):
        raise CannotCut("the layer gives no single tensor")
    return value
