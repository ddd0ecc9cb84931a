"""The presets of birds and dogs from the official archive to the report, at a tenth of the size on made trees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flows.settings import load_spec
from tests.e2e.conftest import LEAN, TINY, UNJUDGED, featcx, typed
from tests.made_archives import made_birds, made_dogs

TENTH = [  # classes, images and width; pixels a seventh; of the draws a few hundred
    argument
    for setting in (
        "dataset.size=32",
        "dataset.crop=1",
        "target.samples=120",
        "disentangler.width=13",
        "disentangler.batches=32",
        "reliability.batches=32",
        "target.schedule.batch=32",
        "exemplary.schedule.batch=32",
        "target.schedule.draws=320",
        "exemplary.schedule.draws=320",
        "disentangler.schedule.draws=320",
        "reliability.schedule.draws=320",
        "reliability.cycle_steps=20",
        "reliability.rounds=2",
        "reliability.rounds_read=1",
        "reliability.ridges=1e-3",
    )
    for argument in ("--set", setting)
]


def test_exemplary_nets_crops_and_epochs_are_the_authors_own() -> None:
    birds, dogs = load_spec("cub200-paper"), load_spec("dogs-paper")
    for spec in (birds, dogs):
        assert (spec.target.net, spec.exemplary.net) == ("resnet18", "resnet34")
        assert (spec.dataset.size, spec.dataset.crop, spec.dataset.fit) == (224, 8, "stretch")
    assert dogs.exemplary.schedule.draws == 300 * 12_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "made", "count", "reliable"),
    [("cub200", made_birds, (600, 1180, 20), True), ("dogs", made_dogs, (1200, 2058, 12), False)],
)
def test_from_the_archive_to_the_report(
    name: str, made: Callable[..., Path], count: tuple[int, int, int], reliable: bool, tmp_path: Path
) -> None:
    """Reliability, whose settings the two have in common, is shown by one of them."""
    train, images, classes = count
    root, out, store = made(tmp_path, images, train, classes), tmp_path / "crops", tmp_path / "store"
    done = typed("data", name, root, out)
    assert done.code == 0, done.err
    assert f"{train:,} training and {images - train:,} test crops" in done.out
    source = ["--set", f"dataset.source=folder:{out}"]
    whole = typed("plan", f"{name}-paper", *source, "--store", store)  # whose target sees more than there is
    assert (whole.code, f"take {train * 9 // 10} at most" in whole.err) == (2, True)
    settings = [f"{name}-paper", *source, *TINY, *LEAN, *UNJUDGED, *TENTH, "--store", store]
    settings += [] if reliable else ["--set", "reliability.enabled=false"]
    planned = typed("plan", *settings, json_file=tmp_path / "plan.json")
    assert planned.code == 0, planned.err
    assert planned.json["hit"] == 0
    run = featcx("run", *settings, json_file=tmp_path / "run.json")
    assert run.code == 0, run.err + run.out
    assert (
        f"{train:,} training and {images - train:,} test images, 32×32 pixels in colour, {classes} classes" in run.out
    )
    assert Path(run.json["report"]).is_file()
    assert [row["order"] for row in run.json["orders"]] == [4, 7]
    assert all((row["reliability"] is not None) == reliable for row in run.json["orders"])
    assert typed("plan", *settings, json_file=tmp_path / "again.json").json["miss"] == 0
