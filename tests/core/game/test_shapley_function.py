"""fx.shapley: any number of components, any head, any loss a sample; and nobody's net is changed by being asked."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import featcx_core as fx


def by_hand(components, residual, value):
    """Mean marginal contribution over all orders of arrival."""
    players = components.shape[1]
    found = torch.zeros(len(components), players, dtype=torch.float64)
    orders = list(permutations(range(players)))
    for order in orders:
        total = residual
        before = value(total)
        for i in order:
            total = total + components[:, i]
            after = value(total)
            found[:, i] += (before - after).double()
            before = after
    return found / len(orders)


@pytest.mark.parametrize("shape", [(5,), (3, 2, 2), (4, 6)])
def test_any_shape_head_and_loss_against_all_orders(shape):
    rng = torch.Generator().manual_seed(1)
    c, rest = torch.randn(4, 3, *shape, generator=rng), torch.randn(4, *shape, generator=rng)
    wanted = torch.randn(4, 2, generator=rng)
    weight = torch.randn(rest[0].numel(), 2, generator=rng)

    def head(f):
        return (f.flatten(1) @ weight).tanh()

    def loss(a, b):
        return (a - b).abs().sum(1)

    found = fx.shapley(c, rest, head, wanted, loss=loss)
    torch.testing.assert_close(found.values, by_hand(c, rest, lambda f: loss(head(f), wanted)), rtol=1e-4, atol=1e-5)
    assert (found.errors == 0).all()


def test_vectors_and_cross_entropy_by_default():
    torch.manual_seed(0)
    c, rest, y, head = torch.randn(6, 3, 5), torch.randn(6, 5), torch.arange(6) % 4, nn.Linear(5, 4)
    with torch.no_grad():
        wanted = by_hand(c, rest, lambda f: F.cross_entropy(head(f), y, reduction="none"))
    torch.testing.assert_close(fx.shapley(c, rest, head, y).values, wanted, rtol=1e-4, atol=1e-5)


def test_beyond_fourteen_they_are_sampled_with_errors():
    """In an additive game every order of arrival gives the value itself, whatever is sampled."""
    rng = torch.Generator().manual_seed(2)
    c, rest = torch.randn(3, 16, 2, generator=rng), torch.zeros(3, 2)
    found = fx.shapley(c, rest, lambda f: f, rest, loss=lambda a, b: a.sum(1), permutations=8)
    torch.testing.assert_close(found.values, -c.sum(2).double(), rtol=1e-4, atol=1e-5)
    curved = fx.shapley(c, rest, lambda f: f, rest, loss=lambda a, b: a.sum(1) ** 2, permutations=8)
    assert (curved.errors > 0).all()
    torch.testing.assert_close(curved.values.sum(1), (curved.loss_empty - curved.loss_full).double())


def test_a_head_in_training_mode_is_asked_as_a_copy_in_evaluation_mode():
    torch.manual_seed(0)
    head = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).train()
    c, rest, y = torch.randn(7, 2, 4), torch.randn(7, 4), torch.arange(7) % 3
    first, again = (fx.shapley(c, rest, head, y).values for _ in range(2))
    assert torch.equal(first, again)
    assert all(module.training for module in head.modules())
    assert head[1].num_batches_tracked == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": torch.zeros(3)}, "3 labels for 5 samples"),
        ({"components": torch.zeros(5, 4)}, r"\(n, L, d\)"),
        ({"residual": torch.zeros(5, 3)}, "fit together"),
        ({"loss": F.mse_loss}, "one value a sample"),
    ],
)
def test_what_does_not_fit_is_a_sentence(change, says):
    given = {"components": torch.zeros(5, 2, 4), "residual": torch.zeros(5, 4), "head": lambda f: f, "loss": None}
    with pytest.raises(fx.InputError, match=says):
        fx.shapley(**given | {"labels": torch.zeros(5, 4) if "loss" in change else torch.zeros(5).long()} | change)
