"""How any module splits into a feature and a head at a named layer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from featcx_core.data.images import Shape
from featcx_core.errors import InputError
from featcx_core.nets.calls import Call, calls, default_layer, example, find_call, jittered
from featcx_core.nets.graphs import CannotCut, cut_graph, exported, relink, traced
from featcx_core.nets.hooks import HookedFeature, cut_by_hook, logits_of
from featcx_core.nets.layout import Canonical, Original, canonical_shape, find_layout, patch_grid
from featcx_core.specs import Layout

ROUNDING = 1e-3  # of the largest value: two ways of computing the same in float32, through a hundred layers


class Split(NamedTuple):
    """A net cut in two.

    Attributes:
        feature: images to (n, C, H, W).
        head: that to logits (n, classes).
        shape: (C, H, W) of the feature; (D, T, 1) of T tokens, (D, 1, 1) of a vector.
        grid: (h, w) of the patches, the last of the tokens; None for what are no tokens.
        way: 'graph', 'export' or 'hook'.
        error: the largest |head(feature(x)) − net(x)| as a share of the largest |net(x)|.
        layer: where it was cut.
        layout: of the layer's own output.
    """

    feature: nn.Module
    head: nn.Module
    shape: Shape
    grid: tuple[int, int] | None
    way: str
    error: float
    layer: str
    layout: Layout


def split_net(
    model: nn.Module, layer: str | None, pre_relu: bool, in_shape: Shape, layout: Layout | None = None
) -> Split:
    """A copy of `model` cut at the output of `layer`, or with `pre_relu` at the input of the layer's final ReLU.

    The model itself stays as it is.

    Args:
        layer: dotted name, NAME#2 for the second call of a module called several times; None for what stands before the head.
        layout: of the layer's output: chw, hwc, td (tokens × channels), dt or d; None to recognise it.

    Raises:
        InputError: when the layer does not exist, or something bypasses it.

    >>> import torch, featcx_core as fx
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, 2, 1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 2))
    >>> found, images = fx.split_net(net.eval(), "0", pre_relu=False, in_shape=(1, 8, 8)), torch.rand(3, 1, 8, 8)
    >>> found.shape, torch.allclose(found.head(found.feature(images)), net(images), atol=1e-6)
    ((4, 4, 4), True)
    """
    return cut(copy.deepcopy(model), layer, pre_relu, in_shape, layout)


def cut(model: nn.Module, layer: str | None, pre_relu: bool, in_shape: Shape, layout: Layout | None = None) -> Split:
    """`split_net` of the model itself: both halves share its weights.

    It is put in evaluation mode, and in-place operations are made out of place, since they would overwrite the feature.
    Tried in turn are the traced graph, torch.export's, and running the whole net with the layer's output replaced; the first
    counts whose halves make the whole, on images and with weights that hide no connection.
    """
    model.eval()  # tracing fixes what depends on the mode, such as functional dropout
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    images = example(model, in_shape, 3)
    found = calls(model, images)
    layer = layer or default_layer(model, images)
    at = find_call(model, found, layer)
    kind = find_layout(found, at, layout)
    halves, way, error = _cut_somehow(model, at, pre_relu, images)
    feature, head = (halves[0], halves[1])
    if kind != "chw":
        feature, head = nn.Sequential(feature, Canonical(kind)), nn.Sequential(Original(kind), head)
    shape, grid = canonical_shape(at.shape, kind), patch_grid(found, at, kind)
    return Split(feature.eval(), head.eval(), shape, grid, way, error, layer, kind)


def evaluated(head: Callable[[Tensor], Tensor], device: torch.device | str) -> Callable[[Tensor], Tensor]:
    """A head as it is to be asked: a module in evaluation mode on the device, as a copy where it is not so already.

    A head in training mode would give other losses at each call, and move its statistics. What is no module is called as
    it is.
    """
    if not isinstance(head, nn.Module):
        return head
    place = torch.empty(0, device=device).device
    ready = all(t.device == place for t in (*head.parameters(), *head.buffers()))
    if ready and not any(module.training for module in head.modules()):
        return head
    return copy.deepcopy(head).to(place).eval()


Halves = tuple[nn.Module, nn.Module]


def _cut_somehow(model: nn.Module, at: Call, pre_relu: bool, images: Tensor) -> tuple[Halves, str, float]:
    c, h, w = images.shape[1:]
    ways: dict[str, Callable[[], Halves]] = {
        "graph": lambda: cut_graph(model, traced(model), at, pre_relu),
        "export": lambda: cut_graph(model, exported(model, images[:2]), at, pre_relu),
        "hook": lambda: cut_by_hook(model, at, pre_relu, (c, h, w)),
    }
    reasons = dict[str, str]()
    for way, halve in ways.items():
        try:
            halves = halve()
            return halves, way, _error(model, halves, at, pre_relu, images)
        except CannotCut as reason:
            reasons[way] = str(reason)
        except Exception as error:  # whatever tracing makes of a net's own code: the next way does not trace
            reasons[way] = f"{type(error).__name__}: {error}".splitlines()[0]
    if pre_relu and "has no ReLU" in reasons["graph"]:
        raise InputError(f"Layer '{at.name}' has no ReLU; set target.pre_relu=false to take its output.")
    raise InputError(
        f"The net cannot be cut: {reasons['hook']} (by its graph: {reasons['graph']}; by torch.export: {reasons['export']})."
    )


@torch.no_grad()
def _error(model: nn.Module, halves: Halves, at: Call, pre_relu: bool, images: Tensor) -> float:
    """How far the halves are from the whole, after checking that they are the whole and that the head sees no images.

    Raises:
        CannotCut: when the feature is not what the layer gives, or head∘feature is not the net.
    """
    feature, head = halves
    if images.device.type == "meta":
        head(feature(images))
        return 0.0
    error = _apart(logits_of(model(images.clone())), head(feature(images.clone())))
    with jittered(model):
        f, whole = feature(images.clone()), logits_of(model(images.clone()))
        kept = f.clone()
        if not pre_relu and _apart(HookedFeature(model, at.name, at.number)(images.clone()), f) > ROUNDING:
            raise CannotCut(f"its graph shows another output of '{at.name}' than it gives")
        jitter = _apart(whole, head(f))
        if not torch.equal(f, kept):
            raise CannotCut("the head overwrites the feature")
    if not max(error, jitter) <= ROUNDING:
        raise CannotCut(f"what the head needs bypasses layer '{at.name}'; choose a later layer")
    return error


def _apart(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return float("inf")
    return float((a - b).abs().max() / a.abs().max().clamp_min(1e-30))


def relinked(split_half: nn.Module, model: nn.Module) -> None:
    """Makes a half of `cut` read the model's own tensors again, after the model was moved."""
    for part in split_half.children() if isinstance(split_half, nn.Sequential) else [split_half]:
        relink(part, model)


def nonlinear_layers(model: nn.Module, in_shape: Shape) -> int:
    """How many activation functions a net in evaluation mode applies to an image; of parallel branches, all count."""
    model.eval()
    with torch.no_grad(), _CountActivations() as counted:
        model(torch.zeros(1, *in_shape, device=next(model.parameters()).device))
    return counted.found


class _CountActivations(TorchDispatchMode):
    NAMES = (
        "relu",
        "gelu",
        "silu",
        "elu",
        "celu",
        "mish",
        "leaky_relu",
        "hardtanh",
        "hardswish",
        "sigmoid",
        "tanh",
        "softplus",
        "_prelu_kernel",
    )

    def __init__(self) -> None:
        super().__init__()
        self.found = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__.rstrip("_")
        self.found += name in self.NAMES
        return func(*args, **(kwargs or {}))
