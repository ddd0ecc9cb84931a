"""Variances over few chains: the moderation against its closed form, and whether intervals cover what they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import polygamma
from scipy.stats import chi2, norm

from featcx_core.analysis.spread import Errors, _inverse_trigamma, errors, moderated


@pytest.mark.parametrize("value", [1e-4, 0.01, 0.5, 3.0, 100.0, 1e6])
def test_inverse_of_the_trigamma_function(value):
    assert polygamma(1, _inverse_trigamma(value)) == pytest.approx(value, rel=1e-6)


def test_variances_of_one_size_are_pooled_and_others_left_as_they_are():
    rng = np.random.default_rng(0)
    alike = 3.0 * chi2.rvs(4, size=200, random_state=rng) / 4
    shared, freedom = moderated(alike, 4)
    assert freedom > 40
    assert np.log(shared).std() < 0.2 * np.log(alike).std()
    apart = np.exp(rng.normal(0, 3, 200))
    kept, few = moderated(apart, 50)
    assert few < 51
    large = apart > np.median(apart)
    np.testing.assert_allclose(np.log(kept[large]), np.log(apart[large]), atol=0.1)


def test_prior_and_its_degrees_of_freedom_are_found():
    rng = np.random.default_rng(1)
    true = 2.0 * 8 / chi2.rvs(8, size=20_000, random_state=rng)  # scaled inverse χ² with 8 degrees around 2
    shared, freedom = moderated(true * chi2.rvs(3, size=len(true), random_state=rng) / 3, 3)
    assert freedom == pytest.approx(11, rel=0.1)
    assert np.exp(np.log(shared / true).std()) < 1.7


@pytest.mark.parametrize("prior", [2, 6, 1000])
def test_one_degree_of_freedom_a_figure_gives_intervals_that_cover(prior):
    """Two chains and a dozen figures a run, the size of their spread unknown: the mean moves by both sources."""
    rng = np.random.default_rng(2)
    missed = []
    for _ in range(600):
        ratio = 4.0 * prior / chi2.rvs(prior, size=12, random_state=rng)  # variance over chains in units of the images'
        true = norm.rvs(size=12, random_state=rng) * np.sqrt(1 + ratio)
        chains = ratio * chi2.rvs(1, size=12, random_state=rng)
        missed.append(errors(np.ones(12), chains, 1).p(true) < 0.05)
    assert np.mean(missed) < 0.06


def test_without_a_spread_there_is_no_error_and_of_a_difference_both_count():
    one = errors(np.array([1.0, 1.0, 0.0]), np.array([2.0, np.nan, 1.0]), 1)
    assert np.isnan(one.error).tolist() == [False, True, True]
    a, b = Errors(np.array([3.0]), np.array([4.0])), Errors(np.array([4.0]), np.array([9.0]))
    apart = a.minus(b)
    assert apart.error == 5
    assert apart.freedom == pytest.approx(625 / (81 / 4 + 256 / 9))
    low, high = apart.interval(np.array([1.0]), 0.95)
    assert high - low > 2 * 1.96 * 5
