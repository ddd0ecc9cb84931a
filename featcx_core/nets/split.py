"""How any module splits into a feature and a head at a named layer."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

from featcx_core.data.images import Shape
from featcx_core.errors import InputError
from featcx_core.specs import nearest

_TRACING = threading.Lock()


class Split(NamedTuple):
    """A net cut in two: feature (n, C, H, W) from images, head from feature to logits, and the feature's (C, H, W)."""

    feature: nn.Module
    head: nn.Module
    shape: Shape


def split_net(model: nn.Module, layer: str | None, pre_relu: bool, in_shape: Shape) -> Split:
    """Cuts `model` at the output of `layer`, or with `pre_relu` at the input of the layer's final ReLU.

    The model is put in evaluation mode; both halves share its parameters. In-place operations are made out of place,
    since they would overwrite the feature. The cut works on the traced graph, so the head runs nothing in front of it.

    Raises:
        InputError: when the net cannot be traced, the layer does not exist, or something bypasses it.
    """
    model.eval()  # tracing fixes what depends on the mode, such as functional dropout
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    try:
        graph = traced(model)
    except (fx.proxy.TraceError, TypeError, RuntimeError, AttributeError) as error:
        raise InputError(
            f"The net cannot be traced by torch.fx ({error}); remove data-dependent control flow."
        ) from error
    cut = _cut_node(model, graph, layer, pre_relu)
    nodes = list(graph.nodes)
    position = nodes.index(cut)
    crossing = [n for n in nodes[:position] if any(nodes.index(u) > position for u in n.users) and n.op != "get_attr"]
    if crossing:
        raise InputError(
            f"The head needs '{crossing[0].name}' too, which bypasses layer '{layer}'; choose a later layer."
        )
    feature = _subgraph(model, graph, nodes[: position + 1], output=cut)
    head = _subgraph(model, graph, nodes[position + 1 :], replaced=cut)
    with torch.no_grad():
        device = next(model.parameters()).device
        shape = feature(torch.zeros(2, *in_shape, device=device)).shape[1:]
    if len(shape) != 3:
        raise InputError(f"Layer '{layer}' gives a tensor of {len(shape)} dimensions a sample; choose one with C×H×W.")
    return Split(feature, head, (shape[0], shape[1], shape[2]))


def traced(module: nn.Module) -> fx.Graph:
    """The graph of a module's forward pass, one trace at a time; torch.fx raises errors of several kinds."""
    with _TRACING:
        return _OwnThreadTracer().trace(module)


class _OwnThreadTracer(fx.Tracer):
    """A tracer that leaves other threads alone.

    torch.fx patches nn.Module while it traces, so modules that other threads call meanwhile would reach this tracer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.get_ident()

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if threading.get_ident() != self.thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self.thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def _cut_node(model: nn.Module, graph: fx.Graph, layer: str | None, pre_relu: bool) -> fx.Node:
    names = [name for name, _ in model.named_modules() if name]
    if layer not in names:
        raise InputError(f"The net has no layer '{layer}'; {nearest(str(layer), names)}")
    scope = f"{layer}."
    inside = [node for node in graph.nodes if any((name + ".").startswith(scope) for name in _scopes(node))]
    if not inside:
        raise InputError(f"Layer '{layer}' is not used in the net's forward pass; choose another.")
    if not pre_relu:
        return inside[-1]
    relus = [node for node in inside if _is_relu(model, node)]
    if not relus:
        raise InputError(f"Layer '{layer}' has no ReLU; set target.pre_relu=false to take its output.")
    return relus[-1].args[0]


def _scopes(node: fx.Node) -> list[str]:
    stack = node.meta.get("nn_module_stack", {})
    own = [str(node.target)] if node.op == "call_module" else []
    return [*(str(value[0] if isinstance(value, tuple) else key) for key, value in stack.items()), *own]


def _is_relu(model: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(model.get_submodule(str(node.target)), nn.ReLU)
    return node.target in (F.relu, torch.relu, torch.relu_, "relu", "relu_")


def _subgraph(
    model: nn.Module,
    graph: fx.Graph,
    nodes: list[fx.Node],
    *,
    output: fx.Node | None = None,
    replaced: fx.Node | None = None,
) -> fx.GraphModule:
    """The nodes as a module: ending at `output`, or with `replaced` as its only input."""
    part, copies = fx.Graph(), {}
    if replaced is not None:
        copies[replaced] = part.placeholder("feature")
        if any(map(_overwrites, nodes)):
            copies[replaced] = part.call_method("clone", (copies[replaced],))
        needed = {n for node in nodes for n in node.all_input_nodes if n.op == "get_attr"}
        nodes = [n for n in graph.nodes if n in needed and n not in nodes] + nodes
    for node in nodes:
        copy = part.node_copy(node, lambda n: copies[n])
        if copy.kwargs.get("inplace"):
            copy.kwargs = {**copy.kwargs, "inplace": False}
        copies[node] = copy
    if output is not None:
        part.output(copies[output])
    part.lint()
    return fx.GraphModule(model, part)


def _overwrites(node: fx.Node) -> bool:
    """Whether it is a call such as x.relu_() or F.relu_(x), which changes its argument."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return node.op in ("call_method", "call_function") and name.endswith("_") and not name.endswith("__")


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
