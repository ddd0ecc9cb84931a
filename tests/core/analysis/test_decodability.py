"""Decodability against scikit-learn's ridge and against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from featcx_core.analysis.components import ComponentTable
from featcx_core.analysis.decodability import FOLDS, measure_decodability, ridge_maps

RIDGES = (1e-4, 1e-2, 1.0, 100.0)


def fold_moments(e: np.ndarray, c: np.ndarray, folds: np.ndarray):
    """Σ e eᵀ, Σ e cᵀ, Σ ‖c‖² of each fold."""
    parts = [(e[folds == k], c[folds == k]) for k in range(FOLDS)]
    stacked = ([a.T @ a for a, _ in parts], [a.T @ b for a, b in parts], [(b**2).sum() for _, b in parts])
    return tuple(torch.tensor(np.array(values)) for values in stacked)


@pytest.mark.parametrize("noise", [0.1, 3.0])
def test_ridge_maps_are_scikit_learns_ridge_chosen_by_cross_validation(noise):
    rng = np.random.default_rng(0)
    e = rng.normal(size=(60, 12)) @ rng.normal(size=(12, 12))
    c = e @ rng.normal(size=(12, 3)) * 0.2 + noise * rng.normal(size=(60, 3))
    folds = np.arange(60) % FOLDS
    gram, *quantity = fold_moments(e, c, folds)
    ((w, chosen),) = ridge_maps(gram, [quantity], RIDGES)
    scale = np.diag(e.T @ e).mean()

    def model(ridge, rows):
        return Ridge(alpha=ridge * scale, fit_intercept=False).fit(e[rows], c[rows])

    errors = {
        ridge: sum(((c[folds == k] - model(ridge, folds != k).predict(e[folds == k])) ** 2).sum() for k in range(FOLDS))
        for ridge in RIDGES
    }
    assert chosen == min(errors, key=errors.get)
    np.testing.assert_allclose(w.numpy(), model(chosen, np.full(60, True)).coef_, rtol=1e-6, atol=1e-9)


def tables(seed: int = 0):
    """Pool and test components, and images from which the first component is a linear map of channels."""
    rng = torch.Generator().manual_seed(seed)
    images = torch.randn(90, 6, 3, 3, generator=rng) + torch.randn(6, 3, 3, generator=rng)
    mix = torch.randn(4, 6, generator=rng)
    linear = torch.einsum("ce,nehw->nchw", mix, images) + torch.randn(4, 3, 3, generator=rng)
    noise = 2 * torch.randn(90, 2, 4, 3, 3, generator=rng)
    maps = torch.stack([linear, noise[:, 0] + 0.5 * linear], 1)

    def table(rows):
        return ComponentTable.from_tensors(maps[rows], noise[rows, 1], torch.zeros(len(rows), dtype=torch.long), [4, 7])

    pool, test = torch.arange(60), torch.arange(60, 90)
    return table(pool), table(test), {"pool": images[pool], "test": images[test]}, maps, noise


def blind(seed: int):
    """A net that mixes channels at random and sees two of them, without their signs."""
    mix = torch.randn(6, 6, generator=torch.Generator().manual_seed(seed))
    return lambda x: torch.einsum("oc,nchw->nohw", mix, x).abs()[:, :2]


def measured(untrained=(8,)):
    pool, test, images, *_ = tables()
    nets = [lambda x: x, lambda x: x[:, :3]]
    return measure_decodability(
        pool, test, nets, [blind(seed) for seed in untrained], lambda s, i: images[s][i],
        ridges=RIDGES, bootstrap=200, confidence=0.9, seed=0,
    )  # fmt: skip


def test_by_definition_with_scikit_learn():
    frame = measured().orders.set_index(["quantity", "order"])
    *_, images, maps, noise = tables()
    f = torch.cat([maps.sum(1) + noise[:, 1]]).double().numpy()
    wanted = {("component", 4): maps[:, 0], ("component", 7): maps[:, 1], ("phi", 7): maps.sum(1), ("feature", 0): f}
    pool, test = images["pool"].double().numpy(), images["test"].double().numpy()
    for key, values in wanted.items():
        c, scores = np.asarray(values, dtype=np.float64), []
        for width in (6, 3):
            e, at = (x[:, :width] - pool[:, :width].mean(0) for x in (pool, test))
            flat, goal = e.transpose(0, 2, 3, 1).reshape(-1, width), (c[:60] - c[:60].mean(0)).transpose(0, 2, 3, 1)
            folds = (np.arange(60) % FOLDS).repeat(9)
            gram, *quantity = fold_moments(flat, goal.reshape(-1, 4), folds)
            ((_, ridge),) = ridge_maps(gram, [quantity], RIDGES)
            model = Ridge(alpha=ridge * np.diag(flat.T @ flat).mean(), fit_intercept=False).fit(
                flat, goal.reshape(-1, 4)
            )
            predicted = (
                model.predict(at.transpose(0, 2, 3, 1).reshape(-1, width)).reshape(30, 3, 3, 4).transpose(0, 3, 1, 2)
            )
            scores.append(1 - (c[60:] - predicted).var(0).sum() / c[60:].var(0).sum())
        assert frame.loc[key, "decodability"] == pytest.approx(np.mean(scores), abs=1e-4)


def test_what_is_linear_is_decoded_and_noise_is_not():
    frame = measured().orders.set_index(["quantity", "order"])
    assert frame.loc[("component", 4), "decodability"] > 0.7  # one net sees it all, the other half of the channels
    assert frame.loc[("component", 7), "decodability"] < 0.7
    assert frame.loc[("phi", 4), "decodability"] == pytest.approx(frame.loc[("component", 4), "decodability"])
    assert (frame.decodability_low <= frame.decodability).all()
    assert (frame.decodability <= frame.decodability_high).all()
    assert (frame.floor < frame.decodability).all()


def test_draws_are_those_of_the_components():
    result = measured()
    assert result.draws["decodability"].shape == (200, 2)
    component = result.orders[result.orders.quantity == "component"]
    np.testing.assert_allclose(np.quantile(result.draws["decodability"], 0.05, axis=0), component.decodability_low)


def test_the_floor_is_the_mean_of_untrained_nets_with_their_spread():
    each = [measured((seed,)).orders for seed in (8, 9, 10)]
    several, alone = measured((8, 9, 10)).orders, measured(()).orders
    np.testing.assert_allclose(several.floor, np.mean([one.floor for one in each], 0), atol=1e-6)
    apart = np.std([one.floor for one in each], axis=0, ddof=1)
    assert (several.floor_high - several.floor_low > apart).mean() > 0.5  # nets differ by more than images move each
    np.testing.assert_allclose(several.decodability, each[0].decodability)
    assert alone.floor.isna().all()
    np.testing.assert_allclose(alone.decodability_low, each[0].decodability_low)
