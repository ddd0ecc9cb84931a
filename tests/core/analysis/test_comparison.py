"""Comparison of networks, and the paired gain of substitution."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import binom

from featcx_core.analysis.comparison import COMPARED, Measured, changes, compare_networks, holm
from featcx_core.analysis.substitution import paired_gain
from featcx_core.errors import InputError
from featcx_core.report.facets.comparison import read_comparison
from featcx_core.studies.variant_claims import judge_variants


def network(
    shift: float = 0.0,
    seed: int = 0,
    orders: tuple[int, ...] = (4, 7),
    metrics: tuple[str, ...] = tuple(COMPARED),
    spread: float = 1e-6,
    chains: int = 20,
) -> Measured:
    rng = torch.Generator().manual_seed(seed)
    draws = {m: torch.randn(500, len(orders), generator=rng, dtype=torch.float64) + shift for m in metrics}
    return Measured(
        orders,
        {m: np.full(len(orders), shift) for m in metrics},
        draws,
        {m: np.full(len(orders), spread) for m in metrics},
        chains,
    )


def closed_testing(p: list[float]) -> list[float]:
    """Holm's adjusted p by its definition: the largest Bonferroni p of all sets of hypotheses that hold i."""
    subsets = [s for k in range(1, len(p) + 1) for s in itertools.combinations(range(len(p)), k)]
    return [max(min(1.0, len(s) * min(p[j] for j in s)) for s in subsets if i in s) for i in range(len(p))]


@pytest.mark.parametrize("p", [[0.01, 0.04, 0.03, 0.005], [0.5, 0.5], [0.2], [0.001, 0.9, 0.04, 0.04, 0.02]])
def test_holm_is_the_closed_test_of_bonferroni(p):
    np.testing.assert_allclose(holm(np.array(p)), closed_testing(p))


def test_holm_leaves_out_what_has_no_p():
    adjusted = holm(np.array([0.01, np.nan, 0.04]))
    assert np.isnan(adjusted[1])
    np.testing.assert_allclose(adjusted[[0, 2]], closed_testing([0.01, 0.04]))


def test_shared_draws_cancel():
    """With the same draws a constant shift is seen without error; with other draws the errors add up."""
    paired = compare_networks(network(), {"same": network(0.5)}, 0.95)
    np.testing.assert_allclose(paired.difference, 0.5)
    assert (paired.difference_high - paired.difference_low).max() < 0.02  # what the chains move it by
    apart = compare_networks(network(), {"other": network(0.5, seed=1)}, 0.95)
    widths = apart.difference_high - apart.difference_low
    np.testing.assert_allclose(widths, 2 * 1.96 * np.sqrt(2), rtol=0.2)


def test_the_spread_over_chains_is_in_interval_and_p():
    """Nine times the images' variance over chains: intervals √10 as wide, and Student's with few degrees of freedom."""
    images = compare_networks(network(), {"v": network(2.5, seed=1)}, 0.95)
    both = compare_networks(network(spread=9.0), {"v": network(2.5, seed=1, spread=9.0)}, 0.95)
    widths = (both.difference_high - both.difference_low) / (images.difference_high - images.difference_low)
    np.testing.assert_allclose(widths, np.sqrt(10), rtol=0.05)
    assert (both.p > images.p).all()
    few = compare_networks(network(spread=9.0, chains=2), {"v": network(2.5, seed=1, spread=9.0, chains=2)}, 0.95)
    assert (few.p >= both.p).all()


def test_of_one_chain_and_of_what_no_chain_repeats_nothing_is_told_apart():
    alone = compare_networks(network(spread=np.nan, chains=1), {"v": network(9.0, 1, spread=np.nan, chains=1)}, 0.95)
    assert alone.p.isna().all()
    assert alone.difference_low.isna().all()
    one, other = network(), network(9.0, seed=1)
    del one.spread["reliability"]
    frame = compare_networks(one, {"v": other}, 0.95)
    assert frame.p.isna().tolist() == (frame.metric == "reliability").tolist()


def test_a_ratio_without_a_reading_gets_no_p_and_does_not_count():
    variant = network(0.1, seed=1)
    variant.draws["overfitting"][:, 1] = np.nan
    frame = compare_networks(network(), {"v": variant}, 0.95).set_index(["metric", "order"])
    assert np.isnan(frame.loc[("overfitting", 7), "p_holm"])
    assert (frame.adjusted_over == 2 * len(COMPARED) - 1).all()


def test_other_orders_are_refused_and_missing_metrics_left_out():
    with pytest.raises(InputError, match="use the same"):
        compare_networks(network(), {"v": network(orders=(4, 13))}, 0.95)
    frame = compare_networks(network(), {"v": network(0.1, 1, metrics=("cross_seed",))}, 0.95)
    assert set(frame.metric) == {"cross_seed"}


def test_each_finding_of_the_reading_has_a_line_of_its_own():
    others = {"distilled": network(9.0, seed=1), "pruned": network(seed=2)}
    frame = compare_networks(network(), others, 0.95)
    lines = read_comparison({"comparison": frame, "variant_claims": judge_variants(network(), others, 0.95)}).split(
        "\n"
    )
    assert lines[0].startswith("Distilled: ")
    assert "up at order 4, 7" in lines[0]
    assert lines[1] == "Not told apart from the original at any resolved order: pruned."
    assert [line.split(";")[1].split(" (")[0] for line in lines[3:]] == [
        " distilled: not measured",
        " pruned: not measured",
    ]


def test_paired_gain_by_counting_and_mcnemars_exact_test():
    before = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0, 0, 1], dtype=torch.bool)
    after = torch.tensor([1, 1, 1, 0, 1, 1, 1, 1, 0, 1], dtype=torch.bool)
    gain = paired_gain(before, after, 2000, 0.95, seed=0)
    assert (gain.gain, gain.won, gain.lost) == (pytest.approx(0.3), 4, 1)
    assert gain.p == pytest.approx(2 * binom.cdf(1, 5, 0.5))
    assert gain.low <= 0.3 <= gain.high
    assert paired_gain(before, before, 100, 0.95, seed=0)[:1] + paired_gain(before, before, 100, 0.95, seed=0)[3:] == (
        0,
        0,
        0,
        1.0,
    )


def test_an_order_is_read_where_both_networks_resolve_it_and_its_significance_where_one_does():
    def told(*resolved):
        return network()._replace(resolved=resolved)

    for first, second, significance, other in (
        ("yes", "yes", "yes", "yes"),
        ("yes", "no", "yes", "no"),
        ("no", None, "no", "no"),
        ("negative", "no", "no", "no"),
        ("yes", None, "yes", "yes"),
        (None, None, None, None),
    ):
        frame = compare_networks(told("yes", first), {"v": told("yes", second)}, 0.95)
        at = frame[frame.order == 7].set_index("metric").resolved
        rest = at.drop("cross_seed")
        assert at["cross_seed"] == significance if significance else at.isna().all()
        assert (rest == other).all() if other else rest.isna().all()


def test_no_sentence_speaks_of_an_order_that_is_not_resolved():
    original = network()._replace(resolved=("yes", "no"))
    frame = compare_networks(original, {"distilled": network(9.0, seed=1)._replace(resolved=(None, "no"))}, 0.95)
    assert (frame.p_holm < 0.05).all()
    text = " ".join(changes(frame, "distilled"))
    assert "up at order 4" in text
    assert "7" not in text.replace("order 4", "")
    nothing = compare_networks(original, {"v": network()._replace(resolved=(None, "no"))}, 0.95)
    assert changes(nothing, "v")[0].startswith("No metric differs at any resolved order")
