"""Which targets a sweep is made of."""

import pytest

from featcx_core.errors import InputError
from featcx_core.specs import RunSpec, SweepSpec
from flows.asked import Asked
from flows.grid import points


def test_layers_are_an_axis_of_one_net():
    found = points(SweepSpec(layers=("stages.0", "stages.2"), seeds=(0, 1)))
    assert list(found) == [f"resnet8-n200-s{seed}-layer=stages.{i}" for seed in (0, 1) for i in (0, 2)]
    assert [spec.target.layer for spec in found.values()] == ["stages.0", "stages.2"] * 2
    base = RunSpec().model_dump()
    other = [spec.model_dump() for spec in found.values()]
    assert all({name for name in base if spec[name] != base[name]} <= {"target", "seed"} for spec in other)


def test_all_layers_are_the_stages_of_the_net():
    found = points(Asked("digits", layers="all").sweep())
    assert [spec.target.layer for spec in found.values()] == ["stem", "stages.0", "stages.1", "stages.2"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (Asked("digits", layers="all", archs="resnet8,resnet14"), "with one of them at a time"),
        (Asked("digits", layers="stem", over=["target.layer=stages.0"]), "named twice"),
        (Asked("digits", layers="stem,stem"), "twice"),
        (Asked("digits", layers="stem,"), "--layers layer1,layer2, or --layers all"),
    ],
)
def test_what_makes_no_profile_is_refused(asked, told):
    with pytest.raises(InputError, match=told):
        points(asked.sweep())


def test_without_layers_the_points_are_as_ever():
    assert [*points(Asked("digits", sizes="100,200").sweep())] == ["resnet8-n100-s0", "resnet8-n200-s0"]
