"""What chains of disentanglers share, and what depth adds over training: cross-seed significance and gain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from featcx_core.analysis.bootstrap import Covariance, covariance
from featcx_core.store.record import Record

Forward = Callable[[Tensor], Tensor]
Array = np.ndarray


class Chains(NamedTuple):
    """Second moments of all that K chains made of one feature f, over the same images.

    Attributes:
        orders: L complexity orders.
        chains: K.
        continued: whether the shallower nets, trained on, are among the maps.
        moments: between the maps Φ_k^(l), chain by chain, then (continued) beside each order above the first the net before
            it trained on from the same start, chain by chain, then f.
    """

    orders: tuple[int, ...]
    chains: int
    continued: bool
    moments: Covariance

    def record(self) -> Record:
        """As a stage keeps it."""
        about = {"orders": self.orders, "chains": self.chains, "continued": self.continued}
        return Record(tensors={"moments": self.moments._asdict()}, numbers=about)

    @staticmethod
    def of(record: Record) -> Chains:
        """From what `record` gave."""
        about = record.numbers
        moments = Covariance(**record.tensors["moments"])
        return Chains(tuple(about["orders"]), about["chains"], about["continued"], moments)

    def phi(self, chain: int) -> Tensor:
        """(L, maps): rows that pick Φ_k^(l) out of the maps."""
        players = len(self.orders)
        return self._picked(chain * players, players)

    def before(self, chain: int) -> Tensor:
        """(L, maps): what stands beside each order: nothing for the first, then the shallower net trained on."""
        others = len(self.orders) - 1
        start = self.chains * len(self.orders) + chain * others
        return torch.cat([torch.zeros(1, len(self.moments.value)), self._picked(start, others)])

    @property
    def feature(self) -> Tensor:
        """(maps,): picks f."""
        return self._picked(len(self.moments.value) - 1, 1)[0]

    def _picked(self, start: int, count: int) -> Tensor:
        return torch.eye(len(self.moments.value))[start : start + count]


class Figures(NamedTuple):
    """L figures.

    Attributes:
        value: of all chains together.
        draws: over the images (B, L).
        chains: estimated variance over chains, NaN for one.
        each: of each chain or pair of chains by itself.
    """

    value: Array
    draws: Array
    chains: Array
    each: Array


def chain_moments(
    feature: Forward,
    chains: Sequence[Sequence[Forward]],
    continued: Sequence[Sequence[Forward]],
    orders: Sequence[int],
    batches: Iterable[Tensor],
    n: int,
    *,
    bootstrap: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> Chains:
    """The moments in one pass over n normalised images, given as batches (b, C, H, W).

    Args:
        feature: f.
        chains: of each chain the L nets Φ_k^(l), orders rising.
        continued: of each chain the L − 1 nets that were trained on beside the orders above the first; or none.
    """
    nets = [net for chain in (*chains, *continued) for net in chain]

    @torch.no_grad()
    def maps(x: Tensor) -> Tensor:
        return torch.stack([*(net(x).float() for net in nets), feature(x).float()], 1)

    moments = covariance((maps(x.to(device)) for x in batches), n, bootstrap, seed, device)
    return Chains(tuple(orders), len(chains), bool(continued), moments)


def residual(found: Chains) -> Figures:
    """Var[f − Φ^(l)] / Var[f] of the chains' mean."""
    return _left(found, [found.phi(k) for k in range(found.chains)])


def gain(found: Chains) -> Figures:
    """What order l adds: the residual of the net before it, trained on as long, less its own; 1 − residual for the first.

    Raises:
        ValueError: as `left_before`.
    """
    before, own = left_before(found), residual(found)
    each = before.each - own.each
    return Figures(before.value - own.value, before.draws - own.draws, _variance(each), each)


def gained_share(found: Chains) -> Figures:
    """The gain over what the net before, trained on as long, leaves: how much faster more layers train, whatever is left."""
    before, own = left_before(found), residual(found)
    each = 1 - own.each / before.each
    return Figures(1 - own.value / before.value, 1 - own.draws / before.draws, _variance(each), each)


def left_before(found: Chains) -> Figures:
    """Var[f − Φ] / Var[f] of the net before each order, trained on as long; 1 for the first order, before which is nothing.

    Raises:
        ValueError: without continued nets, when there is more than one order.
    """
    if not found.continued and len(found.orders) > 1:
        raise ValueError("without the shallower nets trained on there is no gain")
    if len(found.orders) == 1:
        return Figures(*(np.ones_like(part) for part in residual(found)))
    return _left(found, [found.before(k) for k in range(found.chains)])


def cross_seed(found: Chains) -> Figures:
    """ρ^× = Cov[c_a^(l), c_b^(l)] / Var[f], the mean over pairs of chains; NaN for one chain.

    Its variance over chains is the jackknife's from three chains on. Of two, with c what they share and e the rest,
    Cov[c_a, c_b] = ‖c‖² + ⟨c, e_a⟩ + ⟨c, e_b⟩ + ⟨e_a, e_b⟩, while half of Var[c_a] − Var[c_b] is ⟨c, e_a⟩ − ⟨c, e_b⟩ and half
    of what ‖e_a‖² and ‖e_b‖² differ by: its square estimates that variance, rather too high than too low.
    """
    k, players = found.chains, len(found.orders)
    if k == 1:
        unknown = np.full((1, players), np.nan)
        return Figures(unknown[0], unknown.repeat(len(found.moments.draws), 0), unknown[0], unknown)
    parts = [components(found.phi(i)) for i in range(k)]
    pairs = list(combinations(range(k), 2))
    shares = [_share(found, parts[a], parts[b]) for a, b in pairs]
    each, draws = np.stack([value for value, _ in shares]), np.mean([drawn for _, drawn in shares], 0)
    if k == 2:
        raw = [_share(found, part, part)[0] for part in parts]
        moved = ((raw[0] - raw[1]) / 2) ** 2
    else:
        left = np.stack([each[[i not in pair for pair in pairs]].mean(0) for i in range(k)])
        moved = (k - 1) * left.var(0)
    return Figures(each.mean(0), draws, moved, each)


def components(phi: Tensor) -> Tensor:
    """Rows that pick c^(l) = Φ^(l) − Φ^(l′), from those that pick Φ^(l)."""
    return torch.cat([phi[:1], phi[1:] - phi[:-1]])


def _share(found: Chains, a: Tensor, b: Tensor) -> tuple[Array, Array]:
    """Cov[a x, b x] / Var[f] row by row: value (L,) and draws (B, L)."""
    value, draws = found.moments.between(a, b)
    whole, whole_draws = found.moments.variance(found.feature)
    return (value / whole).numpy(), (draws / whole_draws[:, None]).numpy()


def _left(found: Chains, nets: Sequence[Tensor]) -> Figures:
    """Var[f − Φ] / Var[f] of the mean of the chains' nets, whose rows (L, maps) are given, and of each chain's own."""
    left = [found.feature - own for own in nets]
    value, draws = _share(found, mean := torch.stack(left).mean(0), mean)
    each = np.stack([_share(found, own, own)[0] for own in left])
    return Figures(value, draws, _variance(each), each)


def _variance(each: Array) -> Array:
    """Of the chains' mean, from what each chain gives (K, L); NaN for one."""
    return each.var(0, ddof=1) / len(each) if len(each) > 1 else np.full(each.shape[1], np.nan)
