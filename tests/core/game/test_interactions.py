"""Interactions against their definition, shapiq and games of known value; intervals against explicit resampling."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from featcx_core.analysis.bootstrap import bootstrap_weights
from featcx_core.errors import InputError
from featcx_core.game.interactions import interaction_values, interaction_weights, measure_interactions, pairs_of
from featcx_core.game.values import shapley_weights
from featcx_core.report.facets.shapley import draw_interactions, read_interactions
from featcx_core.seeds import derive_seed
from tests.made_frames import measured, troubled

fast = settings(max_examples=30, deadline=None)


def by_definition(game):
    """I_ij as the sum over coalitions without i and j, as sets."""
    players = len(game).bit_length() - 1
    mask = lambda members: sum(1 << m for m in members)  # noqa: E731
    values = []
    for i, j in pairs_of(players):
        others, total = [k for k in range(players) if k not in (i, j)], 0.0
        for size in range(len(others) + 1):
            weight = math.factorial(size) * math.factorial(players - size - 2) / math.factorial(players - 1)
            for s in itertools.combinations(others, size):
                both, one, other, none = (game[mask([*s, *extra])] for extra in ((i, j), (i,), (j,), ()))
                total += weight * (both - one - other + none)
        values.append(total)
    return np.array(values)


@st.composite
def games(draw):
    players = draw(st.integers(2, 5))
    return players, draw(hnp.arrays(np.float64, 2**players, elements=st.floats(-100, 100, allow_subnormal=False)))


@pytest.mark.parametrize("players", [2, 3, 4, 5, 6])
def test_weights_are_the_definition(players):
    game = np.random.default_rng(players).normal(size=2**players)
    np.testing.assert_allclose(interaction_weights(players) @ game, by_definition(game), atol=1e-13)


@pytest.mark.parametrize("players", [2, 4, 6])
def test_weights_agree_with_shapiq(players):
    from shapiq import ExactComputer

    for seed in range(3):
        game = np.random.default_rng(seed).normal(size=2**players)
        game -= game[0]  # shapiq's games are worth nothing without players, which changes no interaction
        computer = ExactComputer(
            lambda rows, game=game: game[rows.astype(int) @ (1 << np.arange(players))], n_players=players
        )
        theirs = computer("SII", order=2)
        expected = [theirs[pair] for pair in pairs_of(players)]
        np.testing.assert_allclose(interaction_weights(players) @ game, expected, atol=1e-12)


@fast
@given(st.integers(2, 6), st.data())
def test_players_that_only_add_do_not_interact(players, data):
    worth = np.array(data.draw(st.lists(st.floats(-10, 10), min_size=players + 1, max_size=players + 1)))
    member = np.arange(2**players)[:, None] >> np.arange(players) & 1
    game = worth[-1] + member @ worth[:-1]
    np.testing.assert_allclose(interaction_weights(players) @ game, 0, atol=1e-9)


@fast
@given(games(), st.permutations(range(5)))
def test_renaming_the_players_renames_the_pairs(case, order):
    """So the index treats all players alike, and a pair's value is that of its mirror image."""
    players, game = case
    order = [k for k in order if k < players]
    masks = np.arange(2**players)
    renamed = np.zeros_like(game)
    renamed[sum((masks >> k & 1) << order[k] for k in range(players))] = game
    before, after = (
        dict(zip(pairs_of(players), interaction_weights(players) @ g, strict=True)) for g in (game, renamed)
    )
    for (i, j), value in before.items():
        assert after[tuple(sorted((order[i], order[j])))] == pytest.approx(value, abs=1e-9)


@fast
@given(games())
def test_an_interaction_is_how_one_changes_the_others_shapley_value(case):
    """I_ij = φ_i(game with j there) − φ_i(game without j), over the players but j (Grabisch & Roubens 1999, recursion)."""
    players, game = case
    masks = np.arange(2**players)
    for (i, j), value in zip(pairs_of(players), interaction_weights(players) @ game, strict=True):
        without, there = game[(masks >> j & 1) == 0], game[(masks >> j & 1) == 1]
        change = shapley_weights(players - 1) @ (there - without)
        assert value == pytest.approx(change[i], abs=1e-9)  # i < j keeps its number


def test_unanimity_game():
    """Worth 1 once 0, 1 and 3 are all there: each pair of them has 1/2, any other pair nothing."""
    game = np.array([float(s & 0b1011 == 0b1011) for s in range(2**5)])
    values = dict(zip(pairs_of(5), interaction_weights(5) @ game, strict=True))
    assert values == pytest.approx({pair: 0.5 * (set(pair) <= {0, 1, 3}) for pair in values}, abs=1e-15)


def test_a_single_player_has_no_pair():
    assert interaction_weights(1).shape == (0, 2)
    frame = measure_interactions((4,), {"seen": torch.rand(5, 2)}, draws=10, confidence=0.9, seed=0)
    assert frame.empty
    assert {"a", "b", "interaction", "split"} <= set(frame)


@pytest.mark.parametrize("players", [0, 21])
def test_player_counts_that_will_not_do(players):
    with pytest.raises(InputError, match="1 to 20 players"):
        interaction_weights(players)


def test_values_are_of_loss_decreases():
    """Either order alone lowers the loss by 1, both by 1: they stand in for each other. Order 13 needs order 4."""
    losses = torch.tensor([[3.0, 2.0, 2.0, 2.0]])
    assert interaction_values(losses).tolist() == [[-1.0]]
    needed = torch.tensor([[3.0, 3.0, 3.0, 2.0]])
    assert interaction_values(needed).tolist() == [[1.0]]


def test_table_and_intervals_against_resampling():
    rng = torch.Generator().manual_seed(0)
    losses = {"seen": torch.rand(60, 8, generator=rng), "test": torch.rand(40, 8, generator=rng)}
    table = measure_interactions((4, 7, 13), losses, draws=200, confidence=0.9, seed=7)
    assert table[["split", "a", "b"]].values.tolist() == [
        [split, a, b] for split in losses for a, b in ((4, 7), (4, 13), (7, 13))
    ]
    for split, part in losses.items():
        values = -part.double().numpy() @ interaction_weights(3).T
        rows = [np.arange(len(part)).repeat(w.long()) for w in bootstrap_weights(len(part), 200, derive_seed(7, split))]
        means = np.stack([values[r].mean(0) for r in rows])
        own = table[table["split"] == split]
        np.testing.assert_allclose(own["interaction"], values.mean(0))
        np.testing.assert_allclose(own["interaction_low"], np.quantile(means, 0.05, axis=0))
        np.testing.assert_allclose(own["interaction_high"], np.quantile(means, 0.95, axis=0))


@pytest.mark.parametrize("frames", [measured(), troubled()], ids=["measured", "troubled"])
def test_the_figure_has_seen_above_and_test_below_the_diagonal(frames):
    frame = frames["interactions"]
    axis = draw_interactions(frames, coverage=0.95).axes[0]
    values = np.ma.filled(axis.images[0].get_array(), np.nan)
    orders = sorted({*frame["a"], *frame["b"]})
    assert np.isnan(np.diag(values)).all()
    assert axis.images[0].get_clim() == pytest.approx(
        (-frame["interaction"].abs().max(), frame["interaction"].abs().max())
    )
    texts = {(round(t.get_position()[1]), round(t.get_position()[0])): t for t in axis.texts}
    for row in frame.to_dict("records"):
        place = orders.index(row["a"]), orders.index(row["b"])
        place = place if row["split"] == "seen" else place[::-1]
        assert values[place] == pytest.approx(row["interaction"])
        text = texts[place]
        assert float(text.get_text().replace("−", "-")) == pytest.approx(row["interaction"], abs=0.0051)
        clear = row["interaction_low"] > 0 or row["interaction_high"] < 0
        assert text.get_fontweight() == ("bold" if clear else "normal")


def test_the_reading_names_the_strongest_and_counts_the_clear_ones():
    text = read_interactions(troubled())
    assert "that of orders 4 and 7 with −0.400 [−0.450, −0.350] nats (they lower the loss less together" in text
    frame = troubled()["interactions"]
    for split, own in frame.groupby("split"):
        above, below = (own["interaction_low"] > 0).sum(), (own["interaction_high"] < 0).sum()
        assert "of 15 pairs on seen images" in text
        assert f"on {split} images {above} lie above zero and {below} below" in text


def test_a_single_order_is_drawn_and_read_without_pairs():
    empty = {"interactions": troubled()["interactions"][:0]}
    assert [text.get_text() for text in draw_interactions(empty).axes[0].texts] == ["no pair of orders was measured"]
    assert "no pair of orders" in read_interactions(empty)
