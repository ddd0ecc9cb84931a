"""The games of one target on its seen and on its test images: from components and head to every table of Shapley values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from featcx_core.analysis.bootstrap import Covariance
from featcx_core.analysis.components import ComponentTable
from featcx_core.errors import InputError
from featcx_core.game.interactions import measure_interactions
from featcx_core.game.sampling import PERMUTATIONS, sampled_shapley_values, sampling_errors
from featcx_core.game.values import (
    EXACT_PLAYERS,
    Effectiveness,
    Head,
    LossOfEach,
    coalition_losses,
    measure_effectiveness,
    shapley_values,
)
from featcx_core.seeds import derive_seed
from featcx_core.store.record import Record

Game = Mapping[str, Tensor]


def played(table: ComponentTable, head: nn.Module, split: str, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """One split's games, or a part's: `losses` (n, 2^L) of all coalitions; of more than 14 orders the fields of
    `SampledValues`, whose permutations depend on the split and the sample alone.
    """
    if len(table.orders) <= EXACT_PLAYERS:
        return {"losses": coalition_losses(table, head, device=device)}
    return sampled_shapley_values(table, head, seed=derive_seed(0, split), device=device)._asdict()


class Shapley(NamedTuple):
    """What `shapley` gives.

    Attributes:
        values: φ float64 (n, L); over L they sum to `loss_empty` − `loss_full`.
        errors: (n, L), standard errors of the sampling; zeros for exact values. Of a mean over samples: √(Σ errors²)/n.
        loss_empty, loss_full: (n,), of no and of all components.
    """

    values: Tensor
    errors: Tensor
    loss_empty: Tensor
    loss_full: Tensor


def shapley(
    components: Tensor,
    residual: Tensor,
    head: Head,
    labels: Tensor,
    loss: LossOfEach | None = None,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Shapley:
    """How much each component of a feature lowers each sample's loss: Shapley values of v(S) = −loss(head(Δf + Σ_S c), y).

    Up to 14 components they are exact, beyond they are sampled.

    Args:
        components: c (n, L, …): maps (n, L, C, H, W), vectors (n, L, d), or any other.
        residual: Δf (n, …), what the components leave of the feature; zeros for none.
        head: takes features (b, …); a module in training mode is asked as a copy in evaluation mode.
        labels: (n, …), what the loss takes.
        loss: (what the head gives, labels) to (b,); None: cross-entropy in nats of logits (b, K) against labels (b,).
        permutations: orders of arrival a sample, where values are sampled.

    Raises:
        InputError: for shapes that do not fit, or a loss that does not give one value a sample.

    >>> import torch, featcx_core as fx
    >>> c, rest, y = torch.randn(6, 3, 5), torch.zeros(6, 5), torch.arange(6) % 2
    >>> found = fx.shapley(c, rest, torch.nn.Linear(5, 2), y)
    >>> found.values.shape
    torch.Size([6, 3])
    >>> torch.allclose(found.values.sum(1), (found.loss_empty - found.loss_full).double(), atol=1e-5)
    True
    >>> squared = fx.shapley(c, rest, lambda f: f, torch.zeros(6, 5), loss=lambda a, b: (a - b).square().sum(1))
    """
    n = len(components)
    if len(labels) != n:
        raise InputError(f"There are {len(labels)} labels for {n} samples; give one a sample.")
    names = range(1, components.shape[1] + 1 if components.ndim > 1 else 1)
    table = ComponentTable.from_tensors(components, residual, torch.zeros(n), orders=names)
    if len(names) > EXACT_PLAYERS:
        return Shapley(*sampled_shapley_values(table, head, permutations, seed, labels, device, loss))
    losses = coalition_losses(table, head, labels, device, loss)
    values = shapley_values(losses)
    return Shapley(values, torch.zeros_like(values), losses[:, 0], losses[:, -1])


class Outcome(NamedTuple):
    """What the games of a target say.

    Attributes:
        effectiveness: its tidy table and draws; of sampled values with their errors.
        interactions: a row a (split, pair of orders); empty for sampled values.
        values: 'train' and 'test' → φ float64 (n, L) of each sample.
        ends: mean loss of no and of all components: train_loss_empty, train_loss_full, test_loss_empty, test_loss_full.
    """

    effectiveness: Effectiveness
    interactions: pd.DataFrame
    values: dict[str, Tensor]
    ends: dict[str, float]

    def record(self) -> Record:
        """As a stage keeps it."""
        frames = {"effectiveness": self.effectiveness.orders, "interactions": self.interactions}
        return Record(frames, {"values": self.values, "draws": self.effectiveness.draws}, self.ends)


def outcome(
    orders: tuple[int, ...],
    train: Game,
    test: Game,
    covariance: Covariance,
    *,
    bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Outcome:
    """Shapley values, effectiveness, over-fitting and interactions from what `played` gave on seen and on test images.

    Args:
        covariance: of the components over the pool, with its draws.
    """
    games, exact = {"train": train, "test": test}, "losses" in train
    values = {name: shapley_values(game["losses"]) if exact else game["values"] for name, game in games.items()}
    found = measure_effectiveness(orders, values["train"], values["test"], covariance, confidence=confidence, seed=seed)
    if not exact:
        found = found._replace(orders=found.orders.assign(**sampling_errors(train["errors"], test["errors"])))
    pairs = measure_interactions(
        orders,
        {"seen": train["losses"], "test": test["losses"]} if exact else {},
        draws=bootstrap,
        confidence=confidence,
        seed=seed,
    )
    ends = dict[str, float]()
    for name, game in games.items():
        empty, full = game["losses"].T[[0, -1]] if exact else (game["loss_empty"], game["loss_full"])
        ends |= {f"{name}_loss_empty": float(empty.double().mean()), f"{name}_loss_full": float(full.double().mean())}
    return Outcome(found, pairs, values, ends)
