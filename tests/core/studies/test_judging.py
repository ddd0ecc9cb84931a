"""Verdicts by their definition, and how often they err where the truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from featcx_core.studies.judging import (
    AGREES,
    DISAGREES,
    OPEN,
    UNMEASURED,
    above,
    apart,
    below,
    judge,
    together,
    within,
)

KINDS = {"above": above(0.0, 0.5), "below": below(0.0, 0.5), "within": within(-0.5, 0.5), "apart": apart(0.0, 0.5)}


@pytest.mark.parametrize(
    ("kind", "low", "high", "verdict"),
    [
        ("above", 0.1, 0.9, AGREES), ("above", 0.1, 0.2, AGREES), ("above", -0.2, 0.4, DISAGREES),
        ("above", -0.2, 0.6, OPEN), ("above", -3, -1, DISAGREES),
        ("below", -0.2, -0.1, AGREES), ("below", -0.4, 0.3, DISAGREES), ("below", -0.6, 0.3, OPEN),
        ("within", -0.4, 0.4, AGREES), ("within", 0.1, 0.4, AGREES), ("within", 0.4, 0.6, OPEN),
        ("within", 0.6, 0.9, DISAGREES), ("within", -9.0, 9.0, OPEN),
        ("apart", 0.1, 9.0, AGREES), ("apart", -0.2, -0.1, AGREES), ("apart", -0.4, 0.4, DISAGREES),
        ("apart", -0.6, 0.4, OPEN),
        ("above", math.nan, math.nan, UNMEASURED), ("within", -math.inf, math.inf, UNMEASURED),
    ],
)  # fmt: skip
def test_verdicts_by_definition(kind, low, high, verdict):
    assert judge(low, high, KINDS[kind]) == verdict


@given(st.sampled_from(sorted(KINDS)), st.floats(-3, 3), st.floats(0, 3), st.floats(0, 2))
def test_a_wider_interval_never_tells_more(kind, middle, half, more):
    narrow, wide = (judge(middle - h, middle + h, KINDS[kind]) for h in (half, half + more))
    assert wide in (narrow, OPEN) or (narrow, wide) == (AGREES, DISAGREES)


def test_of_several_statements_one_that_is_wrong_makes_the_claim_wrong():
    assert together([AGREES, AGREES]) == AGREES
    assert together([AGREES, DISAGREES, UNMEASURED]) == DISAGREES
    assert together([AGREES, UNMEASURED]) == together([OPEN, AGREES]) == together([OPEN, UNMEASURED]) == OPEN
    assert together([UNMEASURED, UNMEASURED]) == UNMEASURED


@pytest.mark.parametrize("error", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("n", [3, 5, 20])
def test_on_the_edge_each_verdict_errs_in_at_most_a_twentieth(error, n):
    """Where the truth lies on the edge of a region, being called inside it is an error."""
    rng = np.random.default_rng(0)

    def called(truth: float, kind: str, wrong: str) -> float:
        x = truth + error * rng.standard_normal((2000, n))
        half = student.ppf(0.975, n - 1) * x.std(1, ddof=1) / np.sqrt(n)
        return np.mean([judge(m - h, m + h, KINDS[kind]) == wrong for m, h in zip(x.mean(1), half, strict=True)])

    for truth, kind, wrong in (
        (0.0, "above", AGREES), (0.5, "above", DISAGREES), (0.0, "below", AGREES), (-0.5, "below", DISAGREES),
        (0.5, "within", AGREES), (0.5, "within", DISAGREES), (0.0, "apart", AGREES), (0.5, "apart", DISAGREES),
    ):  # fmt: skip
        assert called(truth, kind, wrong) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 2000), (kind, truth, wrong)
    if error == 0.05 and n > 3:
        found = [(0.5, "above", AGREES), (0.0, "above", DISAGREES), (0.0, "within", AGREES), (0.5, "apart", AGREES)]
        assert min(called(*case) for case in found) > 0.94
