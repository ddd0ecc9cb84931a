"""The cycle of linear maps against the same optimisation on raw features; ratios against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import featcx_core.analysis.reliability as module
from featcx_core.analysis.bootstrap import component_covariance
from featcx_core.analysis.chains import Chains
from featcx_core.analysis.components import ComponentTable
from featcx_core.analysis.reliability import fit_cycle, measure_reliability, reliable_map, second_moment
from featcx_core.errors import InputError
from featcx_core.nets.trunk import Trunk
from featcx_core.seeds import seeded
from featcx_core.training.checkpoint import Checkpoint

CHANNELS, NETS = 5, 3


def features(n: int = 400, seed: int = 0) -> torch.Tensor:
    """Correlated float64 feature vectors (n, C)."""
    rng = torch.Generator().manual_seed(seed)
    mix = torch.randn(CHANNELS, CHANNELS, generator=rng, dtype=torch.float64)
    return torch.randn(n, CHANNELS, generator=rng, dtype=torch.float64) @ mix + 0.3


def maps_forward(seed: int = 1) -> list[torch.Tensor]:
    """g_k of three nets, the last one wider."""
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(c, CHANNELS, generator=rng, dtype=torch.float64) * 0.5 for c in (5, 5, 7)]


def cycle_on_raw_features(psi, maps, start, steps, rounds, lr, lr_end):
    """The authors' loop, written plainly with autograd on all features, full batches in place of minibatches."""
    back = [h.clone().requires_grad_() for h in start]
    optimiser = torch.optim.Adam(back, lr=lr)
    epochs = round(steps / (32 * rounds))
    for epoch in range(epochs):
        optimiser.param_groups[0]["lr"] = lr * (lr_end / lr) ** (epoch / max(1, epochs - 1))
        for r in range(rounds):
            for _ in range(32):
                with torch.no_grad():
                    now = psi
                    for _ in range(r):
                        now = sum(now @ g.T @ h.T for g, h in zip(maps, back, strict=True)) / len(maps)
                loss = sum(nn.functional.mse_loss(now @ g.T @ h.T, now) for g, h in zip(maps, back, strict=True))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    return [h.detach() for h in back]


def test_the_cycle_on_second_moments_gives_the_maps_of_the_cycle_on_raw_features():
    psi, maps = features(), maps_forward()
    start = [
        0.2 * torch.randn(CHANNELS, len(g), dtype=torch.float64, generator=torch.Generator().manual_seed(9))
        for g in maps
    ]
    settings = {"steps": 32 * 3 * 10, "rounds": 3, "lr": 1e-2, "lr_end": 1e-3}
    raw = cycle_on_raw_features(psi, maps, start, **settings)
    fast = fit_cycle(psi.T @ psi / len(psi), maps, start=start, **settings)
    for a, b, c in zip(raw, fast, start, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-7, atol=1e-9)
        assert (a - c).abs().max() > 0.05  # it has moved


@pytest.mark.parametrize("channels", [1, 5, 16, 40])
def test_the_compiled_cycle_takes_the_steps_of_the_plain_one(channels, monkeypatch):
    """In float32, with every round up to the published ten, and nets of other widths than ψ; they differ by rounding."""
    rng = torch.Generator().manual_seed(channels)
    psi = torch.randn(300, channels, generator=rng)
    maps = [torch.randn(width, channels, generator=rng) * channels**-0.5 for width in (channels, 3, channels + 2)]
    settings = {"steps": 32 * 10 * 2, "rounds": 10, "lr": 1e-2, "lr_end": 1e-3}
    compiled = fit_cycle(psi.T @ psi / 300, maps, **settings)
    monkeypatch.setattr(module, "kernel", lambda source: None)
    for a, b in zip(compiled, fit_cycle(psi.T @ psi / 300, maps, **settings), strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_a_resumed_cycle_gives_the_bytes_of_an_unbroken_one(tmp_path):
    psi, maps = features().float(), [g.float() for g in maps_forward()]
    moment, settings = psi.T @ psi / len(psi), {"steps": 32 * 3 * 10, "rounds": 3}
    whole = fit_cycle(moment, maps, **settings)
    checkpoint = Checkpoint(tmp_path, "key", seconds=0)
    for last in (1, 4):  # stopped twice; each time in the epoch after the one that was saved

        def stop(done, total, last=last):
            if done >= last * 96:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fit_cycle(moment, maps, checkpoint=checkpoint, on_step=stop, **settings)
    told = []
    resumed = fit_cycle(moment, maps, checkpoint=checkpoint, on_step=lambda *step: told.append(step), **settings)
    assert told == [(96 * epoch, 960) for epoch in range(4, 11)]
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


def test_the_cycle_finds_the_inverse_when_it_has_time():
    psi = features()
    maps = [torch.eye(CHANNELS, dtype=torch.float64) * s for s in (0.5, 1.0, 2.0)]
    back = fit_cycle(psi.T @ psi / len(psi), maps, steps=20_000, rounds=2, lr=1e-2, lr_end=1e-4)
    for g, h in zip(maps, back, strict=True):
        torch.testing.assert_close(h @ g, torch.eye(CHANNELS, dtype=torch.float64), rtol=0, atol=1e-3)


def test_reliable_map_is_rounds_of_the_cycle_and_then_the_targets_map():
    psi, maps = features(7), maps_forward()
    back = [torch.randn(CHANNELS, len(g), dtype=torch.float64) for g in maps]
    now = psi
    for _ in range(4):
        now = sum(now @ g.T @ h.T for g, h in zip(maps, back, strict=True)) / NETS
    torch.testing.assert_close(psi @ reliable_map(maps, back, 4).T, now @ maps[0].T)


def test_second_moment_over_samples_and_positions():
    images = torch.randn(10, 3, 4, 4)
    flat = images.permute(0, 2, 3, 1).reshape(-1, 3).double()
    torch.testing.assert_close(second_moment(lambda x: x, images.split(3)), flat.T @ flat / len(flat))


@pytest.fixture(scope="module")
def case():
    """A table of two orders, two untrained trunks, their maps, and the images."""
    rng = torch.Generator().manual_seed(3)
    images = torch.randn(30, 1, 8, 8, generator=rng)
    maps = torch.randn(30, 3, 4, 2, 2, generator=rng)
    table = ComponentTable.from_tensors(maps[:, :2], maps[:, 2], torch.zeros(30, dtype=torch.long), [4, 7])
    with seeded(0):
        trunks = [Trunk(m, (1, 8, 8), [(4, 2, 2)] * 3, 4).eval() for m in (1, 2)]
    back = [[torch.randn(4, 4, generator=rng) * 0.4 for _ in range(3)] for _ in trunks]
    return table, maps.double().numpy(), trunks, back, images


def test_ratios_by_definition(case):
    table, maps, trunks, back, images = case
    result = measure_reliability(
        table, [trunks], [back], lambda samples: images[samples], rounds=2, bootstrap=100, confidence=0.9, seed=0
    ).orders.set_index("order")

    def variance(values):
        return np.asarray(values, dtype=np.float64).reshape(30, -1).var(0).sum()

    phi = np.cumsum(maps[:, :2], 1)
    f, through, reliable = maps.sum(1), [], []
    for trunk, h in zip(trunks, back, strict=True):
        with torch.no_grad():
            psi = trunk.psi(images).double()
        g = [m.double() for m in trunk.matrices()]
        cycle = sum(b.double() @ m for b, m in zip(h, g, strict=True)) / 3
        through.append(torch.einsum("oc,nchw->nohw", g[0], psi).numpy())
        reliable.append(torch.einsum("oc,nchw->nohw", g[0] @ cycle @ cycle, psi).numpy())
    for i, order in enumerate((4, 7)):
        row = result.loc[order]
        c_reliable = reliable[i] - (reliable[i - 1] if i else 0)
        expected = {
            "fit": variance(through[i]) / variance(phi[:, i]),
            "shrinkage": variance(reliable[i]) / variance(through[i]),
            "reliability": variance(reliable[i]) / variance(phi[:, i]),
            "component_ratio": variance(c_reliable) / variance(maps[:, i]),
            "reliable_share": variance(c_reliable) / variance(f),
            "unreliable_share": variance(maps[:, i] - c_reliable) / variance(f),
        }
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-4), name
            assert row[f"{name}_low"] <= row[f"{name}_high"]
        assert row["above_one"] == (expected["component_ratio"] > 1)


def test_of_two_chains_the_mean_is_read_and_their_spread_told(case):
    """Two chains whose maps back differ: Φ^reli is M ψ with the mean of both M, since here ψ is the same."""
    table, maps, trunks, back, images = case
    other = [[0.5 * h for h in order] for order in back]
    settings = {"rounds": 1, "bootstrap": 100, "confidence": 0.9, "seed": 0}
    moments = component_covariance(
        ComponentTable.from_tensors(
            torch.from_numpy(np.concatenate([maps[:, :2].cumsum(1)] * 2, 1)),  # Φ of both chains
            torch.from_numpy(maps.sum(1)),
            torch.zeros(30),
        ),
        100,
    )
    chains = Chains((4, 7), 2, False, moments)
    alone = [
        measure_reliability(table, [trunks], [h], lambda samples: images[samples], **settings).orders
        for h in (back, other)
    ]
    both = measure_reliability(
        table, [trunks] * 2, [back, other], lambda samples: images[samples], **settings, chains=chains
    ).orders
    # one round is linear in h: half the maps back give half of Φ^reli, so the mean is three quarters of the first
    np.testing.assert_allclose(both.reliability, 0.75**2 * alone[0].reliability, rtol=1e-4)
    np.testing.assert_allclose(
        both.reliability_variance, (alone[0].reliability - alone[1].reliability) ** 2 / 4, rtol=1e-3
    )
    assert alone[0].reliability_variance.isna().all()
    # the other chain's c^reli is half of the first's and c the same: Cov[r, r/2], and Cov[c − r, c − r/2] by expansion
    own = alone[0]
    np.testing.assert_allclose(both.reliable_cross_seed, own.reliable_share / 2, rtol=1e-3)
    c = np.array([maps[:, i].reshape(30, -1).var(0).sum() for i in range(2)]) / maps.sum(1).reshape(30, -1).var(0).sum()
    between = (c + own.reliable_share - own.unreliable_share) / 2
    np.testing.assert_allclose(both.unreliable_cross_seed, c - 1.5 * between + own.reliable_share / 2, rtol=1e-3)
    assert own[["reliable_cross_seed", "unreliable_cross_seed"]].isna().all(axis=None)


def test_inverse_maps_shrink_nothing(case):
    table, _, trunks, _, images = case
    inverse = [[torch.linalg.inv(g) for g in trunk.matrices()] for trunk in trunks]
    result = measure_reliability(
        table, [trunks], [inverse], lambda samples: images[samples], rounds=3, bootstrap=100, confidence=0.9, seed=0
    ).orders
    np.testing.assert_allclose(result.shrinkage, 1, rtol=1e-3)
    np.testing.assert_allclose(result.reliability, result.fit, rtol=1e-3)


def test_a_trunk_starts_as_the_shallower_one_and_refuses_features_of_other_sizes():
    with seeded(1):
        shallow, deep = (Trunk(m, (1, 8, 8), [(4, 2, 2), (4, 2, 2), (6, 2, 2)], 4).eval() for m in (1, 2))
    images = torch.randn(5, 1, 8, 8)
    deep.warm_start(shallow, identity=True)
    for a, b in zip(shallow(images), deep(images), strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(InputError, match="differ in height or width"):
        Trunk(1, (1, 8, 8), [(4, 2, 2), (4, 4, 4)], 4)
