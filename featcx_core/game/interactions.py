"""Pairwise interactions of components: which orders need each other, and which stand in for each other.

The game is that of `values.py`, v(s) = −loss of coalition s, and the same table of losses serves.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from featcx_core.analysis.bootstrap import bootstrap_weights, interval
from featcx_core.errors import InputError
from featcx_core.seeds import derive_seed


def pairs_of(players: int) -> list[tuple[int, int]]:
    """The pairs i < j of players, in the order of all tables and tensors here."""
    return list(itertools.combinations(range(players), 2))


def interaction_weights(players: int) -> np.ndarray:
    """W float64 (pairs, 2**players) with I = W v for any game v over coalition bitmasks.

    I_ij = Σ_{S ⊆ N∖{i,j}} |S|! (L−|S|−2)! / (L−1)! · [v(S∪ij) − v(S∪i) − v(S∪j) + v(S)], the Shapley interaction index
    (Grabisch & Roubens 1999, doi:10.1007/s001820050125). No rows for a single player.

    Raises:
        InputError: for fewer than one player or more than 20, where the table would not fit.
    """
    if not 1 <= players <= 20:
        raise InputError(f"Exact interactions need 1 to 20 players, not {players}.")
    coalition = np.arange(2**players)
    member = (coalition >> np.arange(players)[:, None] & 1).astype(np.int64)
    factorial = np.array([math.factorial(k) for k in range(players + 1)], dtype=np.float64)
    weights = np.empty((len(pairs_of(players)), 2**players))
    for row, (i, j) in zip(weights, pairs_of(players), strict=True):
        others = member.sum(0) - member[i] - member[j]
        sign = np.where(member[i] == member[j], 1, -1)
        row[:] = sign * factorial[others] * factorial[players - others - 2] / factorial[players - 1]
    return weights


def interaction_values(losses: Tensor) -> Tensor:
    """I float64 (n, pairs) of each sample's game, from losses (n, 2**L); above zero where two orders need each other."""
    players = losses.shape[1].bit_length() - 1
    return -(losses.double() @ torch.from_numpy(interaction_weights(players)).T.to(losses.device))


def measure_interactions(
    orders: tuple[int, ...], losses: dict[str, Tensor], *, draws: int, confidence: float, seed: int
) -> pd.DataFrame:
    """Mean interactions with intervals: a row a (split, pair) with a < b, interaction and its ends, in nats.

    Args:
        orders: L complexity orders.
        losses: of every sample and coalition (n, 2**L), by split; the k-th split is resampled with seed + k. With 'seen'
            first and 'test' second these are the draws of `measure_effectiveness`.
        draws: of the bootstrap over samples.
    """
    rows = []
    for split, table in losses.items():
        values = interaction_values(table)
        resampled = bootstrap_weights(len(values), draws, derive_seed(seed, split)).double() @ values / len(values)
        for k, (i, j) in enumerate(pairs_of(len(orders))):
            low, high = interval(resampled[:, k], confidence)
            row = {"interaction": float(values[:, k].mean()), "interaction_low": low, "interaction_high": high}
            rows.append({"split": split, "a": orders[i], "b": orders[j]} | row)
    columns = ["split", "a", "b", "interaction", "interaction_low", "interaction_high"]
    return pd.DataFrame(rows, columns=columns)
