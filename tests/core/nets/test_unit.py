"""The feature's unit must not matter: f and a·f + b give the same shares, through training, components and analyses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from featcx_core.analysis.components import ComponentTable, extract
from featcx_core.analysis.decodability import measure_decodability
from featcx_core.analysis.reliability import fit_cycle, measure_reliability, second_moment
from featcx_core.analysis.significance import measure_significance
from featcx_core.data.images import Augmented
from featcx_core.errors import InputError
from featcx_core.game.values import coalition_losses, shapley_values
from featcx_core.nets.disentangler import Disentangler
from featcx_core.nets.trunk import Trunk
from featcx_core.nets.unit import Unit
from featcx_core.seeds import seeded
from featcx_core.specs import ScheduleSpec
from featcx_core.training.teaching import learn_unit, train_disentangler, train_trunk

CPU = torch.device("cpu")
SCHEDULE = ScheduleSpec(draws=640, batch=32, lr=2e-2, lr_end=2e-5, shape="trapezoid", optimiser="muon")


class Scaled(nn.Module):
    """a·f + b."""

    def __init__(self, feature: nn.Module, a: float = 1.0, b: float = 0.0) -> None:
        super().__init__()
        self.feature, self.a, self.b = feature, a, b

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.feature(x) * self.a + self.b


@pytest.fixture(scope="module")
def nets():
    """A feature (6, 2, 2) of digits, another, and a head."""
    with seeded(0):
        feature, other = (nn.Sequential(nn.Conv2d(1, 6, 4, 4), nn.ReLU(), nn.Conv2d(6, 6, 1)).eval() for _ in range(2))
        head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10)).eval()
    return feature, other, head


def analysed(digits, nets, folder, a: float, b: float) -> dict[str, np.ndarray]:
    """Every share of the line for a·f + b, from training to the tables."""
    feature, other, head = nets
    scaled, restored = Scaled(feature, a, b), nn.Sequential(Scaled(nn.Identity(), 1 / a, -b / a), *head).eval()
    data, phi, trunks = Augmented(digits, digits.pool), {}, []
    for blocks in (1, 2):
        with seeded(blocks):
            net = Disentangler(blocks, digits.shape, (6, 2, 2), width=4)
            trunk = Trunk(blocks, digits.shape, [(6, 2, 2)] * 2, width=4)
        if phi:
            net.warm_start(phi[4], identity=True)
            trunk.warm_start(trunks[0], identity=True)
        train_disentangler(net, scaled, data, SCHEDULE)
        train_trunk(trunk, [scaled, other], data, SCHEDULE)
        phi[net.order], trunks = net, [*trunks, trunk]
    tables = {}
    for split, chosen in (("pool", digits.pool[:200]), ("test", torch.arange(80))):
        images, labels, _ = digits.split(split)
        images, labels = images[: len(chosen)], labels[: len(chosen)]
        extract(
            scaled, phi, images, labels, chosen, folder / f"{a}-{split}", normalise=digits.normalise, device=CPU
        )  # raises where rounding is not that of the largest term
        tables[split] = ComponentTable.open(folder / f"{a}-{split}")

    def read(split: str, samples: torch.Tensor) -> torch.Tensor:
        return digits.normalise((digits.train_images if split == "pool" else digits.test_images)[samples])

    intervals = {"bootstrap": 100, "confidence": 0.9, "seed": 0}
    found = measure_significance(tables, **intervals)
    back = []
    for trunk in trunks:
        moment = second_moment(trunk.psi, [digits.normalise(digits.train_images[digits.pool[:200]])])
        back.append(fit_cycle(moment.float(), trunk.matrices(), steps=64, rounds=2))
    reliable = measure_reliability(
        tables["pool"], [trunks], [back], lambda samples: read("pool", samples), rounds=2, **intervals
    ).orders
    decodable = measure_decodability(
        tables["pool"], tables["test"], [other], [other], read, ridges=(1e-3, 1.0), **intervals
    ).orders
    values = shapley_values(coalition_losses(tables["test"], restored)).mean(0)
    return {
        "significance": found.orders[["significance", "significance_low", "residual"]].to_numpy(),
        "variance": np.array([found.feature_variance]) / a**2,
        "reliability": reliable[["fit", "shrinkage", "reliability", "unreliable_share"]].to_numpy(),
        "decodability": decodable.decodability.to_numpy(),
        "shapley": values.numpy(),
    }


@pytest.fixture(scope="module")
def plain(digits, nets, tmp_path_factory):
    return analysed(digits, nets, tmp_path_factory.mktemp("plain"), 1.0, 0.0)


@pytest.mark.parametrize("exponent", [-20, 20])
def test_a_power_of_two_changes_no_digit(digits, nets, plain, tmp_path, exponent):
    """Nothing but exponents of floats changes, so nothing is left to tolerance but the loss of the head."""
    found = analysed(digits, nets, tmp_path, 2.0**exponent, 0.0)
    for name, value in found.items():
        np.testing.assert_allclose(value, plain[name], rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize(("a", "b"), [(1e-6, 0.0), (1e6, 1e6), (37.0, 100.0), (1e-3, -2e-3)])
def test_shares_are_those_of_the_feature_in_any_unit(digits, nets, plain, tmp_path, a, b):
    """Rounding alone differs, which 40 steps of training carry on.

    Of the game only the scale drops out: its empty coalition Δf lacks f's mean, so an added constant is part of what the
    first component brings (METHOD §6, as published).
    """
    found = analysed(digits, nets, tmp_path, a, b)
    if b:
        del found["shapley"]
    for name, value in found.items():
        np.testing.assert_allclose(value, plain[name], rtol=0.02, atol=0.005, err_msg=name)


def test_mean_and_scale_by_definition_in_one_pass():
    f = 1e4 + 3e-1 * torch.randn(70, 5, 2, 2, generator=torch.Generator().manual_seed(0))
    unit = Unit((5, 2, 2))
    unit.measure(f.split(32))
    torch.testing.assert_close(unit.mean, f.double().mean(0).float())
    assert float(unit.scale) == pytest.approx(float(f.double().var(0, correction=0).mean().sqrt()), rel=1e-6)
    torch.testing.assert_close(unit((f - unit.mean) / unit.scale), f)


@pytest.mark.parametrize("value", [0.0, 3.0, 1e6])
def test_a_constant_feature_is_refused(digits, value):
    feature = Scaled(nn.Conv2d(1, 6, 4, 4), 0.0, value)
    net = Disentangler(1, digits.shape, (6, 2, 2), width=4)
    with pytest.raises(InputError, match="constant"):
        train_disentangler(net, feature, Augmented(digits, digits.pool), SCHEDULE)


def test_noise_of_rounding_is_a_constant_and_less_than_float_is_not_finite():
    noise = 1e3 * (1 + 2.0**-23 * torch.randint(0, 2, (60, 5, 2, 2)))
    with pytest.raises(InputError, match="constant"):
        Unit((5, 2, 2)).measure([noise])
    with pytest.raises(InputError, match="not finite"):
        Unit((5, 2, 2)).measure([noise.log() * torch.inf])


def test_deeper_nets_share_the_units_of_the_shallower(digits):
    feature = Scaled(nn.Conv2d(1, 6, 4, 4), 100.0).eval()
    shallow, deep = (Disentangler(m, digits.shape, (6, 2, 2), width=4) for m in (1, 2))
    learn_unit(shallow.unit, feature, Augmented(digits, digits.pool[:500]))
    deep.warm_start(shallow, identity=True)
    learn_unit(deep.unit, Scaled(feature, 2.0), Augmented(digits, digits.pool))  # measured already: left as it is
    assert torch.equal(deep.unit.mean, shallow.unit.mean)
    assert torch.equal(deep.unit.scale, shallow.unit.scale)
    assert deep.unit.measured
