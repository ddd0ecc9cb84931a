"""What the recipe hands to each training: chains that share the draws, nets trained on beside deeper ones, null targets."""

from __future__ import annotations

from typing import Any

import pytest

from featcx_core.errors import InputError
from featcx_core.specs import Numerics, RunSpec, drawn, shared_schedule, starts_as_identity, validate
from flows.recipes import share, whole_run, wide
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


def test_rates_and_starts_go_by_depth_and_budget():
    own = spec(rates=[0.02, 0.005], draws=[400_000, 300_000, 500_000]).disentangler
    schedules = [shared_schedule(own, i, 2) for i in range(3)]
    assert [schedule.lr for schedule in schedules] == [0.02, 0.005, 0.005]
    assert [starts_as_identity(own, schedule) for schedule in schedules] == [False, True, False]  # 150,000 are not long
    assert not any(starts_as_identity(spec(protocol="published").disentangler, one) for one in schedules)
    submit, _ = recorded(draws=[400_000, 300_000, 500_000])
    assert [net["identity"] for net in submit.nets("")] == [False, True, False]
    assert [net["identity"] for net in submit.nets("continued")] == [True, False]


def test_a_net_is_trained_on_as_the_deeper_one_beside_it_is():
    submit, (chains, shared, _) = recorded()
    for scope, nets in (("continued", submit.nets("")), ("chain 2 continued", submit.nets("chain 2"))):
        for net, deeper, before in zip(submit.nets(scope), nets[1:], nets, strict=False):
            assert net == deeper | {"blocks": before["blocks"]}
        assert len(submit.nets(scope)) == 2
    assert submit.stages[shared][2]["continued"] == chains.continued


def test_null_targets_are_first_nets_and_go_through_the_same_with_seeds_of_their_own():
    submit, (chains, _, nulls) = recorded(nulls=2)
    assert [submit.stages[null][:2] for null in nulls] == [("chains", "null"), ("chains", "null 2")]
    for k, scope in enumerate(("null", "null 2")):
        assert {net["target"] for net in submit.nets(f"{scope} chain 2")} == {chains.nets[k][0]}
        own, other = submit.nets("chain 2 continued"), submit.nets(f"{scope} chain 2 continued")
        same = ("blocks", "width", "schedule", "identity")
        assert [{name: net[name] for name in same} for net in own] == [
            {name: net[name] for name in same} for net in other
        ]
    nets = [
        net
        for scope in ("", "chain 2", "null", "null chain 2", "null 2", "null 2 chain 2")
        for net in submit.nets(scope)
    ]
    assert len({net["seed"] for net in nets}) == len(nets) == 18


def test_the_wide_control_is_the_second_order_at_twice_the_width_by_the_same_protocol():
    submit, own = Recorded(), spec(wide_control=True)
    node = wide(submit, own, "data", "target", Numerics(), "shared")
    for scope in ("wide", "wide chain 2"):
        nets = submit.nets(scope)
        assert [(net["blocks"], net["width"]) for net in nets] == [(1, 32), (2, 32)]
        assert [net["schedule"] for net in nets] == [shared_schedule(own.disentangler, i, 2) for i in range(2)]
    name, _, arguments = submit.stages[node]
    assert (name, arguments["chains"], arguments["width"]) == ("wide_control", "shared", 32)
    assert submit.stages[arguments["wide"]][:2] == ("chains", "wide")
    with pytest.raises(InputError, match=r"the second of disentangler\.blocks, and there is one"):
        check_budget(spec(wide_control=True, blocks=[2]))


def test_there_are_no_more_null_targets_than_chains():
    with pytest.raises(InputError, match=r"3 null targets.* of 2 chains"):
        check_budget(spec(nulls=3))
    check_budget(spec(nulls=3, chains=3))
    check_budget(spec(nulls=2, chains=1))  # of one chain nothing is told apart, and no null target is needed


def test_what_is_switched_off_is_not_trained():
    submit, (chains, _, nulls) = recorded(continuation=False)
    assert nulls == []
    assert chains.continued == [[], []]
    assert len(submit.stages) == 7
    submit, (_, _, nulls) = recorded(chains=1)
    assert nulls == []
    submit, (_, _, nulls) = recorded(blocks=[2])
    assert nulls == []
    assert len(submit.stages) == 3


def test_a_budget_that_trains_nothing_is_refused():
    check_budget(spec(draws=[640], batches=[32]))
    with pytest.raises(
        InputError, match=r"Order 4 would be trained for 9 steps in each of 2 chains.* 640 draws or more"
    ):
        check_budget(spec(draws=[560, 6000], batches=[32]))
    check_budget(spec(draws=[560], batches=[16]))


def whole(**settings: Any) -> tuple[Recorded, Any]:
    submit = Recorded()
    return submit, whole_run(submit, validate({"dataset": {"source": "digits"}, "disentangler": settings}), Numerics())


def test_a_glance_goes_ahead_of_all_that_only_judges():
    """And what it needs is computed once: the nets, their components, substitution."""
    submit, recipe = whole(blocks=[1, 2, 4])
    last = max(recipe.glance.values())
    names = [(name, scope) for name, scope, _ in submit.stages[: last + 1]]
    assert names == [
        ("data", ""),
        ("target", ""),
        *[("disentangler", "")] * 3,
        *[("disentangler", "chain 2")] * 3,
        ("chains", "glance"),
        ("components", ""),
        ("significance", "glance"),
        ("substitution", ""),
    ]
    assert recipe.glance["substitution"] == recipe.networks["target"]["substitution"]
    told = [
        submit.stages[node][2] for node in (recipe.glance["significance"], recipe.networks["target"]["significance"])
    ]
    assert [len(arguments["nulls"]) for arguments in told] == [0, 2]
    assert told[0]["components"] == told[1]["components"]


def test_where_nothing_is_judged_the_glance_costs_nothing():
    submit, recipe = whole(blocks=[1, 2], continuation=False)
    assert recipe.glance["significance"] == recipe.networks["target"]["significance"]
    assert "glance" not in {scope for _, scope, _ in submit.stages}
