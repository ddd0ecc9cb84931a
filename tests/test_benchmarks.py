"""The baselines of the benchmarks compute what featcx computes, so that a ratio of times compares like with like."""

import itertools

import pytest
import torch
from torch import nn

from benchmarks import published
from benchmarks.published import PublishedDisentangler, fit_cycle_on_images, train_depth, training_batches
from featcx_core.data.images import Augmented
from featcx_core.nets.disentangler import Disentangler
from featcx_core.nets.targets import TargetNet
from featcx_core.training.fit import reproduce


def pair(blocks, width=4):
    """The baseline's net and ours with the same weights."""
    torch.manual_seed(blocks)
    theirs = PublishedDisentangler(blocks, 1, 64, width)
    ours = Disentangler(blocks, (1, 28, 28), (64, 7, 7), width)
    own, names = theirs.state_dict(), [name for name in ours.state_dict() if not name.startswith("unit.")]
    ours.load_state_dict(dict(zip(names, own.values(), strict=True)), strict=False)
    return theirs, ours


@pytest.fixture(scope="module")
def feature(mnist):
    torch.manual_seed(0)
    return TargetNet("resnet8", mnist.shape, 10).feature


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_the_baselines_net_loss_and_gradients_are_ours(mnist, feature, blocks):
    theirs, ours = pair(blocks)
    images, labels = Augmented(mnist, mnist.pool, "cpu").batch(torch.arange(16), torch.Generator())
    with torch.no_grad():
        wanted = feature(images)
    baseline = nn.functional.mse_loss(theirs.train()(images), wanted)
    loss = reproduce(feature)(ours.train(), images, labels)
    torch.testing.assert_close(loss, baseline)
    baseline.backward()
    loss.backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-5)


def test_a_deeper_baseline_starts_from_the_shallower_ones_first_blocks():
    shallow, deep = PublishedDisentangler(2, 1, 8, 4), PublishedDisentangler(4, 1, 8, 4)
    added = deep.stage2[3].conv.weight.clone()
    deep.start_from(shallow)
    for name, value in shallow.state_dict().items():
        assert torch.equal(deep.state_dict()[name], value), name
    assert torch.equal(deep.stage2[3].conv.weight, added)


def test_the_baselines_pictures_are_normalised_crops_of_the_pool(mnist, monkeypatch):
    """Every 28×28 window of a padded, normalised image is a crop that featcx could draw too."""
    monkeypatch.setattr(published, "DRAWS", 5)
    torch.manual_seed(0)
    images, labels = next(iter(training_batches(mnist, 5)))
    padded = nn.functional.pad(mnist.train_images[mnist.pool], (mnist.crop,) * 4)
    crops = [
        mnist.normalise(padded[:, :, r : r + 28, c : c + 28])
        for r, c in itertools.product(range(2 * mnist.crop + 1), repeat=2)
    ]
    for image, label in zip(images, labels, strict=True):
        where = [((crop - image).abs().amax((1, 2, 3)) < 1e-5) for crop in crops]
        found = torch.stack(where).any(0).nonzero().flatten()
        assert len(found)
        assert label in mnist.train_labels[mnist.pool][found]


def test_the_baseline_learns(mnist, feature, monkeypatch):
    monkeypatch.setattr(published, "DRAWS", 256)
    torch.manual_seed(0)
    losses = list(train_depth(PublishedDisentangler(1, 1, 64, 4), feature, mnist, epochs=3, batch=32, test=False))
    assert losses[2] < losses[0]


def test_a_round_of_the_loop_over_images_has_the_loss_on_second_moments(mnist, monkeypatch):
    """tr((hg − I) Σ_r (hg − I)ᵀ)/C summed over nets, Σ_r = A^r Σ A^rᵀ of the very batch, for the first three rounds."""
    monkeypatch.setattr(published, "DRAWS", 8)
    torch.manual_seed(0)
    psi, seen = nn.Conv2d(1, 6, 3, 2, bias=False), []
    forth = [nn.Conv2d(6, c, 1, bias=False) for c in (6, 5)]
    back = [nn.Conv2d(c, 6, 1, bias=False) for c in (6, 5)]

    def trunk(images):
        out = psi(images)
        matrices = [[m.weight.detach().flatten(1).clone() for m in side] for side in (forth, back)]
        seen.append((out, *matrices))
        return out

    losses = list(itertools.islice(fit_cycle_on_images(trunk, forth, back, mnist, batch=8, rounds=3, epochs=1), 3))
    for r, (loss, (out, g, h)) in enumerate(zip(losses, seen, strict=True)):
        flat = out.transpose(0, 1).flatten(1)
        cycles = [b @ f for f, b in zip(g, h, strict=True)]
        root = torch.linalg.matrix_power(torch.stack(cycles).mean(0), r)
        moment = root @ (flat @ flat.T / flat.shape[1]) @ root.T
        off = [c - torch.eye(6) for c in cycles]
        expected = sum(torch.trace(o @ moment @ o.T) for o in off) / 6
        assert loss == pytest.approx(float(expected), rel=1e-4)
