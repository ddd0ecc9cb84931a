"""What the report shows as the net's inputs, against plain loops over the data set."""

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from featcx_core.analysis.inputs import Inputs, make_inputs, pixel_range, visible
from featcx_core.data.images import Dataset, FloatDataset
from featcx_core.report.canvas import DARK, LIGHT
from featcx_core.report.facets.inputs import draw_inputs, input_sections, read_inputs
from featcx_core.report.facets.maps import input_image
from featcx_core.specs import Pixels
from featcx_core.training.brought import preprocess_words, rescaling

CLASSES = 4


def made(kind=Dataset, channels=3, crop=2, flip=True, classes=CLASSES, n=30):
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, channels, 9, 8), generator=rng, dtype=torch.uint8)
    if kind is FloatDataset:
        images = images.float() / 64 - 2
    labels = torch.arange(n).flip(0) % classes
    return kind(
        train_images=images,
        train_labels=labels,
        test_images=images[:6].clone(),
        test_labels=labels[:6],
        pool=torch.arange(3, n),
        validation=torch.arange(3),
        classes=tuple(f"kind {k}" for k in range(classes)),
        mean=torch.linspace(0.3, 0.5, channels),
        std=torch.linspace(0.2, 0.3, channels),
        crop=crop,
        flip=flip,
    )


def shifted(image, crop):
    """Every crop of a padded image, and its mirror image."""
    padded = np.pad(image, ((0, 0), (crop, crop), (crop, crop)))
    h, w = image.shape[1:]
    for top in range(2 * crop + 1):
        for left in range(2 * crop + 1):
            part = padded[:, top : top + h, left : left + w]
            yield part
            yield part[:, :, ::-1]


def test_the_first_of_each_class_in_turn_as_they_are_and_as_training_draws_them():
    data = made()
    found = make_inputs(data)
    assert found.labels == (0, 1, 2, 3, 0, 1)
    own = {k: [i for i in data.pool.tolist() if data.train_labels[i] == k] for k in range(CLASSES)}
    chosen = [own[0][0], own[1][0], own[2][0], own[3][0], own[0][1], own[1][1]]
    assert torch.equal(found.images, data.train_images[chosen])
    changed = 0
    for image, drawn in zip(found.images.numpy(), found.drawn.numpy(), strict=True):
        assert any(np.array_equal(drawn, part) for part in shifted(image, data.crop))
        changed += not np.array_equal(drawn, image)
    assert changed
    assert found.counts == tuple(len(own[k]) for k in range(CLASSES))
    assert found.sizes == {"pool": 27, "validation": 3, "test": 6}


@pytest.mark.parametrize(
    "preprocess", ["pool", "none", "imagenet", Pixels(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))], ids=str
)
def test_mean_deviation_and_values_are_what_the_net_gets(preprocess):
    data = made()
    found = make_inputs(data, rescaling(preprocess, data))
    mean, std = {
        "pool": (data.mean.tolist(), data.std.tolist()),
        "none": ([0.0] * 3, [1.0] * 3),
        "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    }.get(preprocess, ([0.1, 0.2, 0.3], [0.5, 0.6, 0.7]))
    assert found.mean == pytest.approx(mean, abs=1e-6)
    assert found.std == pytest.approx(std, abs=1e-6)
    values = (found.images.numpy() / 255 - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]
    assert (found.low, found.high) == pytest.approx((values.min(), values.max()), abs=1e-4)
    assert found.own == (preprocess == "pool")


def test_saved_and_loaded_they_are_the_same(tmp_path):
    found = make_inputs(made(), notes=["a share is held out"])
    found.save(tmp_path / "inputs")
    again = Inputs.load(tmp_path / "inputs")
    assert torch.equal(again.images, found.images)
    assert torch.equal(again.drawn, found.drawn)
    assert {k: v for k, v in vars(again).items() if k not in ("images", "drawn")} == {
        k: v for k, v in vars(found).items() if k not in ("images", "drawn")
    }


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_floats_of_any_range_are_shown_from_their_least_to_their_largest(channels):
    data = made(FloatDataset, channels)
    images = data.train_images
    shown = visible(images, *pixel_range(images))
    assert (shown.dtype, int(shown.min()), int(shown.max())) == (torch.uint8, 0, 255)
    order = images.flatten().argsort()
    assert bool((shown.flatten()[order].int().diff() >= 0).all())
    found = make_inputs(data)
    assert isinstance(input_image(found.images[0]), Image.Image)
    assert found.images.float().std() > 40


@pytest.mark.parametrize(("crop", "flip", "rows"), [(2, True, 2), (0, True, 2), (0, False, 1)])
def test_the_strip_has_a_row_for_training_only_where_that_changes_images(crop, flip, rows):
    found = make_inputs(made(crop=crop, flip=flip))
    heights = []
    for theme in (LIGHT, DARK):
        figure = draw_inputs(found, theme)
        FigureCanvasAgg(figure).draw()
        assert len(figure.axes[0].images) == 6 * rows
        heights.append(figure.get_size_inches()[1])
    assert heights[0] == heights[1]


def test_the_reading_tells_images_classes_size_channels_split_and_preprocess():
    told = read_inputs(make_inputs(made(), notes=["12 files left out: 12 not images"]))
    for part in (
        "8×9 pixels in colour", "27 images in 4 classes (7 of kind 0, 7 of kind 1, 7 of kind 2, 6 of kind 3)",
        "3 more are for validation and 6 for testing", "(0.300, 0.400, 0.500) over (0.200, 0.250, 0.300), the pool's",
        "shifts images by 2 pixels at most and mirrors every second one", "12 files left out: 12 not images.",
    ):  # fmt: skip
        assert part in told
    many = read_inputs(make_inputs(made(classes=20, n=63)))
    assert "60 images in 20 classes (3 images each)" in many
    assert input_sections(None) == []


def test_preprocess_in_words():
    assert preprocess_words("none") == "as they are"
    assert preprocess_words("auto") == preprocess_words("pool") == "less the pool's own mean over the pool's deviation"
    assert "as the library's weights" in preprocess_words("auto", ((0.5,), (0.25,)))
    assert preprocess_words(Pixels(mean=(0.5,), std=(0.25,))) == "less 0.5 over 0.25"
    assert "ImageNet's" in preprocess_words("imagenet")
