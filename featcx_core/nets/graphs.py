"""A net's graph, traced or exported, cut at the output of one call of one layer."""

from __future__ import annotations

import functools
import threading
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils.parametrize import is_parametrized

from featcx_core.nets.calls import Call

_TRACING = threading.Lock()
RELUS = (
    F.relu,
    F.relu_,
    torch.relu,
    torch.relu_,
    "relu",
    "relu_",
    torch.ops.aten.relu.default,
    torch.ops.aten.relu_.default,
)
SIZE = torch.ops.aten.sym_size.int


class CannotCut(Exception):
    """Why a net cannot be cut in one way; there are others."""


def traced(module: nn.Module) -> fx.Graph:
    """The graph of a module's forward pass, one trace at a time; torch.fx raises errors of several kinds."""
    with _TRACING:
        return _OwnThreadTracer().trace(module)


def exported(module: nn.Module, images: Tensor) -> fx.Graph:
    """The graph by torch.export, for any number of images: its inputs are the images alone, all else are attributes.

    Tensors that the net made of nothing become buffers of `module`, so that they move with it.
    """
    with _TRACING, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, (images,), dynamic_shapes=({0: torch.export.Dim.AUTO},), strict=False)
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    for node, name in signature.inputs_to_lifted_tensor_constants.items():
        names[node] = f"constant_{name.replace('.', '_')}"
        module.register_buffer(names[node], program.constants[name], persistent=False)
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            copies[node] = graph.get_attr(names[node.name])
        elif node.op == "output":
            if len(signature.user_outputs) != 1:
                raise CannotCut("it gives more than one tensor")
            graph.output(copies[next(n for n in node.all_input_nodes if n.name == signature.user_outputs[0])])
        else:
            copies[node] = graph.node_copy(node, lambda n: copies[n])
    return graph


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


def cut_graph(model: nn.Module, graph: fx.Graph, at: Call, pre_relu: bool) -> tuple[fx.GraphModule, fx.GraphModule]:
    """(feature, head) of a graph, at the last node of the call, or at the input of its last ReLU.

    Raises:
        CannotCut: where the call has no nodes, or the head needs what bypasses it.
    """
    cut = _cut_node(model, graph, at, pre_relu)
    nodes = list(graph.nodes)
    position = {node: i for i, node in enumerate(nodes)}
    free = _free_of_images(graph, cut)
    crossing = [
        n for n in nodes[: position[cut]] if n not in free and any(position[u] > position[cut] for u in n.users)
    ]
    if crossing:
        raise CannotCut(f"the head needs '{crossing[0].name}' too")
    before, after = nodes[: position[cut] + 1], nodes[position[cut] + 1 :]
    return _subgraph(model, before, output=cut), _subgraph(model, [*_needed(after, free), *after], replaced=cut)


def relink(part: nn.Module, model: nn.Module) -> None:
    """Makes what a part reads of the model by name the model's own tensors again, after they moved."""
    if not isinstance(part, fx.GraphModule):
        return
    weight = next(model.parameters(), None)
    for node in part.graph.nodes:
        if node.op == "get_attr":
            owner, _, name = node.target.rpartition(".")
            if not is_parametrized(model.get_submodule(owner), name):  # then it is computed anew each time
                setattr(part.get_submodule(owner), name, functools.reduce(getattr, node.target.split("."), model))
        elif weight is not None and isinstance(node.kwargs.get("device"), torch.device):
            node.update_kwarg("device", weight.device)
    part.recompile()


def _cut_node(model: nn.Module, graph: fx.Graph, at: Call, pre_relu: bool) -> fx.Node:
    inside = [node for node in graph.nodes if (at.name, at.number) in _scopes(node)]
    if not inside:
        raise CannotCut(f"its graph does not show '{at.name}'")
    if not pre_relu:
        return inside[-1]
    relus = [node for node in inside if _is_relu(model, node)]
    if not relus:
        raise CannotCut(f"layer '{at.name}' has no ReLU")
    return relus[-1].args[0]


def _scopes(node: fx.Node) -> list[tuple[str, int]]:
    """The calls of modules that a node lies in; the second call of a module is kept as 'name@1'."""
    found = []
    for key, value in node.meta.get("nn_module_stack", {}).items():
        path, _, own = str(value[0] if isinstance(value, tuple) else key).partition("@")
        number = own or key.rpartition("@")[2] if "@" in key or own else ""
        found.append((path, int(number) + 1 if number.isdecimal() else 1))
    return found


def _is_relu(model: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(model.get_submodule(str(node.target)), nn.ReLU)
    return node.target in RELUS


def _free_of_images(graph: fx.Graph, cut: fx.Node) -> set[fx.Node]:
    """Nodes in front of the cut that are the same for all images: attributes, what is made of them, the batch's size."""
    free = set[fx.Node]()
    for node in graph.nodes:
        if node is cut:
            return free
        made = node.op in ("call_function", "call_method") and all(n in free for n in node.all_input_nodes)
        if made or node.op == "get_attr" or _is_batch_size(node, cut):
            free.add(node)
    return free


def _is_batch_size(node: fx.Node, cut: fx.Node) -> bool:
    """Whether a node is the size, unknown before the run, that the cut's value has in front too."""
    if node.target is not SIZE or not isinstance(value := cut.meta.get("val"), Tensor):
        return False
    return value.ndim > 0 and str(node.meta.get("val")) == str(value.shape[0]) and not str(value.shape[0]).isdecimal()


def _needed(nodes: list[fx.Node], free: set[fx.Node]) -> list[fx.Node]:
    """What of the free nodes these need, in order."""
    wanted, waiting = set[fx.Node](), [n for node in nodes for n in node.all_input_nodes if n in free]
    while waiting:
        if (node := waiting.pop()) not in wanted:
            wanted.add(node)
            waiting += [] if node.target is SIZE else node.all_input_nodes
    first = next(iter(nodes)).graph.nodes
    return [node for node in first if node in wanted]


def _subgraph(
    model: nn.Module, nodes: list[fx.Node], *, output: fx.Node | None = None, replaced: fx.Node | None = None
) -> fx.GraphModule:
    """The nodes as a module: ending at `output`, or with `replaced` as its only input."""
    part, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    if replaced is not None:
        copies[replaced] = part.placeholder("feature")
        if any(_overwrites(node) for node in nodes):
            copies[replaced] = part.call_method("clone", (copies[replaced],))
    for node in nodes:
        if node.op == "output":
            part.output(copies[_logits(node.args[0])])
            continue
        if replaced is not None and node.target is SIZE and node.args[0] not in copies:
            copies[node] = part.call_method("size", (copies[replaced], 0))
            continue
        copy = part.node_copy(node, lambda n: copies[n])
        if copy.kwargs.get("inplace"):
            copy.kwargs = {**copy.kwargs, "inplace": False}
        copies[node] = copy
    if output is not None:
        part.output(copies[output])
    part.lint()
    return fx.GraphModule(model, part)


def _logits(value: Any) -> fx.Node:
    value = value.get("logits") if isinstance(value, dict) else getattr(value, "logits", value)
    if not isinstance(value, fx.Node):
        raise CannotCut("it gives no single tensor of logits")
    return value


def _overwrites(node: fx.Node) -> bool:
    """Whether it is a call such as x.relu_() or F.relu_(x), which changes its argument."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    name = name.split(".")[0]
    return node.op in ("call_method", "call_function") and name.endswith("_") and not name.endswith("__")
