"""What the recipe hands to each training: chains that share the draws, nets trained on beside deeper ones, a null target."""

from __future__ import annotations

from typing import Any

import pytest

from featcx_core.errors import InputError
from featcx_core.specs import Numerics, RunSpec, drawn, shared_schedule, validate
from flows.recipes import share
from flows.running.preflight import check_budget


class Recorded:
    """Stages as they are submitted; a node is its place in the list."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, str, dict[str, Any]]] = []

    def __call__(self, stage: Any, scope: str = "", **arguments: Any) -> int:
        self.stages.append((stage.name, scope, arguments))
        return len(self.stages) - 1

    def nets(self, scope: str) -> list[dict[str, Any]]:
        return [arguments for name, own, arguments in self.stages if name == "disentangler" and own == scope]


def spec(**settings: Any) -> RunSpec:
    schedule = {"draws": 999, "batch": 32}
    own = {"blocks": [1, 2, 4], "draws": [6000, 5000], "batches": [32, 64], "schedule": schedule}
    return validate({"disentangler": own | settings})


def recorded(**settings: Any) -> tuple[Recorded, Any]:
    submit = Recorded()
    own = spec(**settings)
    return submit, share(submit, own, "data", "target", Numerics(), "", own.disentangler.continuation)


def test_chains_share_the_draws_and_differ_in_their_seeds():
    submit, (chains, shared, _) = recorded()
    first, second = submit.nets(""), submit.nets("chain 2")
    assert [net["blocks"] for net in first] == [1, 2, 4] == [net["blocks"] for net in second]
    assert [net["schedule"].draws for net in first] == [3000, 2500, 2500]
    assert [net["schedule"].batch for net in first] == [32, 64, 64]
    assert len({net["seed"] for net in (*first, *second)}) == 6
    assert [net["previous"] for net in second] == [None, *chains.nets[1][:2]]
    assert submit.stages[shared][2]["disentanglers"] == chains.nets
    assert drawn(spec().disentangler) == (94 * 32, 94 * 32 + 40 * 64, 94 * 32 + 80 * 64)
    assert shared_schedule(spec(chains=1).disentangler, 0, 1).draws == 6000


def test_a_net_is_trained_on_as_the_deeper_one_beside_it_is():
    submit, (chains, shared, _) = recorded()
    for scope, nets in (("continued", submit.nets("")), ("chain 2 continued", submit.nets("chain 2"))):
        for net, deeper, before in zip(submit.nets(scope), nets[1:], nets, strict=False):
            assert net == deeper | {"blocks": before["blocks"]}
        assert len(submit.nets(scope)) == 2
    assert submit.stages[shared][2]["continued"] == chains.continued


def test_the_null_target_is_the_first_net_and_goes_through_the_same():
    submit, (chains, _, null) = recorded()
    assert submit.stages[null][:2] == ("chains", "null")
    assert {net["target"] for net in submit.nets("null chain 2")} == {chains.nets[0][0]}
    own, other = submit.nets("chain 2 continued"), submit.nets("null chain 2 continued")
    same = ("blocks", "width", "schedule", "seed", "identity")
    assert [{name: net[name] for name in same} for net in own] == [{name: net[name] for name in same} for net in other]


def test_what_is_switched_off_is_not_trained():
    submit, (chains, _, null) = recorded(continuation=False)
    assert null is None
    assert chains.continued == [[], []]
    assert len(submit.stages) == 7
    submit, (_, _, null) = recorded(chains=1)
    assert null is None
    submit, (_, _, null) = recorded(blocks=[2])
    assert null is None
    assert len(submit.stages) == 3


def test_a_budget_that_trains_nothing_is_refused():
    check_budget(spec(draws=[640], batches=[32]))
    with pytest.raises(
        InputError, match=r"Order 4 would be trained for 9 steps in each of 2 chains.* 640 draws or more"
    ):
        check_budget(spec(draws=[560, 6000], batches=[32]))
    check_budget(spec(draws=[560], batches=[16]))
