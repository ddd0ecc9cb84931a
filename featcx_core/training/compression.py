"""Network compression: magnitude pruning and weight sharing, each with fine-tuning, and what is then left to store.

Deep compression of Han et al. 2016, arXiv:1510.00149, each of its steps alone, so that their effects on a feature can be
told apart.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, Unpack

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations
from torch.nn.utils.prune import L1Unstructured, global_unstructured, remove

from featcx_core.data.images import Augmented
from featcx_core.errors import InputError
from featcx_core.seeds import derive_seed
from featcx_core.specs import ScheduleSpec
from featcx_core.training.fit import Training, cross_entropy, fit

Layer = _ConvNd | nn.Linear


class Size(NamedTuple):
    """What a net takes to store. BatchNorm's running statistics are left out on both sides.

    Attributes:
        parameters, nonzero: how many there are.
        dense_bytes: all of them as 32-bit floats.
        compressed_bytes: convolution and linear weights coded, all other parameters as 32-bit floats.
        ratio: dense_bytes / compressed_bytes.
    """

    parameters: int
    nonzero: int
    dense_bytes: int
    compressed_bytes: int
    ratio: float


def prune(
    net: nn.Module,
    data: Augmented,
    schedule: ScheduleSpec,
    *,
    sparsity: float,
    rounds: int = 3,
    **how: Unpack[Training],
) -> Size:
    """Zeroes the share `sparsity` of all convolution and linear weights, in place, the smallest magnitudes of the whole net.

    Each of the rounds removes the same share of what the one before left, and then fine-tunes what is left by
    cross-entropy for schedule.draws / rounds samples. The net ends in evaluation mode on the data's device.

    How it departs from the paper:

    1. One threshold for the whole net, where the authors have one a layer, chosen by hand (arXiv:1506.02626, §3).
    2. The mask of a round becomes zeros at once, and each update sets them to zero again: the same weights as under a mask
       that stays, and parameters keep their names throughout.

    Raises:
        InputError: for a sparsity outside (0, 1), rounds below 1, or a net with nothing to prune.
    """
    if not 0 < sparsity < 1:
        raise InputError(f"sparsity = {sparsity} will not do; give a share between 0 and 1, such as 0.8.")
    if rounds < 1:
        raise InputError(f"rounds = {rounds} will not do; give 1 or more.")
    layers = coded_layers(net.to(data.device))
    weights = sum(layer.weight.numel() for layer in layers)
    part = schedule.model_copy(update={"draws": math.ceil(schedule.draws / rounds)})
    for r in range(rounds):
        share = 1 - (1 - sparsity) ** ((r + 1) / rounds)  # earlier zeros are the smallest weights, so it counts them in
        net.to(memory_format=torch.contiguous_format)  # pruning takes no other
        global_unstructured([(layer, "weight") for layer in layers], L1Unstructured, amount=round(share * weights))
        masks = [layer.get_buffer("weight_mask") for layer in layers]
        for layer in layers:
            remove(layer, "weight")
        fit(net, data, cross_entropy, part, after_step=_apply(layers, masks), **_round(how, r, rounds))
    return pruned_size(net)


def quantise(
    net: nn.Module,
    data: Augmented,
    schedule: ScheduleSpec,
    *,
    bits: int,
    **how: Unpack[Training],
) -> Size:
    """Lets the weights of each convolution and linear layer share 2^bits values at most, in place.

    The values are centroids of `cluster`, fine-tuned by cross-entropy with the weights' codes held fixed: a centroid's
    gradient is the sum over its weights (paper, §3.3). Biases and norms are fine-tuned along and stay free. The net ends in
    evaluation mode on the data's device.

    Raises:
        InputError: for bits outside 1 to 16, or a net with nothing to quantise.
    """
    if not 1 <= bits <= 16:
        raise InputError(f"bits = {bits} will not do; give 1 to 16.")
    layers = coded_layers(net.to(data.device))
    for layer in layers:
        register_parametrization(layer, "weight", Shared(cluster(layer.weight, 2**bits)))
    try:
        fit(net, data, cross_entropy, schedule, **how)
    finally:
        for layer in layers:
            remove_parametrizations(layer, "weight")
    return quantised_size(net)


class Shared(nn.Module):
    """weight = centroids[codes], as a parametrisation whose only trainable tensor is the centroids.

    Args:
        codes: int64, of the weight's shape, each of 0, …, k−1 at least once.
    """

    def __init__(self, codes: Tensor) -> None:
        super().__init__()
        self.register_buffer("codes", codes)
        self.codes: Tensor

    def forward(self, centroids: Tensor) -> Tensor:
        return centroids[self.codes]

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The centroids nearest to a weight in least squares: the mean of each code, (k,)."""
        codes = self.codes.flatten().cpu()
        sums = torch.bincount(codes, weight.detach().flatten().double().cpu())
        return (sums / torch.bincount(codes)).to(weight)


def cluster(weight: Tensor, count: int) -> Tensor:
    """Codes int64, of the weight's shape, of its k-means clustering into `count` clusters at most.

    Centroids start evenly spaced from least to greatest, which keeps the few large weights well served (paper, §3.2), and
    follow Lloyd's algorithm to its end; on a line that is exact on sorted values and their running sums, without an
    iteration over weights. Clusters that end empty are left out.
    """
    values, order = weight.detach().flatten().double().cpu().sort()
    n, sums = len(values), torch.cat([values.new_zeros(1), values.cumsum(0)])
    centroids = torch.linspace(float(values[0]), float(values[-1]), count, dtype=torch.float64)
    bounds = torch.zeros(count + 1, dtype=torch.int64)
    for _ in range(10_000):  # a few hundred do; each lowers the error, but rounding might make two of them alternate
        former, middles = bounds, (centroids[1:] + centroids[:-1]) / 2
        bounds = torch.cat([torch.tensor([0]), torch.searchsorted(values, middles), torch.tensor([n])])
        held = bounds.diff()
        means = (sums[bounds[1:]] - sums[bounds[:-1]]) / held.clamp(min=1)
        centroids = torch.where(held > 0, means, centroids)
        if torch.equal(bounds, former):
            break
    held = held[held > 0]
    codes = torch.empty(n, dtype=torch.int64)
    codes[order] = torch.repeat_interleave(torch.arange(len(held)), held)
    return codes.view(weight.shape).to(weight.device)


def pruned_size(net: nn.Module) -> Size:
    """Size with each layer's nonzero weights stored as 32-bit floats and Huffman-coded gaps.

    A gap is the distance in C order from the nonzero weight before, of any length; the paper bridges long ones by stored
    zeros. The table of the Huffman code, about a byte a different gap, is not counted.
    """

    def bits(weight: Tensor) -> int:
        places = weight.flatten().nonzero().flatten()
        return 32 * len(places) + huffman_bits(places.diff(prepend=places.new_tensor([-1])))

    return _size(net, bits)


def quantised_size(net: nn.Module) -> Size:
    """Size with each layer's weights stored as Huffman-coded indices into a codebook of 32-bit floats."""

    def bits(weight: Tensor) -> int:
        codebook, codes = weight.unique(return_inverse=True)
        return 32 * len(codebook) + huffman_bits(codes)

    return _size(net, bits)


def huffman_bits(symbols: Tensor | np.ndarray | Sequence[int]) -> int:
    """Length in bits of a sequence of integers under its own optimal prefix code (doi:10.1109/JRPROC.1952.273898).

    A sequence of one symbol repeated takes no bits: its length, which every code needs, says all.
    """
    values = symbols.detach().cpu().numpy() if isinstance(symbols, Tensor) else np.asarray(symbols)
    counts = np.unique(values, return_counts=True)[1].tolist()
    heapq.heapify(counts)
    bits = 0
    while len(counts) > 1:  # joining two nodes puts one more bit in front of every symbol below them
        joined = heapq.heappop(counts) + heapq.heappop(counts)
        bits += joined
        heapq.heappush(counts, joined)
    return bits


def coded_layers(net: nn.Module) -> list[Layer]:
    """The layers whose weights compression codes: convolutions and linear ones.

    Raises:
        InputError: when there is none, or one whose weight is not its own.
    """
    layers = [module for module in net.modules() if isinstance(module, Layer)]
    if not layers:
        raise InputError("The net has no convolution or linear layer to compress; choose another target.net.")
    if len({id(layer._parameters.get("weight")) for layer in layers} - {id(None)}) < len(layers):
        raise InputError(
            "Layers of the net share a weight, or compute it from others; only nets of plain layers can be compressed."
        )
    return layers


@torch.no_grad()
def _size(net: nn.Module, bits: Callable[[Tensor], int]) -> Size:
    coded = {id(layer.weight): layer.weight for layer in coded_layers(net)}
    parameters = list(net.parameters())
    total = sum(bits(p) if id(p) in coded else 32 * p.numel() for p in parameters)
    count, dense = sum(p.numel() for p in parameters), sum(4 * p.numel() for p in parameters)
    nonzero, stored = sum(int(p.count_nonzero()) for p in parameters), math.ceil(total / 8)
    return Size(count, nonzero, dense, stored, dense / stored)


def _apply(layers: list[Layer], masks: list[Tensor]) -> Callable[[], None]:
    @torch.no_grad()
    def keep_zeros() -> None:
        for layer, mask in zip(layers, masks, strict=True):
            layer.weight.mul_(mask)

    return keep_zeros


def _round(how: Training, index: int, rounds: int) -> Training:
    """How one of several equal rounds runs: a seed and a checkpoint of its own, progress told as that of the whole."""
    own = how | {"seed": derive_seed(how.get("seed", 0), "round", index)}
    if (checkpoint := how.get("checkpoint")) is not None:
        own["checkpoint"] = replace(checkpoint, folder=checkpoint.folder / f"round-{index}")
    if (tell := how.get("on_step")) is not None:
        own["on_step"] = lambda s: tell(s._replace(done=index * s.total + s.done, total=rounds * s.total))
    return own
