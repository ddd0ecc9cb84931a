"""Splits, subsets, augmentation and normalisation of data sets in memory."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from featcx_core.data.images import Augmented, Dataset, balanced_subset, check_samples, stratified_split
from featcx_core.errors import InputError
from featcx_core.seeds import Seeded

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_validation_and_pool_are_disjoint_and_stratified(name, request):
    data = request.getfixturevalue(name)
    both = torch.cat([data.pool, data.validation])
    assert torch.equal(both.sort().values, torch.arange(len(data.train_labels)))
    for part in (data.pool, data.validation):
        assert (part.diff() > 0).all()
    whole = torch.bincount(data.train_labels, minlength=10)
    held = torch.bincount(data.train_labels[data.validation], minlength=10)
    assert ((held - 0.1 * whole).abs() < 1).all()
    assert len(data.validation) == round(0.1 * len(data.train_labels))


def test_stratified_split_is_seeded():
    labels = np.random.default_rng(0).integers(0, 5, 200)
    taken, rest = stratified_split(labels, 0.2, 0)
    assert np.array_equal(np.union1d(taken, rest), np.arange(200))
    assert not np.intersect1d(taken, rest).size
    assert np.array_equal(taken, stratified_split(labels, 0.2, 0)[0])
    assert not np.array_equal(taken, stratified_split(labels, 0.2, 1)[0])
    assert len(taken) == 40
    small, _ = stratified_split(np.array([0, 0, 0, 1, 1, 1, 1]), 0.05, 0)
    assert len(small) == 2  # at least one of each class


def test_a_split_of_one_class_does_not_move_another():
    labels = np.repeat([0, 1, 2], 30)
    taken, _ = stratified_split(labels, 0.2, 0)
    fewer = np.concatenate([labels[:60], labels[60:70]])
    again, _ = stratified_split(fewer, 0.2, 0)
    assert np.array_equal(taken[taken < 60], again[again < 60])


def test_splits_of_a_data_set(digits):
    seen = balanced_subset(digits.train_labels, digits.pool, 50, 0)
    for name, count in (
        ("pool", len(digits.pool)),
        ("validation", len(digits.validation)),
        ("seen", 50),
        ("test", 397),
    ):
        images, labels, samples = digits.split(name, seen)
        assert len(images) == len(labels) == len(samples) == count
        source = digits.test_images if name == "test" else digits.train_images
        assert torch.equal(images[:], source[samples])
        assert torch.equal(torch.cat(list(images.split(30))), source[samples])
    with pytest.raises(InputError, match="no split 'train' here"):
        digits.split("train")
    with pytest.raises(InputError, match="no split 'seen' here"):
        digits.split("seen")


@pytest.mark.parametrize("samples", [10, 100, 700])
def test_subsets_are_balanced_and_within_the_pool(digits, samples):
    chosen = balanced_subset(digits.train_labels, digits.pool, samples, 3)
    assert (torch.bincount(digits.train_labels[chosen]) == samples // 10).all()
    assert torch.isin(chosen, digits.pool).all()
    assert (chosen.diff() > 0).all()


def test_subsets_are_nested_and_seeded(digits):
    sizes = [10, 20, 50, 200, 1000]
    subsets = [balanced_subset(digits.train_labels, digits.pool, n, 7) for n in sizes]
    for small, large in itertools.pairwise(subsets):
        assert torch.isin(small, large).all()
    assert torch.equal(subsets[2], balanced_subset(digits.train_labels, digits.pool, 50, 7))
    other = balanced_subset(digits.train_labels, digits.pool, 50, 8)
    assert torch.isin(subsets[2], other).float().mean() < 0.5


@pytest.mark.parametrize(("samples", "choice"), [(205, "200 or 210"), (7, "10"), (9, "10")])
def test_counts_that_do_not_divide_name_the_nearest(samples, choice):
    with pytest.raises(InputError, match=f"samples = {samples} is not a multiple of the 10 classes; take {choice}"):
        check_samples(samples, [100] * 10)


def test_counts_beyond_the_pool_name_the_largest(digits):
    check_samples(90, [100, 30, 50])
    with pytest.raises(InputError, match="samples = 93 is more than the pool holds in class balance; take 90 at most"):
        check_samples(93, [100, 30, 50])
    smallest = int(torch.bincount(digits.train_labels[digits.pool]).min())
    assert len(balanced_subset(digits.train_labels, digits.pool, 10 * smallest, 0)) == 10 * smallest
    with pytest.raises(InputError, match=f"take {10 * smallest} at most"):
        balanced_subset(digits.train_labels, digits.pool, 10 * smallest + 10, 0)


def made_up(crop=2, flip=True, channels=3, size=(9, 8), n=20):
    """Random pixels: no crop of an image looks like another."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (n, channels, *size), generator=rng, dtype=torch.uint8)
    labels = torch.arange(n) % 4
    return Dataset(
        train_images=images, train_labels=labels, test_images=images[:4], test_labels=labels[:4],
        pool=torch.arange(n), validation=torch.arange(0), classes=("a", "b", "c", "d"),
        mean=torch.tensor([0.5, 0.4, 0.3])[:channels], std=torch.tensor([0.2, 0.3, 0.1])[:channels], crop=crop, flip=flip,
    )  # fmt: skip


def crops(image, pad, flip):
    """(offset, mirrored) → every crop of the padded image."""
    padded = torch.nn.functional.pad(image, (pad,) * 4)
    height, width = image.shape[1:]
    for top in range(2 * pad + 1):
        for left in range(2 * pad + 1):
            crop = padded[:, top : top + height, left : left + width]
            yield (top, left, False), crop
            if flip:
                yield (top, left, True), crop.flip(2)


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("crop", [0, 1, 3])
def test_each_sample_is_a_crop_of_its_own_image(flip, crop):
    data = made_up(crop, flip)
    indices = torch.tensor([3, 5, 8, 13, 19, 0])
    augmented = Augmented(data, indices, CPU)
    assert len(augmented) == 6
    chosen = torch.arange(6).repeat(40)
    images, labels = augmented.batch(chosen, torch.Generator().manual_seed(1))
    assert images.shape == (240, 3, 9, 8)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(labels, data.train_labels[indices[chosen]])
    pixels = (images * data.std[:, None, None] + data.mean[:, None, None]) * 255
    assert (pixels - pixels.round()).abs().max() < 1e-2
    found = []
    for k, image in enumerate(pixels.round().to(torch.uint8)):
        matches = [
            where for where, crop_ in crops(data.train_images[indices[k % 6]], crop, flip) if torch.equal(crop_, image)
        ]
        assert len(matches) == 1, "not a crop of its image"
        found.append(matches[0])
    places = 2 * crop + 1
    for axis in (0, 1):  # every offset occurs, about equally often
        counts = np.bincount([where[axis] for where in found], minlength=places)
        assert (abs(counts - 240 / places) < 5 * np.sqrt(240 / places) + 1e-9).all()
    mirrored = sum(where[2] for where in found)
    assert mirrored == 0 if not flip else 80 < mirrored < 160
    if crop:  # one draw a sample, not one a batch
        assert len(set(found)) > 6


def test_augmentation_is_a_function_of_its_generator():
    augmented = Augmented(made_up(), torch.arange(20), CPU)
    one, same, other = (augmented.batch(torch.arange(20), torch.Generator().manual_seed(seed))[0] for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_without_crop_and_flip_it_is_the_normalised_image():
    data = made_up(crop=0, flip=False)
    images, _ = Augmented(data, torch.arange(20), CPU).batch(torch.arange(20), torch.Generator())
    torch.testing.assert_close(images, data.normalise(data.train_images))
    expected = (data.train_images.double() / 255 - data.mean.double()[:, None, None]) / data.std.double()[:, None, None]
    torch.testing.assert_close(images.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_the_pool_has_mean_zero_and_deviation_one(name, request):
    data = request.getfixturevalue(name)
    pixels = data.normalise(data.train_images[data.pool]).double()
    assert pixels.mean((0, 2, 3)).abs().max() < 1e-5
    assert (pixels.std((0, 2, 3), unbiased=False) - 1).abs().max() < 1e-5


def test_save_and_load(digits, tmp_path):
    digits.save(tmp_path)
    loaded = Dataset.load(tmp_path)
    assert loaded.file is not None
    for name, value in vars(dataclasses.replace(digits, file=loaded.file)).items():
        same = (
            torch.equal(value, vars(loaded)[name]) if isinstance(value, torch.Tensor) else value == vars(loaded)[name]
        )
        assert same, name
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    loaded.save(tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize("flip", [True, False])
def test_what_is_drawn_is_a_small_tensor_of_integers(digits, flip):
    data = Augmented(dataclasses.replace(digits, flip=flip), digits.pool)
    chosen = torch.tensor([5, 0, 3, 3])
    drawn = data.draw(chosen, torch.Generator().manual_seed(1))
    assert (drawn.dtype, drawn.shape, drawn.device.type) == (torch.int64, (4, 4), "cpu")
    assert torch.equal(drawn[0], chosen)
    assert drawn[1:3].min() >= 0
    assert drawn[1:3].max() <= 2 * digits.crop
    assert set(drawn[3].tolist()) <= ({0, 1} if flip else {0})
    other = Augmented(dataclasses.replace(digits, flip=not flip), digits.pool)
    assert torch.equal(other.draw(chosen, torch.Generator().manual_seed(1))[:3], drawn[:3])
    images, labels = data.take(*data.fetch(drawn))
    again, same = data.batch(chosen, torch.Generator().manual_seed(1))
    assert torch.equal(images, again)
    assert torch.equal(labels, same)


def test_seeded_tells_whether_numbers_were_drawn():
    with Seeded(3, torch.device("cpu")) as quiet:
        torch.randn(2, generator=torch.Generator())
    with Seeded(3, torch.device("cpu")) as noisy:
        first = torch.rand(2)
    with Seeded(3, torch.device("cpu")):
        assert torch.equal(torch.rand(2), first)
    assert (quiet.drew, noisy.drew) == (False, True)
