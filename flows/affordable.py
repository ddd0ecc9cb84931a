"""How many draws a stated amount of arithmetic allows, for who names none: counted, not timed, so the same on any machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from featcx_core.data.images import Shape
from featcx_core.nets.disentangler import Disentangler
from featcx_core.nets.split import Split
from flows.recipes import Submit
from tasks.engine import Stage

BUDGET = 4e12  # floating-point operations of all trainings: 110 CPU seconds at float32 on an AMD EPYC (Zen 5)
STEPS = 20  # of a training at least


def affordable(
    recipe: Callable[[Submit], Any], feature: Split, in_shape: Shape, width: int, draws: tuple[int, ...], least: int
) -> tuple[int, ...]:
    """`draws`, or of each the share that BUDGET allows of a recipe with these draws, `least` draws at least.

    Args:
        feature: whose reproduction is learned.
        width: of the disentanglers.
    """
    share = min(1.0, BUDGET / training_flops(recipe, feature, in_shape, width))
    return tuple(max(min(least, each), round(share * each)) for each in draws)


def training_flops(recipe: Callable[[Submit], Any], feature: Split, in_shape: Shape, width: int) -> float:
    """Floating-point operations of a recipe's disentanglers and trunks.

    A draw takes a net three forward passes, two of them for the backward pass, and each net that it learns from one. What a
    training learns from is the feature, or for the null target a disentangler.
    """
    costs, total = {0: forward_flops(feature.feature, in_shape)}, 0.0

    def cost(blocks: int) -> float:
        if blocks not in costs:
            costs[blocks] = forward_flops(Disentangler(blocks, in_shape, feature.shape, width, feature.grid), in_shape)
        return costs[blocks]

    def submit(stage: Stage, scope: str = "", **arguments: Any) -> int:
        nonlocal total
        if stage.name not in ("disentangler", "trunk"):
            return 0
        own, teachers = arguments["blocks"], [arguments["target"], *arguments.get("exemplary", ())]
        total += arguments["schedule"].draws * (3 * cost(own) + sum(map(cost, teachers)))
        return own

    recipe(submit)
    return total


def forward_flops(net: nn.Module, in_shape: Shape) -> float:
    """Floating-point operations of products of matrices and convolutions for one image."""
    net.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        net(torch.zeros(1, *in_shape))
    return float(counted.get_total_flops())
