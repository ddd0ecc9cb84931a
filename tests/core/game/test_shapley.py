"""Shapley values against their definition, shapiq, the axioms and games of known value; losses against a plain loop."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from featcx_core.analysis.bootstrap import Covariance, bootstrap_weights
from featcx_core.analysis.components import ComponentTable, extract
from featcx_core.errors import InputError
from featcx_core.game import values as shapley
from featcx_core.game.values import coalition_losses, measure_effectiveness, shapley_values, shapley_weights
from featcx_core.nets.targets import TargetNet
from featcx_core.seeds import derive_seed

fast = settings(max_examples=30, deadline=None)


def by_permutations(game):
    """φ by its definition: the mean marginal contribution over all orders of arrival."""
    players = len(game).bit_length() - 1
    values = np.zeros(players)
    for order in itertools.permutations(range(players)):
        coalition = 0
        for player in order:
            values[player] += game[coalition | 1 << player] - game[coalition]
            coalition |= 1 << player
    return values / math.factorial(players)


def as_game(players, worth):
    """v over bitmasks from a function of the set of players."""
    return np.array([float(worth({i for i in range(players) if s >> i & 1})) for s in range(2**players)])


@st.composite
def games(draw, count=1):
    players = draw(st.integers(1, 5))
    values = hnp.arrays(np.float64, 2**players, elements=st.floats(-100, 100, allow_subnormal=False))
    return (players, *(draw(values) for _ in range(count)))


@pytest.mark.parametrize("players", [1, 2, 3, 4, 5])
def test_weights_are_the_mean_over_permutations(players):
    game = np.random.default_rng(players).normal(size=2**players)
    np.testing.assert_allclose(shapley_weights(players) @ game, by_permutations(game), atol=1e-13)


def test_weights_agree_with_shapiq():
    from shapiq import ExactComputer

    for seed in range(3):
        game = np.random.default_rng(seed).normal(size=2**6)
        computer = ExactComputer(lambda rows, game=game: game[rows.astype(int) @ (1 << np.arange(6))], n_players=6)
        theirs = computer("SV")
        expected = [theirs[(i,)] for i in range(6)]
        np.testing.assert_allclose(shapley_weights(6) @ game, expected, atol=1e-12)


@fast
@given(games())
def test_efficiency(case):
    players, game = case
    assert (shapley_weights(players) @ game).sum() == pytest.approx(game[-1] - game[0], abs=1e-9)


@fast
@given(games(), st.data())
def test_dummy(case, data):
    """A player who adds the same to every coalition gets just that; a null player nothing."""
    players, game = case
    dummy, worth = data.draw(st.integers(0, players - 1)), data.draw(st.sampled_from([0.0, 1.5]))
    masks = np.arange(2**players)
    game = game[masks & ~(1 << dummy)] + worth * (masks >> dummy & 1)
    assert (shapley_weights(players) @ game)[dummy] == pytest.approx(worth, abs=1e-9)


@fast
@given(games(), st.data())
def test_symmetry(case, data):
    """Two players who add the same to every coalition get the same."""
    players, game = case
    a, b = data.draw(st.integers(0, players - 1)), data.draw(st.integers(0, players - 1))
    masks = np.arange(2**players)
    swapped = masks & ~(1 << a) & ~(1 << b) | (masks >> a & 1) << b | (masks >> b & 1) << a
    values = shapley_weights(players) @ (game + game[swapped])
    assert values[a] == pytest.approx(values[b], abs=1e-9)


@fast
@given(games(count=2))
def test_additivity(case):
    players, one, other = case
    weights = shapley_weights(players)
    np.testing.assert_allclose(weights @ (one + 2 * other), weights @ one + 2 * (weights @ other), atol=1e-9)


def test_glove_game():
    """Player 0 has a left glove, 1 and 2 a right one; a pair is worth 1: (2/3, 1/6, 1/6)."""
    game = as_game(3, lambda s: 0 in s and bool(s & {1, 2}))
    np.testing.assert_allclose(shapley_weights(3) @ game, [2 / 3, 1 / 6, 1 / 6], atol=1e-15)


def test_unanimity_game():
    """Only coalitions with all of T are worth 1: T shares it equally."""
    for team in ({2}, {0, 3}, {0, 1, 4}):
        game = as_game(5, lambda s, team=team: team <= s)
        expected = [(i in team) / len(team) for i in range(5)]
        np.testing.assert_allclose(shapley_weights(5) @ game, expected, atol=1e-15)


def test_airport_game():
    """A runway costs its longest user's need; each stretch is shared by those who need it (Littlechild & Owen 1973)."""
    game = as_game(4, lambda s: max([(8, 11, 13, 18)[i] for i in s], default=0))
    np.testing.assert_allclose(shapley_weights(4) @ game, [2, 3, 4, 9], atol=1e-14)


def test_fourteen_players_still_add_up():
    game = np.random.default_rng(0).normal(size=2**14)
    assert (shapley_weights(14) @ game).sum() == pytest.approx(game[-1] - game[0], abs=1e-10)


@pytest.mark.parametrize("players", [0, -1, 21])
def test_player_counts_that_will_not_do(players):
    with pytest.raises(InputError, match=f"not {players}"):
        shapley_weights(players)


def test_values_sum_to_the_loss_decrease_of_each_sample():
    losses = torch.rand(50, 2**6, generator=torch.Generator().manual_seed(0))
    values = shapley_values(losses)
    assert values.shape == (50, 6)
    assert values.dtype == torch.float64
    torch.testing.assert_close(values.sum(1), (losses[:, 0] - losses[:, -1]).double(), rtol=0, atol=1e-12)


def test_values_are_of_loss_decreases_and_bit_i_is_player_i():
    losses = torch.tensor([[5.0, 3.0, 4.0, 2.0]])  # player 0 lowers the loss by 2, player 1 by 1
    assert shapley_values(losses).tolist() == [[2.0, 1.0]]


def random_table(n, players, shape=(3, 2, 2), seed=0):
    rng = torch.Generator().manual_seed(seed)
    return ComponentTable.from_tensors(
        components=torch.randn(n, players, *shape, generator=rng),
        residual=torch.randn(n, *shape, generator=rng),
        labels=torch.randint(4, (n,), generator=rng),
    )


@torch.no_grad()
def naive_losses(table, head, labels=None):
    """A sum of its own for every coalition, in float64."""
    (maps, own), players = next(iter(table.stacked(len(table)))), len(table.orders)
    columns = []
    for s in range(2**players):
        members = [maps[:, i].double() for i in range(players) if s >> i & 1]
        feature = sum(members, maps[:, players].double())
        columns.append(F.cross_entropy(head(feature.float()), own if labels is None else labels, reduction="none"))
    return torch.stack(columns, 1)


def small_head():
    torch.manual_seed(0)
    return nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(12, 4)).eval()


@pytest.mark.parametrize("players", [1, 2, 5, 8])
def test_all_coalitions_equal_a_plain_loop(players):
    table, head = random_table(70, players), small_head()
    losses = coalition_losses(table, head)
    assert losses.shape == (70, 2**players)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, naive_losses(table, head), rtol=1e-5, atol=1e-5)


def test_all_coalitions_with_a_real_head(digits):
    torch.manual_seed(1)
    net = TargetNet("resnet8", digits.shape, 10).eval()
    with torch.no_grad():
        feature = net.feature(digits.normalise(digits.test_images[:80]))
    parts = torch.randn(80, 4, *net.shape, generator=torch.Generator().manual_seed(0))
    table = ComponentTable.from_tensors(parts, feature - parts.sum(1), digits.test_labels[:80])
    losses = coalition_losses(table, net.head)
    torch.testing.assert_close(losses, naive_losses(table, net.head), rtol=1e-5, atol=1e-5)
    with torch.no_grad():  # all components together with the residual are the feature itself
        own = F.cross_entropy(net(digits.normalise(digits.test_images[:80])), digits.test_labels[:80], reduction="none")
    torch.testing.assert_close(losses[:, -1], own, rtol=1e-5, atol=1e-5)


def test_rounding_does_not_pile_up_over_many_coalitions():
    """Each of 4,096 sums is as exact as twelve additions allow, though components are large."""
    table, sums = random_table(4, 12), []
    for name in table.tensor_columns[:-1]:
        table._source[name] *= 1000

    class Recorder(nn.Module):
        def forward(self, feature):
            if isinstance(feature, torch.Tensor):  # not what torch.fx looks in with
                sums.append(feature.double().clone())
            return feature.flatten(1)

    coalition_losses(table, Recorder())
    maps = next(iter(table.stacked(4)))[0].double()
    member = torch.tensor([[s >> i & 1 for i in range(12)] + [1] for s in range(2**12)], dtype=torch.float64)
    found = torch.cat(sums).view(2**12, *maps[:, 0].shape)
    error = (found - torch.einsum("sl,nlchw->snchw", member, maps)).abs()
    assert error[0].max() == 0
    bound = torch.einsum("sl,nlchw->snchw", member, maps.abs()) * member.sum(1).view(-1, 1, 1, 1, 1)
    assert (error <= 2.0**-24 * bound).all()


def test_other_labels_replace_the_tables_own():
    table, head = random_table(70, 3), small_head()
    labels = (table.labels() + 1) % 4
    torch.testing.assert_close(coalition_losses(table, head, labels=labels), naive_losses(table, head, labels))


def test_too_many_orders():
    with pytest.raises(InputError, match="14 orders or fewer"):
        coalition_losses(random_table(2, 15, (1, 1, 1)), small_head())


def test_parts_of_a_parquet_table_give_the_bits_of_the_whole(tmp_path):
    nets = {4: lambda x: x[:, :, ::2, ::2] * 0.5, 7: lambda x: x[:, :, ::2, ::2] ** 2, 13: lambda x: x[:, :, 1::2, ::2]}
    rng = torch.Generator().manual_seed(0)
    extract(
        lambda x: torch.tanh(x[:, :, ::2, ::2]), nets, torch.rand(300, 3, 4, 4, generator=rng),
        torch.randint(4, (300,), generator=rng), torch.arange(300), tmp_path,
        normalise=lambda x: x, device=torch.device("cpu"), part_rows=110,
    )  # fmt: skip
    table, head = ComponentTable.open(tmp_path), small_head()
    assert [len(part) for part in table.parts] == [110, 110, 80]
    whole = coalition_losses(table, head)
    for order in ([0, 1, 2], [2, 0, 1]):
        found = {i: coalition_losses(table.parts[i], head) for i in order}
        assert torch.equal(torch.cat([found[i] for i in range(3)]), whole)


def test_slices_of_a_table_in_memory_give_the_bits_of_the_whole():
    table, head = random_table(512, 4), small_head()
    whole, source = coalition_losses(table, head), table._source
    parts, share = [], shapley.batch_rows(table)
    for start in range(0, len(table), share):
        rows = slice(start, start + share)
        part = ComponentTable.from_tensors(
            torch.stack([source[name][rows] for name in table.tensor_columns[:-1]], 1),
            source["residual"][rows],
            source["label"][rows],
        )
        parts.append(coalition_losses(part, head))
    assert torch.equal(torch.cat(parts), whole)


def effectiveness(train, test, variance, draws=200, confidence=0.95, seed=0):
    """measure_effectiveness on given variances, which do not vary between draws."""
    players = train.shape[1]
    value = torch.diag(torch.tensor([*variance, 1.0], dtype=torch.float64))
    covariance = Covariance(value, value.expand(draws, -1, -1))
    orders = tuple(3 * 2**i + 1 for i in range(players))
    result = measure_effectiveness(orders, train, test, covariance, confidence=confidence, seed=seed)
    return result.orders.set_index("order")


def normal(n, mean, seed, scale=1.0):
    mean = torch.tensor(mean, dtype=torch.float64)
    noise = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return mean + scale * noise


def test_point_values_equal_their_definitions():
    train, test = normal(200, [2.0, 1.0, 0.5], 0), normal(150, [1.5, 1.2, 0.0], 1)
    table = effectiveness(train, test, [4.0, 0.25, 9.0])
    a, b = train.numpy().mean(0), test.numpy().mean(0)
    np.testing.assert_allclose(table.shapley_train, a)
    np.testing.assert_allclose(table.shapley_test, b)
    np.testing.assert_allclose(table.shapley_overfit, a - b)
    np.testing.assert_allclose(table.effectiveness, a / np.sqrt([4.0, 0.25, 9.0]))
    np.testing.assert_allclose(table.overfitting, (a - b) / a)
    np.testing.assert_allclose(table.overfitting, 1 - b / a)


def test_intervals_are_percentiles_of_resampled_means():
    train, test, draws = normal(60, [2.0, 1.0], 0), normal(40, [1.0, 1.0], 1), 300
    table = effectiveness(train, test, [4.0, 1.0], draws=draws, confidence=0.9, seed=7)
    rows = [torch.arange(60).repeat_interleave(w.long()) for w in bootstrap_weights(60, draws, derive_seed(7, "seen"))]
    means = np.stack([train[r].mean(0).numpy() for r in rows])
    np.testing.assert_allclose(table.shapley_train_low, np.quantile(means, 0.05, axis=0))
    np.testing.assert_allclose(table.effectiveness_high, np.quantile(means / [2.0, 1.0], 0.95, axis=0))
    ends = ("shapley_train", "shapley_test", "shapley_overfit", "effectiveness", "overfitting")
    assert all(
        (table[f"{name}_low"] < table[name]).all() and (table[name] < table[f"{name}_high"]).all() for name in ends
    )


def test_signs_follow_the_method():
    """Order 4 lowers the loss on both splits alike, order 7 on seen samples alone, order 13 raises it on test ones."""
    rng = torch.Generator().manual_seed(0)
    noise = lambda n: 0.01 * torch.rand(n, 8, generator=rng)  # noqa: E731
    masks = torch.arange(8)
    member = [(masks >> i & 1).float() for i in range(3)]
    seen = noise(100) + 3 - member[0] - member[1] - member[2]
    test = noise(100) + 3 - member[0] + member[2]
    table = effectiveness(shapley_values(seen), shapley_values(test), [1.0, 1.0, 1.0])
    np.testing.assert_allclose(table.overfitting, [0, 1, 2], atol=0.02)
    np.testing.assert_allclose(table.shapley_overfit, [0, 1, 2], atol=0.02)
    gap = lambda s: float(test[:, s].mean() - seen[:, s].mean())  # noqa: E731 (test loss − train loss)
    assert table.shapley_overfit.sum() == pytest.approx(gap(-1) - gap(0), abs=1e-6)
    assert table.overfitting_stable.all()


def test_small_or_negative_denominators_are_unstable():
    """φ^train of 10, 2 and −10 standard errors: a bounded interval is given to the first alone."""
    error = 1 / math.sqrt(400)
    noise = normal(400, [0.0, 0.0, 0.0], 0)
    noise = (noise - noise.mean(0)) / noise.std(0)
    train = noise + torch.tensor([10.0, 1.0, -10.0], dtype=torch.float64) * error
    table = effectiveness(train, normal(400, [0.4, 0.1, -0.4], 1), [1.0, 1.0, 1.0], draws=1000)
    assert table.overfitting_stable.tolist() == [True, False, False]
    assert np.isfinite([table.overfitting_low.iloc[0], table.overfitting_high.iloc[0]]).all()
    assert table[["overfitting_low", "overfitting_high"]].iloc[1:].isna().all(axis=None)
    np.testing.assert_allclose(table.overfitting, (1 - table.shapley_test / table.shapley_train))


def test_three_standard_errors_are_the_border():
    noise = normal(400, [0.0, 0.0], 0)
    noise = (noise - noise.mean(0)) / noise.std(0)
    train = noise + torch.tensor([2.99, 3.01], dtype=torch.float64) / math.sqrt(400)
    assert effectiveness(train, train, [1.0, 1.0]).overfitting_stable.tolist() == [False, True]


def test_a_component_of_zeros_has_no_over_fitting():
    train, test = normal(50, [1.0, 0.0], 0), normal(50, [1.0, 0.0], 1)
    train[:, 1] = test[:, 1] = 0.0
    row = effectiveness(train, test, [1.0, 0.0]).loc[7]
    assert not row.overfitting_stable
    assert pd.isna(row.overfitting_low)
    assert pd.isna(row.overfitting_high)
    assert row.shapley_train == row.effectiveness == row.effectiveness_high == 0


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """200 repetitions of 80 % intervals: 160 expected, and 5 standard deviations (28) off would be a fault."""
    truth = np.array([2 / 1.5, 1 - 1.2 / 2])
    hits = np.zeros(2)
    for seed in range(200):
        table = effectiveness(
            normal(80, [2.0], 2 * seed), normal(120, [1.2], 2 * seed + 1), [2.25], 150, confidence=0.8, seed=seed
        )
        low, high = table[["effectiveness_low", "overfitting_low"]], table[["effectiveness_high", "overfitting_high"]]
        hits += (low.to_numpy()[0] <= truth) & (truth <= high.to_numpy()[0])
    assert ((hits > 132) & (hits < 188)).all(), hits
