"""What nets and analyses cost: arithmetic, memory traffic, kernels and memory, counted without computing anything.

Nets are built on PyTorch's meta device, where tensors have shapes and no data, and each kernel that a step would run is
counted. A multiplication and an addition are two operations, as everywhere in the literature on FLOPs.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

Shape = tuple[int, int, int]
PARTS = {"feature": "target", "head": "target", "psi": "trunk"}  # kinds that are attributes of others
FEW = 2  # images that a net is counted on; BatchNorm takes no single one
BESIDE = 40  # kernels of a step beside the nets: drawing a batch, loss, rates, clearing gradients


@dataclass(frozen=True)
class Count:
    """An amount of work.

    Attributes:
        flops: floating-point operations of products of matrices and convolutions.
        traffic: bytes that kernels write.
        kernels: how many kernels run.
        saved: bytes kept from the forward for the backward pass, in float32.
        largest: bytes of the largest tensor that grows with the number of images.
    """

    flops: float = 0.0
    traffic: float = 0.0
    kernels: float = 0.0
    saved: float = 0.0
    largest: float = 0.0

    def __add__(self, other: Count) -> Count:
        """Both, one after the other."""
        return Count(
            self.flops + other.flops,
            self.traffic + other.traffic,
            self.kernels + other.kernels,
            max(self.saved, other.saved),
            max(self.largest, other.largest),
        )

    def __mul__(self, times: float) -> Count:
        """The same so many times."""
        return replace(self, flops=self.flops * times, traffic=self.traffic * times, kernels=self.kernels * times)


class Net(NamedTuple):
    """A net by its kind and the JSON of what builds it: hashable, and built only when it is counted or timed.

    Attributes:
        kind: target, disentangler, trunk or task; feature or head of a target, psi of a trunk.
    """

    kind: str
    config: str

    @staticmethod
    def of(kind: str, **config: Any) -> Net:
        """A net of this kind; `config` are the keyword arguments of its class."""
        return Net(kind, json.dumps(config, sort_keys=True))

    @property
    def settings(self) -> dict[str, Any]:
        """The keyword arguments of its class."""
        return json.loads(self.config)

    def part(self, kind: str) -> Net:
        """Another kind built from the same settings: the feature of a target, ψ of a trunk."""
        return Net(kind, self.config)

    def deep(self, blocks: int) -> Net:
        """The same with another number of blocks."""
        return Net.of(self.kind, **(self.settings | {"blocks": blocks}))

    def build(self) -> nn.Module:
        """The module, freshly initialised on the device in force."""
        from featcx_core.analysis.tasknet import TaskNet
        from featcx_core.nets.disentangler import Disentangler
        from featcx_core.nets.targets import TargetNet
        from featcx_core.nets.trunk import Trunk

        settings = {name: _tuples(value) for name, value in self.settings.items()}
        classes = {"disentangler": Disentangler, "trunk": Trunk, "task": TaskNet, "target": TargetNet}
        whole = classes[PARTS.get(self.kind, self.kind)](**settings)
        return getattr(whole, self.kind) if self.kind in PARTS else whole


class Step(NamedTuple):
    """One step of a training, or with no optimiser a forward pass: what of, on how many images.

    Attributes:
        teachers: nets whose outputs are learned, each run forward.
        shape: (C, H, W) of an image, of the feature where the net is a head.
    """

    net: Net
    teachers: tuple[Net, ...]
    shape: Shape
    batch: int
    optimiser: Literal["adam", "muon"] | None = None
    precision: Literal["fp32", "bf16"] = "fp32"


class _Tally(TorchDispatchMode):
    """Counts what runs inside, on so many images."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images = images
        self.flops = self.traffic = self.kernels = self.largest = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.is_view:
            return out
        made = [t for t in (out if isinstance(out, tuple | list) else (out,)) if isinstance(t, Tensor)]
        self.kernels += 1
        self.traffic += sum(t.numel() * t.element_size() for t in made)
        grown = [t.numel() * t.element_size() for t in made if t.shape[:1] == (self.images,)]
        self.largest = max([self.largest, *grown])
        if (formula := flop_registry.get(func.overloadpacket)) is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out


def tally(work: Callable[[], Any], images: int) -> Count:
    """What `work` on so many images costs; with tensors on the meta device nothing is computed."""
    storages: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            storages[storage._cdata] = storage  # held, so that its number is not given to another
        return tensor

    with _Tally(images) as counted, saved_tensors_hooks(keep, lambda tensor: tensor):
        work()
    saved = float(sum(storage.nbytes() for storage in storages.values()))
    return Count(counted.flops, counted.traffic, counted.kernels, saved, counted.largest)


@functools.cache
def count_step(step: Step) -> Count:
    """The work of one step. All blocks of a stage but the first are alike, so deep nets follow from shallow ones."""
    net = step.net
    if net.kind in ("disentangler", "trunk", "psi") and (blocks := net.settings["blocks"]) > 2:
        one, two = (count_step(step._replace(net=net.deep(b), optimiser=step.optimiser and "adam")) for b in (1, 2))
        each = [a + (b - a) * (blocks - 1) for a, b in zip(_values(one), _values(two), strict=True)]
        passes = Count(each[0], each[1], each[2], each[3], two.largest)
        return passes + _muon(net) if step.optimiser == "muon" else passes
    passes = _forward(net, step) if step.optimiser is None else _forward_backward(net, step) + Count(kernels=BESIDE)
    for teacher in step.teachers:
        passes += _forward(teacher, step)
    return passes + _muon(net) if step.optimiser == "muon" else passes


def step_memory(step: Step) -> float:
    """Bytes that a step holds at once: weights, gradients, both moments of Adam, activations for the backward pass."""
    count, half = count_step(step), 0.5 if step.precision == "bf16" else 1.0
    weights = 4.0 * parameters(step.net) * (4 if step.optimiser else 1)
    return weights + 4.0 * sum(map(parameters, step.teachers)) + half * (count.saved + 2 * count.largest)


@functools.cache
def parameters(net: Net) -> int:
    """How many weights a net has."""
    return sum(p.numel() for p in _module(net).parameters())


@functools.cache
def feature_shape(target: Net) -> Shape:
    """(C, H, W) of a target's feature."""
    shape: Any = _module(target.part("target")).shape
    return shape


@functools.cache
def feature_grid(net: Net) -> tuple[int, int] | None:
    """(h, w) of a target's patches where its feature is tokens."""
    return getattr(_module(net), "grid", None)


def _forward(net: Net, step: Step) -> Count:
    return _for_batch(_forward_of(net, step.shape), step.batch)


@functools.cache
def _forward_of(net: Net, shape: Shape) -> Count:
    module = _module(net).eval()
    with torch.no_grad():
        return replace(tally(lambda: module(_input(module, shape)), FEW), saved=0.0)


@functools.cache
def _passes_of(net: Net, shape: Shape) -> Count:
    module = _module(net).train()
    images = _input(module, shape)

    def both() -> None:
        given = module(images)
        torch.stack([part.sum() for part in ((given,) if isinstance(given, Tensor) else given)]).sum().backward()

    counted = tally(both, FEW)
    module.eval()
    return counted


def _for_batch(count: Count, batch: int, fixed: float = 0.0) -> Count:
    """A count of FEW images as one of `batch`; `fixed` bytes, of weights' gradients, do not grow with it."""
    more = batch / FEW
    traffic = fixed + (count.traffic - fixed) * more
    return Count(count.flops * more, traffic, count.kernels, count.saved * more, count.largest * more)


def _forward_backward(net: Net, step: Step) -> Count:
    weights = 4.0 * parameters(net)
    return _for_batch(_passes_of(net, step.shape), step.batch, weights) + Count(0.0, 3 * weights, 3)  # Adam's


def _muon(net: Net) -> Count:
    """Muon's steps: of each kernel (a, b), a ≤ b, the Gram matrix, five rounds of four products, one with the kernel."""
    shapes: dict[tuple[int, int], int] = {}
    for p in _module(net).parameters():
        if p.ndim == 4 and p.shape[-1] > 1:
            sides = (p.shape[0], p[0].numel())
            shapes[min(sides), max(sides)] = shapes.get((min(sides), max(sides)), 0) + 1
    flops = sum(n * 2.0 * (2 * a * a * b + 20 * a**3) for (a, b), n in shapes.items())
    traffic = sum(n * 4.0 * (8 * a * b + 30 * a * a) for (a, b), n in shapes.items())
    return Count(flops, traffic, 45 * len(shapes) + 5 * sum(shapes.values()))


@functools.lru_cache(maxsize=64)
def _module(net: Net) -> nn.Module:
    if net.kind in PARTS:
        whole: Any = _module(net.part(PARTS[net.kind]))
        return getattr(whole, net.kind)
    try:
        with torch.device("meta"):
            return net.build()
    except (RuntimeError, NotImplementedError):  # a user's own constructor may need data
        return net.build()


def _input(module: nn.Module, shape: Shape) -> Tensor:
    weight = next(module.parameters(), None)  # a head of pooling alone has none
    return torch.empty(FEW, *shape, device="meta" if weight is None else weight.device)


def _values(count: Count) -> tuple[float, ...]:
    return (count.flops, count.traffic, count.kernels, count.saved)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
