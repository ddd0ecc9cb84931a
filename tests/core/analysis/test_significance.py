"""Variances, covariances and their bootstrap against NumPy in float64 and explicit resampling."""

import tempfile

import numpy as np
import pytest
import torch

from featcx_core.analysis import bootstrap
from featcx_core.analysis.bootstrap import bootstrap_weights, component_covariance, interval
from featcx_core.analysis.components import ComponentTable
from featcx_core.analysis.significance import measure_significance, order_frame


def random_table(n=150, players=3, shape=(4, 3, 3), seed=0, offset=0.0, residual=1.0):
    """Correlated components whose mean is `offset` standard deviations from zero."""
    rng = torch.Generator().manual_seed(seed)
    common = torch.randn(n, 1, *shape, generator=rng)
    maps = torch.randn(n, players + 1, *shape, generator=rng) + 0.5 * common
    maps = maps + offset * torch.randn(players + 1, *shape, generator=rng)
    scale = torch.tensor([*(2.0**-i for i in range(players)), 0.3 * residual])[:, None, None, None]
    maps = maps * scale
    return ComponentTable.from_tensors(maps[:, :-1], maps[:, -1], torch.zeros(n))


def maps_of(table):
    """float64 (n, L + 1, elements)."""
    return next(iter(table.stacked(len(table))))[0].flatten(2).double().numpy()


def covariances(maps):
    """Σ_elements Cov(x_k, x_k') by its definition."""
    centred = maps - maps.mean(0)
    return np.einsum("nie,nje->ij", centred, centred) / len(maps)


@pytest.mark.parametrize("offset", [0.0, 10.0, 1000.0])
def test_covariance_equals_numpy_in_float64(offset):
    table = random_table(offset=offset)
    value = component_covariance(table).value.numpy()
    expected = covariances(maps_of(table))
    np.testing.assert_allclose(value, expected, atol=1e-5 * expected.max())
    diagonal = maps_of(table).var(0).sum(1)
    np.testing.assert_allclose(np.diag(value), diagonal, rtol=2e-5)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_draws_equal_resampling_with_the_same_weights(offset):
    table, draws = random_table(n=70, offset=offset), 25
    result = component_covariance(table, draws, seed=3)
    maps, weights = maps_of(table), bootstrap_weights(70, draws, 3)
    assert result.draws.shape == (draws, 4, 4)
    for draw, row in zip(result.draws.numpy(), weights, strict=True):
        expected = covariances(maps[np.arange(70).repeat(row.long())])
        np.testing.assert_allclose(draw, expected, atol=1e-5 * expected.max())


@pytest.mark.parametrize("few", [1, 4, 25])
def test_means_of_draws_beyond_what_is_held_come_from_a_file(few, monkeypatch, tmp_path):
    """The same draws, a few at a time, and the file is gone."""
    table = random_table(n=150, offset=5.0)
    held = component_covariance(table, 25, seed=3)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setitem(bootstrap.HELD_BYTES, "cpu", 4 * maps_of(table)[0].size * few)
    files = []
    real = tempfile.NamedTemporaryFile
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", lambda **given: files.append(real(**given)) or files[-1])
    again = component_covariance(table, 25, seed=3)
    torch.testing.assert_close(again.draws, held.draws, rtol=1e-5, atol=1e-5)
    assert (len(files), list(tmp_path.iterdir())) == (1, [])


@pytest.mark.parametrize("bytes_at_once", [1, 1 << 20])
def test_variances_of_linear_functions_equal_resampling(bytes_at_once, monkeypatch):
    """Of each draw by its definition: the functions of the samples drawn, repeated as often as they were drawn."""
    monkeypatch.setattr(bootstrap, "COMBINED_BYTES", bytes_at_once)
    rng = torch.Generator().manual_seed(4)
    x = torch.randn(50, 2, 6, generator=rng) + 30
    matrix = torch.randn(12, 3 * 5, generator=rng)

    def combine(samples):
        return (samples @ matrix).unflatten(1, (3, 5))

    value, draws = bootstrap.variances(x.split(16), combine, 50, draws=7, seed=1)
    y = (x.flatten(1).double() @ matrix.double()).unflatten(1, (3, 5))
    weights = bootstrap_weights(50, 7, 1)
    torch.testing.assert_close(value, y.var(0, correction=0).sum(1), rtol=1e-4, atol=1e-6)
    for draw, counts in zip(draws, weights, strict=True):
        drawn = y.repeat_interleave(counts.long(), 0)
        torch.testing.assert_close(draw, drawn.var(0, correction=0).sum(1), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="32 samples came where 50 were announced"):
        bootstrap.variances(x[:32].split(16), combine, 50)


def test_bootstrap_weights_are_counts_of_n_draws():
    weights = bootstrap_weights(40, 2000, 0)
    assert weights.dtype == torch.float32
    assert (weights.sum(1) == 40).all()
    assert (weights == weights.round()).all()
    assert (weights >= 0).all()
    assert weights.mean(0).sub(1).abs().max() < 0.15  # each sample once on average, standard error 0.022
    assert weights.var() == pytest.approx(1 - 1 / 40, abs=0.02)  # that of a multinomial count
    assert torch.equal(weights, bootstrap_weights(40, 2000, 0))
    assert not torch.equal(weights, bootstrap_weights(40, 2000, 1))


def test_interval_is_the_percentile_interval():
    assert interval(np.arange(101.0), 0.9) == pytest.approx((5, 95))
    assert interval(torch.arange(101.0), 0.5) == pytest.approx((25, 75))


def test_variance_of_a_combination():
    table = random_table()
    covariance, maps = component_covariance(table, 10), maps_of(table)
    combination = torch.tensor([[1.0, -2.0, 0.5, 0.0], [1.0, 1.0, 1.0, 1.0]])
    value, draws = covariance.variance(combination)
    combined = np.einsum("ak,nke->nae", combination.double().numpy(), maps)
    np.testing.assert_allclose(value, combined.var(0).sum(1), rtol=1e-5)
    assert draws.shape == (10, 2)
    one, one_draws = covariance.variance(combination[0])
    assert one == pytest.approx(float(value[0]))
    np.testing.assert_allclose(one_draws, draws[:, 0])


@pytest.mark.parametrize("batch_size", [1, 7, 64, 150, 1000])
def test_batch_size_changes_rounding_alone(batch_size):
    table = random_table(offset=3.0)
    whole = component_covariance(table, 20, batch_size=len(table))
    streamed = component_covariance(table, 20, batch_size=batch_size)
    scale = float(whole.value.max())
    torch.testing.assert_close(streamed.value, whole.value, rtol=1e-4, atol=1e-5 * scale)
    torch.testing.assert_close(streamed.draws, whole.draws, rtol=1e-4, atol=1e-5 * scale)


def test_same_seed_same_bits():
    one, other = (component_covariance(random_table(), 20, seed=5) for _ in range(2))
    assert torch.equal(one.value, other.value)
    assert torch.equal(one.draws, other.draws)


def test_significance_and_residual_by_their_definitions():
    table = random_table(players=4)
    result = measure_significance({"pool": table}, bootstrap=100, confidence=0.95, seed=0)
    maps = maps_of(table)
    feature = maps.sum(1)
    total = feature.var(0).sum()
    assert result.feature_variance == pytest.approx(total, rel=1e-5)
    phi = maps[:, :-1].cumsum(1)
    residual = [(feature - phi[:, i]).var(0).sum() / total for i in range(4)]
    np.testing.assert_allclose(result.orders.significance, maps[:, :-1].var(0).sum(1) / total, rtol=1e-4)
    np.testing.assert_allclose(result.orders.residual, residual, rtol=1e-4)
    assert result.orders.order.tolist() == [4, 7, 13, 25]
    assert result.orders.blocks.tolist() == [1, 2, 4, 8]
    for name in ("significance", "residual", "explained"):
        assert (result.orders[f"{name}_low"] <= result.orders[f"{name}_high"]).all()


def test_covariances_are_shares_that_sum_to_one():
    frame = measure_significance({"pool": random_table()}, bootstrap=100, confidence=0.95, seed=0).covariance
    assert frame.covariance.sum() == pytest.approx(1)
    pairs = frame.set_index(["a", "b"]).covariance
    assert pairs["4", "residual"] == pairs["residual", "4"]
    assert set(frame.a) == {"4", "7", "13", "residual"}


def test_explained_increments_and_the_last_residual_sum_to_one():
    table = random_table(players=4, offset=2.0)
    moments = component_covariance(table, 100)
    frame, draws = order_frame(table.orders, moments, 0.95)
    assert frame.explained.sum() + frame.residual.iloc[-1] == pytest.approx(1, abs=1e-12)
    assert frame.explained.iloc[0] == pytest.approx(1 - frame.residual.iloc[0])
    np.testing.assert_allclose(frame.explained.iloc[1:], -np.diff(frame.residual), atol=1e-12)
    sums = draws["explained"].sum(1) + draws["residual"][:, -1]  # so it is in every draw
    np.testing.assert_allclose(sums, 1, atol=1e-12)
    for name, values in draws.items():
        assert values.shape == (100, 4)
        ends = [interval(values[:, i], 0.95) for i in range(4)]
        np.testing.assert_allclose(frame[[f"{name}_low", f"{name}_high"]], ends)


def test_an_order_that_fits_worse_is_flagged():
    rng = torch.Generator().manual_seed(0)
    feature = torch.randn(80, 2, 2, 2, generator=rng)
    noise = torch.randn(80, 2, 2, 2, generator=rng)
    phi = torch.stack([feature + scale * noise for scale in (1.0, 0.3, 0.6, 0.1, 0.2)], 1)
    components = torch.cat([phi[:, :1], phi.diff(dim=1)], 1)
    table = ComponentTable.from_tensors(components, feature - phi[:, -1], torch.zeros(80))
    frame = measure_significance({"pool": table}, bootstrap=100, confidence=0.95, seed=0).orders
    assert frame.residual_rises.tolist() == [False, False, True, False, True]


def split_table(share, n=400, seed=0):
    """f of variance 1 + share an element, of which a net of order 4 misses share / (1 + share)."""
    rng = torch.Generator().manual_seed(seed)
    signal, missed = torch.randn(2, n, 8, 2, 2, generator=rng)
    return ComponentTable.from_tensors(signal[:, None], missed * share**0.5, torch.zeros(n))


def test_a_gap_between_splits_is_flagged_above_a_tenth():
    tables = {"pool": split_table(0.25), "seen": split_table(0.25, seed=1), "test": split_table(0.36, seed=2)}
    frame = measure_significance(tables, bootstrap=100, confidence=0.95, seed=0).splits.set_index("split")
    for split, table in tables.items():
        maps = maps_of(table)
        expected = maps[:, 1].var(0).sum() / maps.sum(1).var(0).sum()
        assert frame.residual[split] == pytest.approx(expected, rel=1e-4)
        assert frame.rows[split] == 400
    np.testing.assert_allclose(frame.gap, frame.residual["test"] / frame.residual - 1)
    assert frame.gap["pool"] == pytest.approx(0.32, abs=0.08)  # .2647 / .2 − 1
    assert frame.gap_flag.to_dict() == {"pool": True, "seen": True, "test": False}


def test_no_gap_no_flag():
    tables = {"pool": split_table(0.25), "test": split_table(0.25, seed=2)}
    frame = measure_significance(tables, bootstrap=100, confidence=0.95, seed=0).splits
    assert frame.gap.abs().max() < 0.1
    assert not frame.gap_flag.any()


def test_intervals_of_significance_cover_the_truth_about_as_often_as_they_say():
    """120 repetitions of 80 % intervals on independent normal components: 96 expected, 5 standard deviations are 22."""
    truth = 4 / (4 + 1 + 0.25)
    hits = 0
    for seed in range(120):
        maps = torch.randn(150, 3, 2, 2, 1, generator=torch.Generator().manual_seed(seed))
        maps = maps * torch.tensor([2.0, 1.0, 0.5])[:, None, None, None]
        table = ComponentTable.from_tensors(maps[:, :2], maps[:, 2], torch.zeros(150))
        frame, _ = order_frame(table.orders, component_covariance(table, 150, seed), 0.8)
        hits += frame.significance_low[0] <= truth <= frame.significance_high[0]
    assert 74 < hits < 118
