"""Sampled Shapley values against the exact ones, the axioms, and their own standard errors."""

import numpy as np
import pytest
import torch
from torch import nn

from featcx_core.analysis.components import ComponentTable
from featcx_core.errors import InputError
from featcx_core.game import sampling as shapley_sampling
from featcx_core.game.sampling import sampled_permutations, sampled_shapley_values
from featcx_core.game.values import coalition_losses, shapley_values


def table_of(n, players, shape=(4, 2, 2), seed=0, rows=slice(None)):
    rng = torch.Generator().manual_seed(seed)
    table = ComponentTable.from_tensors(
        torch.randn(n, players, *shape, generator=rng),
        torch.randn(n, *shape, generator=rng),
        torch.randint(4, (n,), generator=rng),
        orders=range(1, players + 1),
    )
    columns = {name: values[rows] for name, values in table._source.items()}
    return ComponentTable(table.orders, table.shape, len(columns["label"]), columns)


def curved_head(channels=4):
    torch.manual_seed(0)
    layers = [nn.Linear(channels, 8), nn.ReLU(), nn.Linear(8, 4)]
    return nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), *layers).eval()


class Additive(nn.Module):
    """A head whose cross-entropy is a sum over components: class 0's logit falls by the feature's sum, exponentially small.

    Logits (−x, 0) with x ≫ 1 and label 0 have cross-entropy x within e^−x.
    """

    def forward(self, feature):
        x = feature.flatten(1).sum(1)
        return torch.stack([-x, torch.zeros_like(x), *[torch.full_like(x, -1e9)] * 2], 1)


@pytest.fixture(scope="module")
def twelve():
    table, head = table_of(150, 12), curved_head()
    return table, head, shapley_values(coalition_losses(table, head))


def test_within_standard_errors_of_the_exact_values_at_twelve_players(twelve):
    table, head, exact = twelve
    found = sampled_shapley_values(table, head, permutations=128, seed=1)
    z = ((found.values - exact) / found.errors).flatten()
    assert float((z.abs() < 4).double().mean()) > 0.995  # of 1,800 with 63 degrees of freedom, 0.3 are expected outside
    assert float(z.pow(2).mean()) == pytest.approx(1, abs=0.15)
    mean_error = found.errors.pow(2).sum(0).sqrt() / len(table)
    assert ((found.values.mean(0) - exact.mean(0)).abs() < 4 * mean_error).all()


def test_the_error_falls_as_one_over_the_root(twelve):
    table, head, exact = twelve
    off = [
        sampled_shapley_values(table, head, permutations=n).values.sub(exact).square().mean().sqrt() for n in (16, 256)
    ]
    assert float(off[0] / off[1]) == pytest.approx(4, rel=0.15)


def test_each_estimate_sums_to_the_loss_decrease(twelve):
    table, head, exact = twelve
    found = sampled_shapley_values(table, head, permutations=4)
    losses = coalition_losses(table, head)
    torch.testing.assert_close(found.values.sum(1), exact.sum(1), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.loss_empty, losses[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.loss_full, losses[:, -1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.values.sum(1), (found.loss_empty - found.loss_full).double(), rtol=0, atol=1e-12)


def test_pairs_beat_as_many_single_orders(twelve):
    """Half as many pairs as single orders: the same cost, a smaller error, in a game whose parts act against each other."""
    table, head, exact = twelve
    paired = sampled_shapley_values(table, head, permutations=16, seed=2).values
    losses, players, masks = coalition_losses(table, head).double(), 12, []
    single = torch.zeros_like(exact)
    for row in range(len(table)):
        for order in sampled_permutations(row, players, 16, seed=3):
            masks = np.concatenate([[0], np.cumsum(1 << order)])
            single[row, order] += (losses[row, masks[:-1]] - losses[row, masks[1:]]) / 16
    assert (paired - exact).square().mean() < 0.8 * (single - exact).square().mean()


def test_an_additive_game_has_no_error():
    table = table_of(10, 20, (1, 1, 1))
    for name in table.tensor_columns:
        table._source[name] = table._source[name].abs() + (20 if name == "residual" else 2)
    table._source["label"] = torch.zeros(10, dtype=torch.int64)
    found = sampled_shapley_values(table, Additive(), permutations=4)
    worth = torch.stack([-table._source[name].flatten() for name in table.tensor_columns[:-1]], 1).double()
    torch.testing.assert_close(found.values, worth, rtol=0, atol=2e-5)
    assert found.errors.max() < 2e-5


@pytest.mark.parametrize("players", [1, 2])
def test_one_or_two_players_are_exact(players):
    table, head = table_of(20, players), curved_head()
    found = sampled_shapley_values(table, head, permutations=4)
    torch.testing.assert_close(found.values, shapley_values(coalition_losses(table, head)), rtol=0, atol=1e-6)
    assert found.errors.max() < 1e-6


def test_a_component_of_zeros_is_worth_nothing():
    table = table_of(15, 16)
    table._source[table.tensor_columns[5]].zero_()
    found = sampled_shapley_values(table, curved_head(), permutations=8)
    assert found.values[:, 5].abs().max() < 1e-6
    assert found.values[:, 4].abs().max() > 1e-3


def test_shards_and_blocks_change_nothing_beyond_rounding(monkeypatch):
    head = curved_head()
    whole = sampled_shapley_values(table_of(100, 16), head, permutations=8, seed=5)
    again = sampled_shapley_values(table_of(100, 16), head, permutations=8, seed=5)
    assert torch.equal(whole.values, again.values)
    monkeypatch.setattr(shapley_sampling, "BLOCK_BYTES", {"cpu": 1})
    shards = [sampled_shapley_values(table_of(100, 16, rows=r), head, 8, 5) for r in (slice(0, 37), slice(37, 100))]
    for name in whole._fields:
        found = torch.cat([getattr(shard, name) for shard in shards])
        torch.testing.assert_close(found, getattr(whole, name), rtol=1e-5, atol=1e-6)
    assert not torch.equal(sampled_shapley_values(table_of(100, 16), head, 8, 6).values, whole.values)


def test_orders_are_permutations_of_their_own():
    orders = sampled_permutations(3, 15, 50, seed=0)
    assert (np.sort(orders, 1) == np.arange(15)).all()
    assert len(np.unique(orders, axis=0)) == 50
    assert not (sampled_permutations(4, 15, 50, seed=0) == orders).all()
    places = np.stack([np.argsort(sampled_permutations(s, 6, 100, seed=0), axis=1).mean(0) for s in range(20)])
    np.testing.assert_allclose(places.mean(0), 2.5, atol=0.2)  # a place's mean has a standard deviation of 0.04


@pytest.mark.parametrize("permutations", [0, 2, 5, -4])
def test_permutations_that_make_no_pairs(permutations):
    with pytest.raises(InputError, match="antithetic pairs"):
        sampled_shapley_values(table_of(2, 3), curved_head(), permutations=permutations)


def test_other_labels_replace_the_tables_own():
    table, head = table_of(70, 3), curved_head()
    labels = (table.labels() + 1) % 4
    found = sampled_shapley_values(table, head, permutations=1000, labels=labels)
    exact = shapley_values(coalition_losses(table, head, labels=labels))
    assert ((found.values - exact).abs() <= 5 * found.errors + 1e-6).all()
