"""A run's seeds: all apart, and shared where what they draw must pair."""

from featcx_core.seeds import Seeds
from featcx_core.specs import validate


def drawn(**settings):
    """Every seed of a run by name."""
    seeds = Seeds(validate(settings))
    own = {name: seed for name, seed in vars(seeds).items() if not name.startswith("_")}
    of_chains = {
        f"{net} {blocks} {chain}": getattr(seeds, net)(blocks, chain)
        for net in ("disentangler", "trunk")
        for blocks in (1, 2)
        for chain in (0, 1)
    }
    return own | of_chains | {"task": seeds.task(0), "weights": seeds.weights(3)}


def test_no_two_stages_share_a_seed():
    seeds = drawn(seed=5)
    assert len(set(seeds.values())) == len(seeds) == 19


def test_another_root_seed_leaves_what_belongs_to_the_data_set():
    one, other = drawn(seed=1), drawn(seed=2)
    assert {name for name in one if one[name] == other[name]} == {"rows", "bootstrap", "floor", "teacher"}
    moved = drawn(seed=1, dataset={"split_seed": 9})
    assert {name for name in one if one[name] != moved[name]} == {"rows", "bootstrap"}
