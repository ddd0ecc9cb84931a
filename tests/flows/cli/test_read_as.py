"""What a command says it has understood, before anything is trained."""

from __future__ import annotations

import pytest

from flows.cli.plan import read_as
from flows.settings import load_spec


def test_images_splits_and_preprocess_are_told() -> None:
    images, split, net = read_as(load_spec("digits"))
    assert images.startswith("Data: 1,400 training and 397 test images, 8×8 pixels in grey, 10 classes (0 139, 1 142")
    assert split == (
        "Split: trainings draw from a pool of 1,260 images, of which the target sees 200; 140 for validation, 397 for testing"
    )
    assert net == "Net: resnet8 gets pixels in [0, 1] less the pool's own mean over the pool's deviation"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["target.preprocess=none"], "as they are"),
        (["target.preprocess={mean=[0.5], std=[0.25]}"], "less 0.5 over 0.25"),
        (
            ["target.net=torchvision:resnet18", "target.options={weights='DEFAULT'}"],
            "less 0.449 over 0.226, as the library",
        ),
        (["target.net=torchvision:resnet18"], "less the pool's own mean"),
    ],
)
def test_preprocess_is_told_as_it_will_be(settings: list[str], words: str) -> None:
    assert words in read_as(load_spec("digits", overrides=settings))[-1]
