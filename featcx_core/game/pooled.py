"""Heads that average over all places, recognised by their structure, whoever built them.

A head of the form [ReLU] → mean over H×W → tail gives the logits tail(mean(relu(f))): of all that a coalition's feature
holds, only the C means matter to what follows. Any other head is None here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from featcx_core.nets.graphs import traced


class PooledHead(NamedTuple):
    """[ReLU] → mean over H×W → tail.

    `tail` takes (n, C, 1, 1) with `keepdim`, else (n, C), and gives logits (n, K); `linear` is its layer where it is one
    linear layer and nothing else that matters.
    """

    relu: bool
    keepdim: bool
    tail: fx.GraphModule
    linear: nn.Linear | None


def pooled_head(head: Callable[[Tensor], Tensor]) -> PooledHead | None:
    """The head's parts where its structure is certain to be [ReLU] → global mean → tail; None for any other.

    Read are fx graphs and whatever torch.fx can trace: modules, functions and methods alike. In front of the pooling only
    ReLU and what changes nothing (identity, clone, dropout outside training) may stand.
    """
    if not isinstance(head, nn.Module):
        return None
    graph = head.graph if isinstance(head, fx.GraphModule) else _traced(head)
    if graph is None:
        return None
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    node, relu = inputs[0], False
    while len(inputs) == 1 and len(node.users) == 1:
        node = next(iter(node.users))
        if node.op == "output" or len(node.all_input_nodes) != 1:
            return None
        module = head.get_submodule(str(node.target)) if node.op == "call_module" else None
        keepdim = _global_mean(node, module)
        if keepdim is not None:
            tail = _after(head, graph, node)
            return None if tail is None else PooledHead(relu, keepdim, tail, _only_layer(tail, keepdim))
        if not (_is_relu(node, module) or _changes_nothing(node, module)):
            return None
        relu = relu or _is_relu(node, module)
    return None


def _traced(head: nn.Module) -> fx.Graph | None:
    try:
        return traced(head)
    except Exception:  # whatever a module's own code makes of a proxy: it is not understood, so it is run as it is
        return None


def _plain_call(node: fx.Node, *targets: object) -> bool:
    """A call of one of these functions or methods with the input as its only argument, in-place or not."""
    return (
        node.op in ("call_function", "call_method")
        and node.target in targets
        and len(node.args) == 1
        and set(node.kwargs) <= {"inplace", "memory_format"}
    )


def _is_relu(node: fx.Node, module: nn.Module | None) -> bool:
    return type(module) is nn.ReLU or _plain_call(node, F.relu, torch.relu, "relu", F.relu_, torch.relu_, "relu_")


def _changes_nothing(node: fx.Node, module: nn.Module | None) -> bool:
    if type(module) is nn.Identity or _plain_call(node, torch.clone, "clone", "contiguous"):
        return True
    if type(module) in (nn.Dropout, nn.Dropout2d):
        return not module.training  # type: ignore[union-attr]
    if node.op == "call_function" and node.target in (F.dropout, F.dropout2d):
        return _argument(node, 2, "training", True) is False
    return False


def _global_mean(node: fx.Node, module: nn.Module | None) -> bool | None:
    """Whether the mean over H×W keeps both dimensions; None where the node is no such mean."""
    if module is not None:
        return True if type(module) is nn.AdaptiveAvgPool2d and module.output_size in (1, (1, 1), [1, 1]) else None
    if node.op == "call_function" and node.target is F.adaptive_avg_pool2d:
        return True if _argument(node, 1, "output_size", None) in (1, (1, 1), [1, 1]) else None
    if (node.op, node.target) in (("call_function", torch.mean), ("call_method", "mean")):
        dims, keepdim = _argument(node, 1, "dim", None), _argument(node, 2, "keepdim", False)
        if not isinstance(dims, tuple | list) or not all(isinstance(d, int) for d in dims) or "dtype" in node.kwargs:
            return None
        both = len(dims) == 2 and {d % 4 for d in dims} == {2, 3}
        return bool(keepdim) if both and isinstance(keepdim, bool) else None
    return None


def _argument(node: fx.Node, position: int, name: str, default: object) -> object:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _after(head: nn.Module, graph: fx.Graph, pool: fx.Node) -> fx.GraphModule | None:
    """What follows the pooling, of the pooled feature alone; None where anything in front of it is used again."""
    tail = fx.Graph()
    copies = {pool: tail.placeholder("pooled")}
    behind = False
    for node in graph.nodes:
        if node.op == "get_attr" or behind:
            if any(source not in copies for source in node.all_input_nodes):
                return None
            copies[node] = tail.node_copy(node, lambda source: copies[source])
        behind = behind or node is pool
    return fx.GraphModule(head, tail)


def _only_layer(tail: fx.GraphModule, keepdim: bool) -> nn.Linear | None:
    """The linear layer of a tail that flattens and applies it."""
    flat = not keepdim
    for node in list(tail.graph.nodes)[1:-1]:
        module = tail.get_submodule(str(node.target)) if node.op == "call_module" else None
        if type(module) is nn.Linear and flat and node.next.op == "output":
            return module
        whole = type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)
        call = (node.op, node.target) in (("call_function", torch.flatten), ("call_method", "flatten"))
        if whole or (call and node.args[1:] == (1,) and not node.kwargs):
            flat = True
        elif not _changes_nothing(node, module):
            return None
    return None
