"""Cross-seed significance, residual and gain against NumPy by their definitions; when an order is resolved."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from featcx_core.analysis.chains import Chains, chain_moments, cross_seed, gain, gained_share, residual
from featcx_core.analysis.components import ComponentTable
from featcx_core.analysis.depth import chain_frame
from featcx_core.analysis.significance import measure_significance
from featcx_core.store.record import Record

N, ELEMENTS, ORDERS = 60, 12, (4, 7, 13)


class Given(nn.Module):
    """A net whose outputs are given: images are row numbers."""

    def __init__(self, outputs: torch.Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outputs[x[:, 0, 0, 0].long()]


def made(chains: int, noise: float = 0.3, seed: int = 0, parts=(1.0, 0.6, 0.2), lag: float = 1.0):
    """f with three shared parts; chains add noise of their own; the nets before, trained on, stay `lag` of a part short."""
    rng = torch.Generator().manual_seed(seed)

    def random():
        return torch.randn(N, 3, 2, 2, generator=rng)

    shared = torch.stack([size * random() for size in parts]).cumsum(0)
    f = shared[-1] + 0.3 * random()
    phi = [[shared[i] + noise * random() for i in range(3)] for _ in range(chains)]
    step = shared.diff(dim=0)
    before = [[shared[i] + (1 - lag) * step[i] + noise * random() for i in range(2)] for _ in range(chains)]
    return f, phi, before


def found_of(f, phi, before, bootstrap: int = 200) -> Chains:
    x = torch.arange(N).float()[:, None, None, None]
    nets, others = ([[Given(out) for out in chain] for chain in given] for given in (phi, before))
    return chain_moments(Given(f), nets, others, ORDERS, x.split(25), N, bootstrap=bootstrap, seed=0)


def covariance(a, b):
    a, b = (np.asarray(v, dtype=np.float64).reshape(N, -1) for v in (a, b))
    return ((a - a.mean(0)) * (b - b.mean(0))).sum(1).mean()


@pytest.mark.parametrize("chains", [2, 3, 4])
def test_figures_by_definition(chains):
    f, phi, before = made(chains)
    found, whole = found_of(f, phi, before), covariance(f, f)
    parts = [[own[0], own[1] - own[0], own[2] - own[1]] for own in phi]
    pairs = [(a, b) for a in range(chains) for b in range(a + 1, chains)]
    shares = {ab: np.array([covariance(parts[ab[0]][i], parts[ab[1]][i]) for i in range(3)]) / whole for ab in pairs}
    np.testing.assert_allclose(cross_seed(found).value, np.mean(list(shares.values()), 0), rtol=1e-4)

    def left(nets):
        return np.array([covariance(f - net, f - net) for net in nets]) / whole

    mean = [sum(own[i] for own in phi) / chains for i in range(3)]
    np.testing.assert_allclose(residual(found).value, left(mean), rtol=1e-4)
    np.testing.assert_allclose(
        residual(found).chains, np.var([left(own) for own in phi], 0, ddof=1) / chains, rtol=1e-3
    )
    earlier = [torch.zeros_like(f), *(sum(own[i] for own in before) / chains for i in range(2))]
    np.testing.assert_allclose(gain(found).value, left(earlier) - left(mean), atol=1e-5)
    np.testing.assert_allclose(gained_share(found).value, 1 - left(mean) / left(earlier), atol=1e-5)
    each = [1 - left(phi[k]) / left([torch.zeros_like(f), *before[k]]) for k in range(chains)]
    np.testing.assert_allclose(gained_share(found).chains, np.var(each, 0, ddof=1) / chains, rtol=1e-3)
    each = [left([torch.zeros_like(f), *before[k]]) - left(phi[k]) for k in range(chains)]
    np.testing.assert_allclose(gain(found).chains, np.var(each, 0, ddof=1) / chains, rtol=1e-3)
    if chains == 2:
        raw = [[covariance(c, c) / whole for c in own] for own in parts]
        np.testing.assert_allclose(cross_seed(found).chains, (np.subtract(*raw) / 2) ** 2, rtol=1e-3)
    else:  # the jackknife, by leaving a chain out and starting anew
        without = [
            cross_seed(found_of(f, *([v[j] for j in range(chains) if j != i] for v in (phi, before)))).value
            for i in range(chains)
        ]
        spread = (chains - 1) / chains * ((without - np.mean(without, 0)) ** 2).sum(0)
        np.testing.assert_allclose(cross_seed(found).chains, spread, rtol=1e-3)


def test_noise_of_the_chains_is_significant_but_not_shared():
    f, phi, before = made(2, noise=1.0, parts=(1.0, 0.0, 0.0))
    found = found_of(f, phi, before)
    parts = phi[0][1] - phi[0][0]
    raw = covariance(parts, parts) / covariance(f, f)
    assert raw > 1
    assert abs(cross_seed(found).value[1:]).max() < 0.2 * raw


def test_bootstrap_draws_are_those_of_the_components(tmp_path):
    """The same images in each draw as significance has, so that both come from one bootstrap."""
    f, phi, before = made(2)
    found = found_of(f, phi, before)
    mean = torch.stack([(a + b) / 2 for a, b in zip(*phi, strict=True)], 1)
    parts = torch.cat([mean[:, :1], mean.diff(dim=1)], 1)
    table = ComponentTable.from_tensors(parts, f - mean[:, -1], torch.zeros(N), ORDERS)
    result = measure_significance({"pool": table}, bootstrap=200, confidence=0.9, seed=0, chains=found)
    np.testing.assert_allclose(residual(found).draws, result.draws["residual"], rtol=1e-3)
    np.testing.assert_allclose(result.orders.reproducible_share, result.orders.cross_seed / result.orders.significance)
    found.record().save(tmp_path)
    again = Chains.of(Record.load(tmp_path))
    pd.testing.assert_frame_equal(chain_frame(again, [], 0.9), chain_frame(found, [], 0.9))


def test_what_cannot_be_known_is_nothing():
    f, phi, before = made(1)
    alone = chain_frame(found_of(f, phi, before), [], 0.95)
    assert alone.cross_seed.isna().all()
    assert alone[["cross_seed_low", "gain_low", "residual_high"]].isna().all(axis=None)
    assert alone.resolved.isna().all()
    f, phi, before = made(2)
    unfinished = chain_frame(found_of(f, phi, []), [], 0.95)
    assert unfinished.cross_seed_low.notna().all()
    assert unfinished.gain.isna().all()
    assert unfinished.resolved.isna().all()
    with pytest.raises(ValueError, match="no gain"):
        gain(found_of(f, phi, []))


def test_resolved_needs_both_to_pass_zero_and_the_null_target():
    real, nothing = found_of(*made(2, parts=(1.0, 0.6, 0.01))), found_of(*made(2, parts=(1.0, 0.0, 0.0), seed=1))
    assert chain_frame(real, [nothing], 0.95).resolved.tolist() == ["yes", "yes", "no"]  # its noise drowns the third
    assert chain_frame(nothing, [nothing], 0.95).resolved.tolist() == ["yes", "no", "no"]
    assert chain_frame(real, [real], 0.95).resolved.tolist() == ["yes", "no", "no"]  # no more than its own floor
    clear = found_of(*made(2, noise=0.03))
    assert chain_frame(clear, [nothing], 0.95).resolved.tolist() == ["yes", "yes", "yes"]
    trained_on = found_of(*made(2, noise=0.03, lag=0.0))  # the net before, trained on, does as well
    assert chain_frame(trained_on, [nothing], 0.95).resolved.tolist() == ["yes", "no", "no"]


def test_a_net_that_does_worse_than_the_shallower_one_trained_on_is_negative():
    f, phi, before = made(4, noise=0.05, lag=0.0)
    worse = 0.5 * torch.randn(N, 3, 2, 2, generator=torch.Generator().manual_seed(5))
    phi = [[own[0], own[1] + worse, own[2]] for own in phi]
    found, floor = found_of(f, phi, before), found_of(*made(4, parts=(1.0, 0.0, 0.0), seed=1))
    assert chain_frame(found, [floor], 0.95).resolved.tolist()[1] == "negative"
