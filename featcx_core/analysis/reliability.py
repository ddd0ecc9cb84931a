"""Reliability: the part of a feature that nets trained for the same task share, up to linear maps of channels."""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from featcx_core.analysis.bootstrap import interval, variances
from featcx_core.analysis.chains import Chains, cross_seed
from featcx_core.analysis.components import ComponentTable
from featcx_core.data.images import at_once
from featcx_core.kernels import kernel
from featcx_core.nets.trunk import Trunk
from featcx_core.seeds import generator
from featcx_core.training.checkpoint import Checkpoint, read, write

Forward = Callable[[Tensor], Tensor]
KERNEL = Path(__file__).with_name("cycle.cpp")
AT_ONCE = 64 << 20  # bytes of maps
PASS = 32  # steps of a pass: 2,000 draws in batches of 64, nearly


@torch.no_grad()
def second_moment(psi: Forward, batches: Iterable[Tensor]) -> Tensor:
    """Σ = E[ψψᵀ] over samples and positions, float64 (C, C), from normalised images."""
    total, count = None, 0
    for images in batches:
        flat = psi(images).transpose(0, 1).flatten(1).double()
        total = flat @ flat.T if total is None else total + flat @ flat.T
        count += flat.shape[1]
    if total is None:
        raise ValueError("no images to take the second moment of")
    return total / count


class _Adam:
    """Adam of one small tensor (Kingma and Ba 2015, arXiv:1412.6980), at half of what torch.optim's bookkeeping takes."""

    BETAS, EPSILON = (0.9, 0.999), 1e-8

    def __init__(self, like: Tensor) -> None:
        self.mean, self.square, self.steps = torch.zeros_like(like), torch.zeros_like(like), 0

    def step(self, value: Tensor, grad: Tensor, rate: float) -> None:
        """Moves `value` against its gradient, in place."""
        (first, second), self.steps = self.BETAS, self.steps + 1
        self.mean.lerp_(grad, 1 - first)
        self.square.mul_(second).addcmul_(grad, grad, value=1 - second)
        spread = self.square.sqrt().div_(math.sqrt(1 - second**self.steps)).add_(self.EPSILON)
        value.addcdiv_(self.mean, spread, value=-rate / (1 - first**self.steps))


@torch.no_grad()
def fit_cycle(
    second_moment: Tensor,
    maps: Sequence[Tensor],
    *,
    steps: int = 32_000,
    rounds: int = 10,
    lr: float = 1e-3,
    lr_end: float = 1e-4,
    start: Sequence[Tensor] | None = None,
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> list[Tensor]:
    """The maps back h_k that minimise Σ_r Σ_k ‖(h_k g_k − I) ψ_{r−1}‖², ψ_r = A ψ_{r−1}, A = (1/K) Σ_k h_k g_k.

    Only channels are mixed, so the loss depends on the images through Σ = E[ψψᵀ] alone, and for round r it is
    Σ_k tr((h_k g_k − I) Σ_r (h_k g_k − I)ᵀ) / C with Σ_r = A^{r−1} Σ (A^{r−1})ᵀ, whose gradient is exact here. The schedule
    is the authors': epochs of `rounds` passes, one r a pass, 32 steps each, Adam, the gradient stopped through ψ_{r−1}.

    Departures from the authors' code:
        1. Expectations over all images replace minibatches, so no noise of sampling enters the maps.
        2. The exact minimiser is h_k = g_k⁻¹ with zero loss, so where the optimiser stops defines the published metric;
           see `Reliability.shrinkage`.

    Args:
        second_moment: Σ (C, C).
        maps: g_k (C_k, C).
        start: h_k (C, C_k) to begin with, for instance of the previous depth; PyTorch's initial weights if None.
        checkpoint: saved at the ends of epochs, at intervals by time; resumed from when its key is this one's.

    Returns:
        h_k (C, C_k), of Σ's type.

    >>> import torch, featcx_core as fx
    >>> g = [torch.eye(3) + 0.1 * torch.randn(3, 3) for _ in range(2)]
    >>> back = fx.fit_cycle(torch.eye(3), g, steps=3200, lr=1e-2)
    >>> torch.allclose(back[0] @ g[0], torch.eye(3), atol=0.05)
    True
    """
    channels, widest = len(second_moment), max(len(g) for g in maps)
    sigma, identity = second_moment.contiguous(), torch.eye(channels).to(second_moment)
    # One tensor for all k: narrower nets are padded with zero rows, whose columns of h get no gradient.
    g = torch.stack([nn.functional.pad(m.to(sigma), (0, 0, 0, widest - len(m))) for m in maps])
    if start is None:
        bound, rng = [len(m) ** -0.5 for m in maps], generator(seed)
        start = [(2 * torch.rand(channels, len(m), generator=rng) - 1) * b for m, b in zip(maps, bound, strict=True)]
    h = torch.stack([nn.functional.pad(m.to(sigma), (0, widest - m.shape[1])) for m in start])
    adam, back = _Adam(h), g.mT.contiguous()
    epochs, first, saved = max(1, round(steps / (PASS * rounds))), 0, time.monotonic()
    if checkpoint is not None and (found := read(checkpoint)) is not None:
        state, first, _ = found
        h, adam.mean, adam.square = (state[name].to(h) for name in ("h", "mean", "square"))
    adam.steps = done = first * rounds * PASS
    total = epochs * rounds * PASS
    library = kernel(KERNEL) if (h.dtype, h.device.type) == (torch.float32, "cpu") else None
    for epoch in range(first, epochs):
        rate = lr * (lr_end / lr) ** (epoch / max(1, epochs - 1))
        for r in range(rounds):
            if library is not None:
                _native_steps(library, h, adam, g, sigma, r, rate)
                done += PASS
                continue
            for _ in range(PASS):
                there_and_back = torch.bmm(h, g)
                root = torch.linalg.matrix_power(there_and_back.mean(0), r)
                moment = root @ sigma @ root.T
                errors = (there_and_back - identity).view(-1, channels)  # one product for all k
                adam.step(h, torch.bmm((errors @ moment).view_as(there_and_back), back).mul_(2 / channels), rate)
            done += PASS
        if on_step is not None:
            on_step(done, total)
        if checkpoint is not None and time.monotonic() - saved > checkpoint.seconds and done < total:
            write(checkpoint, {"h": h, "mean": adam.mean, "square": adam.square}, epoch + 1)
            saved = time.monotonic()
    return [part[:, : len(m)] for part, m in zip(h, maps, strict=True)]


def _native_steps(
    library: ctypes.CDLL, h: Tensor, adam: _Adam, g: Tensor, sigma: Tensor, before: int, rate: float
) -> None:
    """One pass of the round after `before` others by cycle.cpp, in place; it differs from torch's by rounding."""
    nets, channels, width = h.shape
    tensors = (h, adam.mean, adam.square, g, sigma)
    library.cycle_steps(
        *(ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors),
        *(ctypes.c_int64(n) for n in (nets, channels, width, before, PASS, adam.steps)),
        *(ctypes.c_double(x) for x in (rate, *adam.BETAS, adam.EPSILON)),
    )
    adam.steps += PASS


def reliable_map(maps: Sequence[Tensor], back: Sequence[Tensor], rounds: int) -> Tensor:
    """M (C_target, C) with Φ^reli = M ψ: g_target A^rounds."""
    cycle = torch.stack([h.double() @ g.double() for h, g in zip(back, maps, strict=True)]).mean(0)
    return maps[0].double() @ torch.linalg.matrix_power(cycle, rounds)


class Reliability(NamedTuple):
    """A row an order.

    Columns: `fit` Var[gψ]/Var[Φ], `shrinkage` Var[gψ_R]/Var[gψ], their product `reliability` Var[Φ^reli]/Var[Φ] with its
    interval; per component `component_ratio` Var[c^reli]/Var[c] (no share: it can pass 1, which `above_one` flags),
    `reliable_share` Var[c^reli]/Var[f] and `unreliable_share` Var[c − c^reli]/Var[f]; `reliable_cross_seed` and
    `unreliable_cross_seed`, the covariances of two chains' parts in place of the variances, and `reliability_variance`, the
    estimated variance of `reliability` over chains, NaN for one. `draws`: column → (B, L).
    """

    orders: pd.DataFrame
    draws: dict[str, Tensor]


@torch.no_grad()
def measure_reliability(
    table: ComponentTable,
    trunks: Sequence[Sequence[Trunk]],
    back: Sequence[Sequence[Sequence[Tensor]]],
    images: Callable[[Tensor], Tensor],
    *,
    rounds: int = 5,
    bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    device: torch.device | str = "cpu",
    chains: Chains | None = None,
) -> Reliability:
    """Reliability over the rows of a table (the pool's), METHOD §5; Ren et al. 2021, eqs. 5 to 7.

    As Φ, Φ^reli of an order is the mean of what its chains give.

    Args:
        table: the components.
        trunks, back: of each chain, ψ with g_k, and h_k, of each order.
        images: sample numbers to normalised images.
        rounds: R at which the reliable part is read.
        chains: of the disentanglers, as many: for how far the ratio moves with the chain.

    >>> import torch, featcx_core as fx
    >>> images, trunk = torch.rand(40, 1, 8, 8), fx.Trunk(1, (1, 8, 8), [(3, 2, 2)] * 3, width=2).eval()
    >>> pool = fx.ComponentTable.from_tensors(torch.randn(40, 1, 3, 2, 2), torch.zeros(40, 3, 2, 2), torch.zeros(40))
    >>> back = [g.T for g in trunk.matrices()]
    >>> with torch.no_grad():
    ...     found = fx.measure_reliability(pool, [[trunk]], [[back]], lambda rows: images[rows], bootstrap=50)
    >>> found.orders.order.tolist()
    [4]
    """
    players, k = len(table.orders), len(trunks)
    nets, ends_of = [net for chain in trunks for net in chain], [h for chain in back for h in chain]
    there = [net.own_scale * reliable_map(net.matrices(), h, rounds) for net, h in zip(nets, ends_of, strict=True)]
    g = torch.stack([net.own_scale * net.matrices()[0] for net in nets]).to(device)
    reader = torch.stack(there).float().to(device)

    def maps() -> Iterator[Tensor]:  # (b, L + 1 + KL, C, H·W): components, residual, ψ of each chain and order
        each = 4 * math.prod(table.shape) * (len(table.tensor_columns) + len(nets))
        for batch in table.batches([*table.tensor_columns, "sample"], max(1, min(128, AT_ONCE // each))):
            x = images(batch["sample"])
            parts = [batch[name].float().to(device) for name in table.tensor_columns]
            read = [torch.cat([net.psi(few).float() for few in x.split(at_once(x.shape))]) for net in nets]
            yield torch.stack([*parts, *read], 1).flatten(3)

    def quantities(samples: Tensor) -> Tensor:
        """(b, 6L + 1 + 2KL, C·H·W): Φ, gψ, Φ^reli, c, c^reli and c − c^reli of each order, f, each chain's Φ^reli, c^reli."""
        of_maps = samples.unflatten(1, ((1 + k) * players + 1, table.shape[0], -1))
        c, residual, psi = of_maps.split([players, 1, k * players], 1)
        each, phi = reader @ psi, c.cumsum(1)
        of_chains = each.unflatten(1, (k, players))
        parts = torch.cat([of_chains[:, :, :1], of_chains.diff(dim=2)], 2)
        through, reliable, c_reliable = (g @ psi).unflatten(1, (k, players)).mean(1), of_chains.mean(1), parts.mean(1)
        own = [phi, through, reliable, c, c_reliable, c - c_reliable, phi[:, -1:] + residual, each, parts.flatten(1, 2)]
        return torch.cat(own, 1).flatten(2)

    value, drawn = variances(maps(), quantities, len(table), bootstrap, seed, device)
    names, whole = ("phi", "through", "reliable", "c", "c_reliable", "unreliable"), 6 * players
    variance = {name: value[i * players : (i + 1) * players] for i, name in enumerate(names)}
    draw = {name: drawn[:, i * players : (i + 1) * players] for i, name in enumerate(names)}
    variance["f"], draw["f"] = value[whole : whole + 1], drawn[:, whole : whole + 1]
    ratios = {
        "fit": ("through", "phi"),
        "shrinkage": ("reliable", "through"),
        "reliability": ("reliable", "phi"),
        "component_ratio": ("c_reliable", "c"),
        "reliable_share": ("c_reliable", "f"),
        "unreliable_share": ("unreliable", "f"),
    }
    columns: dict[str, list[float] | list[int] | list[bool]] = {"order": list(table.orders)}
    draws: dict[str, Tensor] = {}
    for name, (above, below) in ratios.items():
        draws[name] = draw[above] / draw[below]
        ends = [interval(column, confidence) for column in draws[name].T]
        columns |= {
            name: (variance[above] / variance[below]).tolist(),
            f"{name}_low": [e[0] for e in ends],
            f"{name}_high": [e[1] for e in ends],
        }
    frame = pd.DataFrame(columns)
    frame["above_one"] = frame.component_ratio > 1
    frame[["reliability_variance", "reliable_cross_seed", "unreliable_cross_seed"]] = float("nan")
    if chains is not None and k == chains.chains > 1:
        own = torch.stack([chains.moments.variance(chains.phi(i))[0] for i in range(k)])
        each, parts = value[whole + 1 :].cpu().view(2, k, players)
        frame["reliability_variance"] = ((each / own).var(0) / k).numpy()
        shared, unshared = _cross_seed(variance, parts)
        frame["reliable_cross_seed"] = (shared / variance["f"]).numpy()
        frame["unreliable_cross_seed"] = cross_seed(chains).value + (unshared / variance["f"]).numpy()
    return Reliability(frame, draws)


def _cross_seed(variance: dict[str, Tensor], parts: Tensor) -> tuple[Tensor, Tensor]:
    """Covariances of two chains' c^reli, and what is to be added to that of their c for that of their c − c^reli, (L,) each.

    The mean over pairs follows from the variances of the mean over K chains and of each, `parts` (K, L). Of the chains' c,
    whose covariances are known, only that with c^reli is wanted; disentanglers and trunks have seeds of their own, so that
    no pair of them shares a seed and the covariance of the means is that of a pair.
    """
    k = len(parts)
    shared = (k * k * variance["c_reliable"] - parts.sum(0)) / (k * (k - 1))
    twice = variance["c"] + variance["c_reliable"] - variance["unreliable"]
    return shared, shared - twice
