"""Claim 5 on made networks: numbers by definition, and how often the verdict errs and finds, the truth being known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from featcx_core.analysis.comparison import Measured
from featcx_core.studies.judging import AGREES, DISAGREES, OPEN, UNMEASURED, together
from featcx_core.studies.variant_claims import CLAIMS, judge_variants

RHO = np.array([0.5, 0.3, 0.1, 0.02])
BASE = {
    "cross_seed": RHO,
    "decodability": np.array([0.6, 0.5, 0.4, 0.2]),
    "effectiveness": np.array([0.3, 0.2, 0.1, 0.01]),
}
IMAGES = {"cross_seed": 0.01 * RHO, "decodability": 0.01 * np.ones(4), "effectiveness": np.full(4, 0.005)}
TRIALS = 200


def network(rng, change=None, noise=1.0, chains=2, metrics=tuple(BASE), resolved=("yes",) * 4) -> Measured:
    """A network whose metrics are off by what images and two chains move them; `change`: metric → factor an order."""
    change, values, draws, spread = change or {}, {}, {}, {}
    for metric in metrics:
        truth, images = BASE[metric] * change.get(metric, 1.0), noise * IMAGES[metric]
        each = truth + images * np.sqrt(chains) * rng.standard_normal((chains, 4))
        values[metric] = each.mean(0) + images * rng.standard_normal(4)
        draws[metric] = torch.from_numpy(values[metric] + images * rng.standard_normal((200, 4)))
        spread[metric] = each.var(0, ddof=1) / chains if chains > 1 else np.full(4, np.nan)
    return Measured((4, 7, 13, 25), values, draws, spread, chains, resolved)


def judged(variant, rng, change=None, noise=1.0):
    frame = judge_variants(network(rng, noise=noise), {variant: network(rng, change, noise)}, 0.95)
    return together(frame.verdict.tolist())


def share(variant, verdict, **other):
    rng = np.random.default_rng(0)
    return np.mean([judged(variant, rng, **other) == verdict for _ in range(TRIALS)])


MORE = {"decodability": 1.5, "effectiveness": 1.5}
LOW_ONLY = {"cross_seed": np.array([0.7, 0.7, 1.0, 1.0])}
TRIPLED = {"cross_seed": np.array([0.7, 0.7, 1.0, 3.0])}


@pytest.mark.parametrize("noise", [0.3, 1.0, 10.0])
def test_under_no_effect_no_verdict_errs_in_more_than_a_twentieth(noise):
    limit = 0.05 + 2 * np.sqrt(0.05 * 0.95 / TRIALS)
    assert share("distilled", AGREES, noise=noise) <= limit
    assert share("pruned", AGREES, noise=noise) <= limit
    assert share("distilled", DISAGREES, change=MORE, noise=noise) <= limit
    assert share("pruned", DISAGREES, change=LOW_ONLY, noise=noise) <= limit


def test_an_effect_of_this_size_is_found():
    assert share("distilled", AGREES, change=MORE, noise=0.2) > 0.8
    assert share("pruned", AGREES, change=LOW_ONLY, noise=0.2) > 0.8
    assert share("pruned", DISAGREES, change=TRIPLED, noise=0.2) > 0.8
    assert share("pruned", DISAGREES, change={"decodability": 0.5} | LOW_ONLY, noise=0.2) > 0.8


def test_noise_alone_is_no_verdict_against_a_claim():
    assert share("distilled", OPEN, noise=30.0) > 0.9
    assert share("pruned", OPEN, noise=30.0) > 0.9


def test_what_was_not_measured_is_not_agreed_with():
    rng = np.random.default_rng(0)
    frame = judge_variants(network(rng), {"pruned": network(rng, change=LOW_ONLY, metrics=("cross_seed",))}, 0.95)
    own = frame.set_index("statement")
    assert own.loc["5e", "verdict"] == UNMEASURED
    assert "exemplary" in own.loc["5e", "missing"]
    assert together(frame.verdict.tolist()) != AGREES


def test_the_values_by_definition():
    rng = np.random.default_rng(0)
    old, new = network(rng), network(rng, change=TRIPLED | MORE, resolved=("yes", "yes", "yes", "no"))
    frame = judge_variants(old, {"distilled": new, "pruned": new}, 0.95).set_index("statement")
    change = {metric: (new.values[metric] - old.values[metric])[:3] for metric in BASE}
    rho = old.values["cross_seed"][:3]
    assert frame.loc["5a", "value"] == pytest.approx(rho @ change["decodability"] / rho.sum())
    assert frame.loc["5e", "value"] == pytest.approx(frame.loc["5a", "value"])
    assert frame.loc["5b", "value"] == pytest.approx(
        change["effectiveness"].sum() / old.values["effectiveness"][:3].sum()
    )
    relative = change["cross_seed"] / rho
    assert frame.loc["5c", "value"] == pytest.approx(relative[:2].mean())  # orders 4 and 7; 25 is not resolved in both
    assert frame.loc["5d", "value"] == pytest.approx(relative[2])


def test_one_chain_and_other_variants_bound_nothing():
    rng = np.random.default_rng(0)
    alone = judge_variants(network(rng, chains=1), {"pruned": network(rng, chains=1)}, 0.95)
    assert set(alone.verdict) == {UNMEASURED}
    assert judge_variants(network(rng), {"B": network(rng)}, 0.95).empty
    assert set(CLAIMS) == {"distilled", "pruned", "quantised"}
