"""Pruning and weight sharing: exact counts, codes against their definitions, and nets that still work."""

import copy
import functools
import importlib
import itertools
import math
import sys
import textwrap

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from torch import nn
from torch.nn.utils.prune import L1Unstructured, global_unstructured, remove

from featcx_core.data.images import Augmented, balanced_subset
from featcx_core.errors import InputError
from featcx_core.nets.kinds import load_network
from featcx_core.nets.targets import TargetNet
from featcx_core.nets.weights import save_network
from featcx_core.seeds import derive_seed
from featcx_core.specs import PrunedSpec, RunSpec, ScheduleSpec, VariantsSpec, validate
from featcx_core.training import compression
from featcx_core.training.checkpoint import Checkpoint
from featcx_core.training.compression import (
    Shared,
    Size,
    cluster,
    coded_layers,
    huffman_bits,
    prune,
    pruned_size,
    quantise,
    quantised_size,
)
from featcx_core.training.fit import cross_entropy, fit
from featcx_core.training.teaching import score_target, train_target

SHORT = ScheduleSpec(draws=192, batch=32, lr=5e-4, lr_end=1e-5)


@pytest.fixture(scope="module")
def seen(digits):
    return balanced_subset(digits.train_labels, digits.pool, 1000, 0)


@pytest.fixture(scope="module")
def trained(digits, seen):
    """A ResNet-8 that reads digits at 98 %."""
    torch.manual_seed(0)
    net = TargetNet("resnet8", digits.shape, 10)
    train_target(net, Augmented(digits, seen), ScheduleSpec(draws=12_800, batch=64, lr=3e-3, lr_end=3e-4))
    return net, score_target(net, digits, seen)


@pytest.fixture
def net(trained):
    """A copy of its own for each test."""
    fresh = TargetNet(**trained[0].config)
    fresh.load_state_dict(trained[0].state_dict())
    return fresh


def weights(net):
    return [layer.weight.detach().clone() for layer in coded_layers(net)]


def flat(parts):
    return torch.cat([part.flatten() for part in parts])


def assert_intact(net, before, data):
    """Names, parameters and halves are those of a plain net, in evaluation mode."""
    assert not any(module.training for module in net.modules())
    assert {name: id(p) for name, p in net.named_parameters()} == before
    assert not any(m._forward_pre_hooks or hasattr(m, "parametrizations") for m in net.modules())
    x = data.normalise(data.test_images[:20])
    with torch.no_grad():
        torch.testing.assert_close(net.head(net.feature(x)), net(x))


COMPRESS = {
    "pruned": lambda *args, **options: prune(*args, SHORT, sparsity=0.7, rounds=2, **options),
    "quantised": lambda *args, **options: quantise(*args, SHORT, bits=3, **options),
}


@pytest.mark.parametrize("kind", COMPRESS)
def test_the_net_stays_a_plain_one(net, digits, seen, tmp_path, kind):
    names, before = list(net.state_dict()), {name: id(p) for name, p in net.named_parameters()}
    size, dense = COMPRESS[kind](net, Augmented(digits, seen)), {name: v.shape for name, v in net.state_dict().items()}
    assert sorted(dense) == sorted(names)
    assert_intact(net, before, digits)
    save_network(net, tmp_path)
    loaded = load_network(tmp_path, TargetNet)
    assert {name: v.shape for name, v in loaded.state_dict().items()} == dense
    assert (pruned_size if kind == "pruned" else quantised_size)(loaded) == size
    assert size.compressed_bytes < size.dense_bytes / 2


OWN_LAYER = """
from torch import nn
from torch.nn import functional as F

class Convolution(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias, padding=1)

def net(classes):
    return nn.Sequential(Convolution(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), Convolution(6, 8, 3), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))
"""


@pytest.mark.parametrize("kind", COMPRESS)
def test_a_layer_of_the_users_own(digits, seen, tmp_path, monkeypatch, kind):
    """torch.fx traces into it, so that the halves hold its weights and not the layer."""
    (tmp_path / "featcx_test_layers.py").write_text(textwrap.dedent(OWN_LAYER))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("FEATCX_ALLOW_IMPORTS", "featcx_test_layers")
    importlib.invalidate_caches()
    try:
        net = TargetNet("featcx_test_layers:net", digits.shape, 10, "3")
        before = {name: id(p) for name, p in net.named_parameters()}
        COMPRESS[kind](net, Augmented(digits, seen))
        assert_intact(net, before, digits)
    finally:
        sys.modules.pop("featcx_test_layers", None)


@pytest.mark.parametrize("kind", COMPRESS)
def test_same_seed_same_bytes(net, digits, seen, kind):
    start, states = copy.deepcopy(net.state_dict()), []
    for seed in (4, 4, 5):
        net.load_state_dict(start)
        torch.rand(3)  # the process's generator does not matter
        COMPRESS[kind](net, Augmented(digits, seen), seed=seed)
        states.append(copy.deepcopy(net.state_dict()))
    one, again, other = states
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


class Counted(Augmented):
    """Counts its batches."""

    drawn = 0

    def draw(self, *args):
        self.drawn += 1
        return super().draw(*args)


@pytest.mark.parametrize(("kind", "rounds"), [("pruned", 2), ("quantised", 1)])
def test_resumed_gives_the_bytes_of_an_unbroken_run(net, digits, seen, tmp_path, kind, rounds):
    """Stopped after the last step of each round in turn: then a step a round is all that is done again."""
    start, again = copy.deepcopy(net.state_dict()), Counted(digits, seen)
    COMPRESS[kind](net, Augmented(digits, seen), seed=3)
    whole, checkpoint = copy.deepcopy(net.state_dict()), Checkpoint(tmp_path, "key", seconds=0)

    def stop(step, share):
        if step.done == step.total * share:
            raise KeyboardInterrupt

    for part in range(1, rounds + 1):
        net.load_state_dict(start)
        how = {"seed": 3, "checkpoint": checkpoint, "on_step": functools.partial(stop, share=part / rounds)}
        with pytest.raises(KeyboardInterrupt):
            COMPRESS[kind](net, Augmented(digits, seen), **how)
    net.load_state_dict(start)
    COMPRESS[kind](net, again, seed=3, checkpoint=checkpoint)
    assert again.drawn == rounds
    assert all(torch.equal(value, whole[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("kind", COMPRESS)
def test_progress_is_that_of_the_whole(net, digits, seen, kind):
    told = []
    COMPRESS[kind](net, Augmented(digits, seen), on_step=told.append)
    assert told[-1].done == told[-1].total == 192 // 32
    assert len({step.total for step in told}) == 1
    assert all(b.done > a.done for a, b in itertools.pairwise(told))


@pytest.mark.parametrize(("sparsity", "rounds"), [(0.5, 1), (0.8, 3), (0.333, 2), (0.99, 4), (1e-3, 1)])
def test_sparsity_is_exact_to_a_weight(net, digits, seen, sparsity, rounds):
    size = prune(net, Augmented(digits, seen), SHORT, sparsity=sparsity, rounds=rounds)
    zeros = int((flat(weights(net)) == 0).sum())
    assert abs(zeros - sparsity * len(flat(weights(net)))) <= 1
    assert size.parameters - size.nonzero == zeros  # biases and norms are left alone


def test_the_smallest_magnitudes_of_the_whole_net_go_and_stay_away(net, digits, seen):
    """Each round's fine-tuning leaves zeros zero and moves the others."""
    start = flat(weights(net))
    prune(net, Augmented(digits, seen), SHORT, sparsity=0.6, rounds=1)
    end = flat(weights(net))
    expected = torch.zeros_like(start, dtype=torch.bool)
    expected[start.abs().sort(stable=True).indices[: round(0.6 * len(start))]] = True
    assert torch.equal(end == 0, expected)
    assert (end != start)[~expected].float().mean() > 0.99


def test_sparsity_rises_by_rounds(net, digits, seen, monkeypatch):
    before, after, draws = [], [], []

    def watched(model, data, loss, schedule, **options):
        before.append(flat(weights(model)))
        result = fit(model, data, loss, schedule, **options)
        after.append(flat(weights(model)))
        draws.append(schedule.draws)
        return result

    monkeypatch.setattr(compression, "fit", watched)
    prune(net, Augmented(digits, seen), SHORT, sparsity=0.875, rounds=3)
    n = len(before[0])
    assert [int((b == 0).sum()) for b in before] == [round(share * n) for share in (0.5, 0.75, 0.875)]
    assert all(torch.equal(a == 0, b == 0) for a, b in zip(before, after, strict=True))
    for a, b in itertools.pairwise(zip(before, after, strict=True)):
        earlier, (later, _) = a[1], b
        gone = (later == 0) & (earlier != 0)
        assert ((later == 0) >= (earlier == 0)).all()
        assert earlier[gone].abs().max() <= later[later != 0].abs().min()  # by the fine-tuned magnitudes
    assert draws == [64] * 3


def test_zeroing_after_each_update_is_training_under_a_mask(net, digits, seen):
    """Against torch's own masks, which stay in the forward pass while training."""
    masked = TargetNet(**net.config)
    masked.load_state_dict(net.state_dict())
    prune(net, Augmented(digits, seen), SHORT, sparsity=0.8, rounds=1, seed=3)
    layers = coded_layers(masked)
    amount = round(0.8 * len(flat(weights(masked))))
    global_unstructured([(layer, "weight") for layer in layers], L1Unstructured, amount=amount)
    fit(masked, Augmented(digits, seen), cross_entropy, SHORT, seed=derive_seed(3, "round", 0))
    for layer in layers:
        remove(layer, "weight")
    for name, value in masked.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], value)


def test_accuracy_survives_moderate_compression(trained, net, digits, seen):
    start, scores = copy.deepcopy(net.state_dict()), trained[1]
    assert scores["test_accuracy"] > 0.95
    schedule = ScheduleSpec(draws=6400, batch=64, lr=5e-4, lr_end=1e-5)
    prune(net, Augmented(digits, seen), schedule, sparsity=0.5, rounds=2)
    assert score_target(net, digits, seen)["test_accuracy"] > scores["test_accuracy"] - 0.03
    net.load_state_dict(start)
    quantise(net, Augmented(digits, seen), schedule, bits=3)
    assert score_target(net, digits, seen)["test_accuracy"] > scores["test_accuracy"] - 0.03


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_layer_has_2_to_the_bits_values_at_most(net, digits, seen, bits):
    expected = [cluster(weight, 2**bits) for weight in weights(net)]
    start = weights(net)
    size = quantise(net, Augmented(digits, seen), SHORT, bits=bits)
    for codes, weight, former in zip(expected, weights(net), start, strict=True):
        values = len(weight.unique())
        assert values <= 2**bits
        assert values == 2 if bits == 1 else values > 1
        for code in codes.unique()[:20]:
            assert len(weight[codes == code].unique()) == 1  # the codes are held, the centroids move
        assert not torch.equal(weight, former)
    books = 32 * sum(len(weight.unique()) for weight in weights(net))
    coded = bits * len(flat(weights(net))) + books + 32 * (size.parameters - len(flat(weights(net))))
    assert size.compressed_bytes <= math.ceil(coded / 8)  # no worse than indices of `bits` bits each


def test_a_centroid_gets_the_gradients_of_its_weights():
    torch.manual_seed(0)
    layer, x = nn.Linear(5, 4), torch.randn(7, 5)
    codes = cluster(layer.weight, 3)
    centroids = Shared(codes).right_inverse(layer.weight).requires_grad_()
    for k in range(3):
        torch.testing.assert_close(centroids[k], layer.weight[codes == k].mean())
    shared = Shared(codes)(centroids)
    F.linear(x, shared).pow(2).sum().backward()
    free = shared.detach().clone().requires_grad_()
    F.linear(x, free).pow(2).sum().backward()
    torch.testing.assert_close(centroids.grad, torch.stack([free.grad[codes == k].sum() for k in range(3)]))


def distortion(values, codes):
    """Squared error of replacing each value by its code's mean."""
    means = {k: values[codes == k].mean() for k in np.unique(codes)}
    return sum(((values[codes == k] - mean) ** 2).sum() for k, mean in means.items())


SAMPLES = {
    "normal": lambda rng: rng.normal(size=3000),
    "heavy tails": lambda rng: rng.standard_t(2, size=3000),
    "two heaps": lambda rng: np.concatenate([rng.normal(-3, 0.1, 500), rng.normal(2, 1, 700)]),
    "few values": lambda rng: rng.integers(0, 5, 200).astype(float),
    "constant": lambda rng: np.full(10, 0.3),
}


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("count", [2, 7, 16, 64])
def test_clusters_beat_uniform_quantisation_and_equal_k_means(name, count):
    values = SAMPLES[name](np.random.default_rng(0)).astype(np.float32)
    codes = cluster(torch.from_numpy(values).view(-1, 2), count).numpy().ravel()
    exact = values.astype(np.float64)
    levels = np.linspace(exact.min(), exact.max(), count)
    uniform = ((exact[:, None] - levels) ** 2).min(1).sum()
    assert distortion(exact, codes) <= uniform + 1e-12
    assert sorted(set(codes)) == list(range(len(set(codes))))  # none is empty
    assert len(set(codes)) <= count
    order = np.argsort(exact)
    assert (np.diff(codes[order]) >= 0).all()
    if name in ("normal", "two heaps"):  # where scikit-learn meets no empty cluster, which it would move elsewhere
        reference = KMeans(count, init=levels[:, None], n_init=1, max_iter=10_000, tol=0).fit(exact[:, None])
        if len(set(codes)) == count:
            assert distortion(exact, codes) == pytest.approx(reference.inertia_, rel=1e-6)


def test_a_known_clustering():
    codes = cluster(torch.tensor([[0.0, 10.0, 0.1], [9.8, 0.2, 5.0]]), 3)
    assert codes.tolist() == [[0, 2, 0], [2, 0, 1]]
    weight = torch.randn(40, generator=torch.Generator().manual_seed(0))
    permuted = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert torch.equal(cluster(weight[permuted], 4), cluster(weight, 4)[permuted])


def test_known_huffman_codes():
    assert huffman_bits([ord(letter) for letter in "abracadabra"]) == 23
    assert huffman_bits(torch.tensor([[0, 0], [0, 1]])) == 4
    assert huffman_bits(np.repeat([7, 8, 9, 10], [8, 4, 2, 2])) == 8 + 2 * 4 + 3 * 4  # powers of two: the entropy
    assert huffman_bits(range(256)) == 256 * 8
    assert huffman_bits([5] * 100) == 0
    assert huffman_bits([]) == 0


@given(st.lists(st.integers(-3, 12), min_size=1, max_size=200))
@settings(max_examples=200, deadline=None)
def test_huffman_codes_are_within_a_bit_of_the_entropy(symbols):
    shares = np.unique(symbols, return_counts=True)[1] / len(symbols)
    entropy = -(shares * np.log2(shares)).sum()
    mean = huffman_bits(symbols) / len(symbols)
    assert entropy - 1e-9 <= mean < entropy + 1


@given(st.lists(st.integers(1, 30), min_size=2, max_size=5))
@settings(max_examples=50, deadline=None)
def test_no_prefix_code_is_shorter(counts):
    """Against all code lengths that Kraft's inequality allows."""
    best = min(
        sum(c * length for c, length in zip(counts, lengths, strict=True))
        for lengths in itertools.product(range(1, len(counts)), repeat=len(counts))
        if sum(2.0**-length for length in lengths) <= 1
    )
    assert huffman_bits(np.repeat(range(len(counts)), counts)) == best


def test_sizes_by_hand():
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[0.0, 1.5, 0.0], [0.0, 0.0, -2.0]]))
        net[0].bias.copy_(torch.tensor([1.0, 0.0]))
    # 6 weights, 2 biases, 2 + 2 of the norm (scales 1, shifts 0); free parameters take 6 × 32 bits
    pruned = 6 * 32 + 2 * 32 + 2  # two values and gaps 2, 4 of one bit each
    assert pruned_size(net) == Size(12, 5, 48, math.ceil(pruned / 8), 48 / 33)
    shared = 6 * 32 + 3 * 32 + (4 * 1 + 2 + 2)  # a codebook of three; 0 four times in one bit, 1.5 and −2 in two
    assert quantised_size(net) == Size(12, 5, 48, math.ceil(shared / 8), 48 / 37)
    nn.init.zeros_(net[0].weight)
    assert pruned_size(net).compressed_bytes == 6 * 4
    assert quantised_size(net).compressed_bytes == 6 * 4 + 4


@pytest.mark.parametrize("sparsity", [0, 1, -0.5, 1.5, math.nan])
def test_a_sparsity_that_will_not_do(net, digits, seen, sparsity):
    with pytest.raises(InputError, match=r"sparsity = .* will not do; give a share between 0 and 1"):
        prune(net, Augmented(digits, seen), SHORT, sparsity=sparsity)


def test_other_input_that_will_not_do(net, digits, seen):
    with pytest.raises(InputError, match="rounds = 0 will not do; give 1 or more"):
        prune(net, Augmented(digits, seen), SHORT, sparsity=0.5, rounds=0)
    for bits in (0, 17):
        with pytest.raises(InputError, match=f"bits = {bits} will not do; give 1 to 16"):
            quantise(net, Augmented(digits, seen), SHORT, bits=bits)
    with pytest.raises(InputError, match="no convolution or linear layer"):
        prune(nn.BatchNorm2d(1), Augmented(digits, seen), SHORT, sparsity=0.5)
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    for twisted in (tied, nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))):
        with pytest.raises(InputError, match="share a weight, or compute it from others"):
            quantise(twisted, Augmented(digits, seen), SHORT, bits=4)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("distilled.temperature", 0, "greater than 0"),
        ("distilled.mix", 1.5, "less than or equal to 1"),
        ("pruned.sparsity", 1, "less than 1"),
        ("pruned.sparsity", 0, "greater than 0"),
        ("pruned.rounds", 0, "greater than or equal to 1"),
        ("quantised.bits", 17, "less than or equal to 16"),
        ("quantised.schedule.draws", 0, "greater than or equal to 1"),
    ],
)
def test_settings_out_of_range_are_told(path, value, reason):
    values = value
    for name in reversed(path.split(".")):
        values = {name: values}
    with pytest.raises(InputError, match=rf"variants\.{path} = {value} will not do: .*{reason}\."):
        validate({"variants": values})


def test_settings():
    assert RunSpec().variants == VariantsSpec()
    assert RunSpec().variants.pruned == PrunedSpec()
    off = validate({"variants": {"pruned": None, "quantised": False}}).variants
    assert off.pruned is None
    assert off.quantised is None
    assert off.distilled is not None
    with pytest.raises(InputError, match=r"no field 'variants\.pruned\.sparsty'; did you mean 'sparsity'"):
        validate({"variants": {"pruned": {"sparsty": 0.5}}})
    with pytest.raises(InputError, match=r"no field 'variants\.pruned\.schedule\.drawn'; did you mean 'draws'"):
        validate({"variants": {"pruned": {"schedule": {"drawn": 5}}}})
