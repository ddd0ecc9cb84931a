"""The draws that nobody named: counted from the recipe's own trainings, the same on any machine."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from featcx_core.nets.disentangler import Disentangler
from featcx_core.nets.split import split_net
from featcx_core.specs import Numerics, validate
from flows import affordable
from flows.recipes import Submit, share

IN = (3, 16, 16)


def recipe(**settings: Any) -> Any:
    own = {"blocks": [1, 2], "draws": [8000, 4000], "width": 4, "nulls": 1, "schedule": {"draws": 999, "batch": 32}}
    spec = validate({"disentangler": own | settings})

    def stages(submit: Submit) -> Any:
        return share(submit, spec, 0, 0, Numerics(), "", spec.disentangler.continuation)

    return stages


def split() -> Any:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(512, 5))
    return split_net(net, "0", False, IN)


def test_operations_are_those_of_each_net_and_of_what_it_learns_from() -> None:
    """Two chains of two depths, the first net trained on beside the second, and all of it once more from the first net."""
    feature = 2.0 * 8 * 3 * 9 * 64
    one, two = (affordable.forward_flops(Disentangler(blocks, IN, (8, 8, 8), 4), IN) for blocks in (1, 2))
    by_hand = sum(8000 * (3 * one + f) + 4000 * (3 * two + f) + 4000 * (3 * one + f) for f in (feature, one))
    assert affordable.forward_flops(split().feature, IN) == feature
    assert affordable.training_flops(recipe(), split(), IN, 4) == pytest.approx(by_hand)
    alone = affordable.training_flops(recipe(continuation=False), split(), IN, 4)
    assert alone == pytest.approx(8000 * (3 * one + feature) + 4000 * (3 * two + feature))


def test_a_cheap_net_keeps_its_draws_and_a_dear_one_gets_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = (8000, 4000)
    assert affordable.affordable(recipe(), split(), IN, 4, draws, 1280) == draws
    monkeypatch.setattr(affordable, "BUDGET", affordable.training_flops(recipe(), split(), IN, 4) / 4)
    assert affordable.affordable(recipe(), split(), IN, 4, draws, 640) == (2000, 1000)
    assert affordable.affordable(recipe(), split(), IN, 4, draws, 1280) == (2000, 1280)
    assert affordable.affordable(recipe(), split(), IN, 4, (8000, 900), 1280) == (2000, 900)
