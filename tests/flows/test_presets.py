"""A protocol brings its schedules; what is set by hand stays."""

from pathlib import Path

import pytest

from flows.settings import load_spec

PARTS = ("disentangler", "reliability")


def budget(spec, part):
    chosen = getattr(spec, part)
    return chosen.schedule, chosen.draws, chosen.batches


@pytest.mark.parametrize(
    ("preset", "protocol", "source"),
    [("mnist", "published", "cifar10-paper"), ("cifar10-paper", "fast", "cifar10-fast")],
)
def test_the_other_protocol_brings_its_schedules_and_nothing_else(preset, protocol, source):
    own, changed = load_spec(preset), load_spec(preset, overrides=[f"disentangler.protocol={protocol}"])
    for part in PARTS:
        assert budget(changed, part) == budget(load_spec(source), part) != budget(own, part)
    assert changed.disentangler.protocol == protocol
    assert (changed.target, changed.disentangler.blocks) == (own.target, own.disentangler.blocks)
    assert changed.disentangler.width == own.disentangler.width


def test_a_preset_s_own_protocol_changes_nothing():
    assert load_spec("mnist", overrides=["disentangler.protocol=fast"]) == load_spec("mnist")


def test_what_is_set_by_hand_stays(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text('[disentangler]\nprotocol = "published"\nschedule = { draws = 77 }\n')
    spec = load_spec("mnist", file, ["reliability.batches=[8]"])
    assert spec.disentangler.schedule.draws == 77
    assert spec.disentangler.schedule.optimiser == load_spec("cifar10-paper").disentangler.schedule.optimiser
    assert spec.reliability.batches == (8,)


def test_one_value_is_a_list_of_one():
    spec = load_spec("digits", None, ["disentangler.draws=640", "disentangler.blocks=2"])
    assert (spec.disentangler.draws, spec.disentangler.blocks) == ((640,), (2,))
