"""Image complexity against plain loops and scipy, what it must not depend on, and what the strip shows."""

from io import BytesIO

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr

from featcx_core.analysis.bootstrap import bootstrap_weights, component_covariance
from featcx_core.analysis.components import ComponentTable
from featcx_core.analysis.images import measure_images, midranks, strip_of, thumbnail
from featcx_core.errors import InputError

ORDERS, SHARES = (4, 7, 13), ["share_004", "share_007", "share_013"]


def made(n=150, scale=1.0, shift=0.0, seed=0):
    """Components of images that differ in how much of them is deep, and a loss that goes with that."""
    rng = torch.Generator().manual_seed(seed)
    deep = torch.rand(n, generator=rng, dtype=torch.float64)
    sizes = torch.stack([1 - deep, deep, 0.2 * torch.ones(n)], 1)[:, :, None, None, None]
    parts = sizes * torch.randn(n, 3, 4, 2, 2, generator=rng, dtype=torch.float64) + 1
    rest = 0.2 * torch.randn(n, 4, 2, 2, generator=rng, dtype=torch.float64)
    losses = deep + torch.rand(n, generator=rng)
    parts = scale * parts
    parts[:, 0] += shift  # f → a·f + b: the first order's net learns the constant
    return ComponentTable.from_tensors(parts, scale * rest, torch.arange(n) % 5, ORDERS), losses


def centred(table):
    maps = next(iter(table.stacked(len(table))))[0].double().flatten(2).numpy()
    return maps - maps.mean(0)


def test_shares_and_the_order_that_explains_an_image_are_those_of_plain_loops():
    table, losses = made()
    found = measure_images(table, losses, bootstrap=50).images
    for x, row in zip(centred(table), found.to_dict("records"), strict=True):
        energy = [float((part**2).sum()) for part in x[:-1]]
        assert [row[name] for name in SHARES] == pytest.approx([e / sum(energy) for e in energy])
        f = x.sum(0)
        explained = [1 - ((f - x[: i + 1].sum(0)) ** 2).sum() / (f**2).sum() for i in range(3)]
        first = next((order for order, share in zip(ORDERS, explained, strict=True) if share >= 0.9), None)
        assert first == (None if pd.isna(row["explained_order"]) else row["explained_order"])
        doublings = [np.log2(m) for m in (1, 2, 4)]
        assert row["complexity"] == pytest.approx(np.dot(energy, doublings) / sum(energy))
    assert found["explained_order"].isna().any()
    assert found["explained_order"].nunique() > 1


def test_shares_sum_to_one_and_energies_average_to_the_variances():
    table, losses = made()
    found = measure_images(table, losses, bootstrap=50)
    assert np.allclose(found.images[SHARES].sum(axis=1), 1)
    assert found.orders["image_share"].sum() == pytest.approx(1)
    energy = (centred(table)[:, :-1] ** 2).sum(2)
    assert energy.mean(0) == pytest.approx(component_covariance(table).value.diag()[:-1].numpy(), rel=1e-5)
    assert found.images["energy"].mean() == pytest.approx(1)
    assert found.orders["images_explained"].is_monotonic_increasing
    assert found.orders["images_explained"].iloc[-1] == pytest.approx(found.images["explained_order"].notna().mean())
    for name in ("image_share", "images_explained"):
        assert (found.orders[f"{name}_low"] <= found.orders[name]).all()
        assert (found.orders[name] <= found.orders[f"{name}_high"]).all()


@pytest.mark.parametrize(("scale", "shift"), [(1e-3, 0.0), (-1.0, 5.0), (1e3, -700.0)])
def test_nothing_moves_under_another_unit_and_origin_of_the_feature(scale, shift):
    plain, moved = (measure_images(*made(scale=s, shift=b), bootstrap=50) for s, b in ((1.0, 0.0), (scale, shift)))
    for before, after in zip(plain, moved, strict=True):
        pd.testing.assert_frame_equal(before, after, rtol=1e-4)


def test_the_result_does_not_depend_on_how_rows_are_shared_out(monkeypatch):
    table, losses = made(n=300)
    whole = measure_images(table, losses, bootstrap=50).images
    stacked = table.stacked
    monkeypatch.setattr(table, "stacked", lambda batch: stacked(7))
    pd.testing.assert_frame_equal(whole, measure_images(table, losses, bootstrap=50).images, rtol=1e-10)


def test_ranks_in_a_draw_are_those_of_the_drawn_sample():
    rng = np.random.default_rng(0)
    values = rng.integers(6, size=40).astype(float)  # with ties
    other = values + rng.normal(size=40)
    weights = bootstrap_weights(40, 20, 0).double().numpy()
    for w, a, b in zip(weights, midranks(values, weights), midranks(other, weights), strict=True):
        drawn = np.repeat(np.arange(40), w.astype(int))
        ours = np.corrcoef(a[drawn], b[drawn])[0, 1]
        assert ours == pytest.approx(spearmanr(values[drawn], other[drawn]).statistic)


def test_complex_images_are_told_to_be_harder_where_they_are():
    table, losses = made()
    found = measure_images(table, losses, bootstrap=300)
    row, images = found.ranks.iloc[0], found.images
    for name, column in (("rank_correlation", "loss"), ("rank_energy", "energy")):
        assert row[name] == pytest.approx(spearmanr(images["complexity"], images[column]).statistic)
        assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]
    assert row["rank_correlation_low"] > 0
    a, b, c = row["rank_correlation"], row["rank_energy"], spearmanr(images["loss"], images["energy"]).statistic
    assert row["rank_partial"] == pytest.approx((a - b * c) / np.sqrt((1 - b**2) * (1 - c**2)))
    shuffled = measure_images(table, losses[torch.randperm(len(losses), generator=torch.Generator().manual_seed(1))])
    assert shuffled.ranks["rank_correlation_low"][0] < 0 < shuffled.ranks["rank_correlation_high"][0]


def test_what_is_not_resolved_makes_no_image_complex():
    """Noise at order 13, of another size from image to image: the ranks are those of the orders below."""
    table, losses = made()
    noisy = ComponentTable.from_tensors(
        torch.stack([*(table._source[f"c_{o:03d}"] for o in ORDERS[:2]), 9 * torch.randn(150, 4, 2, 2).double()], 1),
        table._source["residual"],
        table.labels(),
        ORDERS,
    )
    plain, read = (measure_images(t, losses, readable=(4, 7), bootstrap=50) for t in (table, noisy))
    assert np.allclose(plain.images["complexity"], read.images["complexity"])
    assert plain.images["complexity"].max() <= 1
    every = measure_images(noisy, losses, bootstrap=50)
    assert every.images["complexity"].mean() > 1.8
    assert every.ranks["rank_correlation"][0] < plain.ranks["rank_correlation"][0]


@pytest.mark.parametrize("readable", [(), (4,), (13,)])
def test_where_one_order_alone_may_be_read_no_image_is_ranked(readable):
    table, losses = made()
    found = measure_images(table, losses, readable=readable, bootstrap=50)
    assert found.ranks.drop(columns="images").isna().all(axis=None)
    assert strip_of(found.images, "abcde", lambda samples: torch.zeros(len(samples), 1, 8, 8)) is None


def test_one_loss_an_image_is_asked_for():
    table, losses = made()
    with pytest.raises(InputError, match="of 150 images; give one an image"):
        measure_images(table, losses[:3])


def test_the_strip_holds_the_ends_of_each_class():
    table, losses = made(n=33)  # six or seven of a class: all stand at one end or the other
    images = measure_images(table, losses, bootstrap=50).images
    pixels = torch.randint(256, (33, 3, 90, 70), dtype=torch.uint8)
    strip = strip_of(images, "abcde", lambda samples: pixels[samples])
    assert strip.groupby("label")["sample"].nunique().eq(6).all()
    for label, rows in strip.groupby("label"):
        own = images[images["label"] == label].sort_values("complexity")["sample"].tolist()
        ends = {end: each.sort_values("place")["sample"].tolist() for end, each in rows.groupby("end")}
        assert ends == {"simple": own[:3], "complex": own[::-1][:3]}
        assert set(rows["name"]) == {"abcde"[label]}
    assert Image.open(BytesIO(strip["png"][0])).size == (50, 64)


def test_a_thumbnail_shows_floats_and_other_channels():
    shown = np.asarray(Image.open(BytesIO(thumbnail(torch.linspace(-3, 5, 64).view(1, 8, 8)))))
    assert (shown.min(), shown.max()) == (0, 255)
    assert np.asarray(Image.open(BytesIO(thumbnail(torch.randint(256, (3, 8, 8)).byte())))).shape == (8, 8, 3)
    assert np.asarray(Image.open(BytesIO(thumbnail(torch.zeros(4, 8, 8).byte())))).shape == (8, 8)
