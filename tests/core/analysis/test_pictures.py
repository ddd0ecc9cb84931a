"""Pictures against plain loops over the components, their figures against the maps, and the report's slider."""

import base64
import json
import re
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from PIL import Image
from torch import nn

from featcx_core.analysis.components import ComponentTable, extract
from featcx_core.analysis.pictures import Pictures, limit_of, make_pictures, shares_by_position, spread, unexplained
from featcx_core.report.canvas import DARK, LIGHT
from featcx_core.report.facets import maps as figures_pictures
from featcx_core.report.facets import pictures as report_pictures
from featcx_core.report.figure_files import save
from featcx_core.report.run import write_report
from tests.made_frames import measured

CLASSES = 4


class Says(nn.Module):
    """A head whose answer is the number that a feature holds in its first element."""

    def forward(self, feature):
        return nn.functional.one_hot(feature[:, 0, 0, 0].round().long(), 10).float()


def made(n=40, orders=(4, 7, 13), shape=(5, 3, 4), classes=CLASSES, image=(3, 8, 8), right=None, labels=None, seed=0):
    """A data set, its components with the head's answers in them, and the head."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes if labels is None else labels
    right = torch.rand(n, generator=rng) < 0.5 if right is None else right
    maps = torch.randn(n, len(orders) + 1, *shape, generator=rng)
    answers = torch.where(right, labels, (labels + 1) % classes)
    maps[:, -1, 0, 0, 0] += answers - maps.sum(1)[:, 0, 0, 0]
    images = torch.randint(256, (n + 5, *image), generator=rng, dtype=torch.uint8)
    data = SimpleNamespace(
        test_images=images, file=None, classes=tuple(f"class {k}" for k in range(classes)), shape=image
    )
    table = ComponentTable.from_tensors(maps[:, :-1], maps[:, -1], labels, orders)
    table._source["sample"] = torch.arange(n) + 5  # numbers in the data set differ from rows
    return data, table, right


def pictures(**options):
    data, table, _ = made(**options)
    return make_pictures(data, table, Says())


def whole(table):
    """Maps (n, L + 1, C, H, W) and labels, read at once."""
    return next(iter(table.stacked(len(table))))


def test_images_are_right_and_wrong_in_turn_the_first_of_their_class():
    right = torch.tensor([1, 0, 1, 1, 0, 1, 0, 0, 1, 0, 0, 1, 1, 1], dtype=torch.bool)
    labels = torch.tensor([3, 3, 1, 1, 1, 0, 0, 4, 4, 5, 5, 6, 7, 8])
    found = pictures(n=14, classes=10, labels=labels, right=right)
    # 0 right, 1 wrong, 3 right, 4 wrong, 5 has no right one, 6 no wrong one; 2 has no image, 7 and 8 come too late
    assert [s - 5 for s in found.samples] == [5, 4, 0, 7, 9, 11]
    assert found.labels == (0, 1, 3, 4, 5, 6)
    assert found.correct == (True, False, True, False, False, True)


def test_maps_are_those_of_the_most_positive_channel():
    data, table, right = made(n=300)  # over more than one batch
    found = make_pictures(data, table, Says())
    rows = [s - 5 for s in found.samples]
    maps, labels = whole(table)
    feature = maps[rows].sum(1)
    counts = [int((feature[:, c] > 0).sum()) for c in range(5)]
    assert found.channel == int(np.argmax(counts))
    own = maps[rows][:, :, found.channel]
    torch.testing.assert_close(found.components, own[:, :-1])
    torch.testing.assert_close(found.residual, own[:, -1])
    torch.testing.assert_close(found.feature, own.sum(1))
    for i in range(3):
        torch.testing.assert_close(found.phi[:, i], own[:, : i + 1].sum(1))
    torch.testing.assert_close(found.phi[:, -1] + found.residual, found.feature)
    assert torch.equal(found.images, data.test_images[list(found.samples)])
    assert found.labels == tuple(labels[rows].tolist())
    assert found.correct == tuple(right[rows].tolist())


def test_energy_and_mean_inputs_by_their_definitions():
    data, table, _ = made(n=300)
    found = make_pictures(data, table, Says())
    maps, labels = whole(table)
    energy = (maps.double() ** 2).sum(2)
    for k in range(CLASSES):
        torch.testing.assert_close(found.energy[k].double(), energy[labels == k].mean(0), rtol=1e-6, atol=0)
        mean = data.test_images[5:][labels == k].double().mean(0)
        assert (found.means[1 + k] - mean).abs().max() <= 0.5 + 1e-4
    assert found.rows == tuple(torch.bincount(labels).tolist())
    shares = shares_by_position(found)
    torch.testing.assert_close(shares.sum((2, 3)), torch.ones(CLASSES + 1, 4, dtype=torch.float64))
    of_all = energy.mean(0)
    torch.testing.assert_close(shares[0], of_all / of_all.sum((1, 2), keepdim=True), rtol=1e-6, atol=0)


def test_spread_is_one_where_even_and_one_position_where_not():
    found = pictures()
    energy = torch.zeros_like(found.energy)
    energy[:, 0] = 2.0
    energy[:, 1, 1, 2] = 3.0
    values = spread(replace(found, energy=energy))
    torch.testing.assert_close(values, torch.tensor([1, 1 / 12, 0, 0], dtype=torch.float64))


def test_what_is_unexplained_is_a_share_of_the_squared_value():
    found = pictures()
    missing = found.feature.double() - found.phi[:, 1].double()
    assert float(unexplained(found)[1]) == pytest.approx(
        float((missing**2).sum() / (found.feature.double() ** 2).sum())
    )


def test_the_limit_leaves_one_value_in_a_hundred_outside():
    found = pictures()
    parts = (found.feature, found.phi, found.components, found.residual)
    values = np.abs(np.concatenate([part.numpy().ravel() for part in parts]))
    limit = limit_of(found)
    assert (values > limit).mean() == pytest.approx(0.01, abs=1 / len(values))
    assert limit in values


def test_parts_of_a_parquet_table_give_what_a_table_in_memory_does(tmp_path):
    data, table, _ = made(n=40)
    maps, labels = whole(table)
    lookup = {4: maps[:, 0], 7: maps[:, :2].sum(1), 13: maps[:, :3].sum(1)}
    at = {"row": 0}

    def feature(x):  # images stand for rows, batch after batch
        at["rows"] = slice(at["row"], at["row"] + len(x))
        at["row"] += len(x)
        return maps.sum(1)[at["rows"]]

    extract(
        feature, {order: lambda x, phi=phi: phi[at["rows"]] for order, phi in lookup.items()},
        data.test_images[5:], labels, torch.arange(40) + 5, tmp_path,
        normalise=lambda x: x.float(), device=torch.device("cpu"), part_rows=17,
    )  # fmt: skip
    stored, direct = (make_pictures(data, t, Says()) for t in (ComponentTable.open(tmp_path), table))
    assert stored.samples == direct.samples
    assert stored.channel == direct.channel
    torch.testing.assert_close(stored.phi, direct.phi)
    torch.testing.assert_close(stored.energy, direct.energy)


def test_float_images_are_shown_in_their_own_range():
    data, table, _ = made()
    bytes_ = make_pictures(data, table, Says())
    data.test_images = data.test_images.float() / 51 - 2
    data.test_images[5:7, 0, 0, 0] = torch.tensor([-2.0, 3.0])  # of the images shown the darkest and the brightest
    found = make_pictures(data, table, Says())
    assert found.images.dtype == found.means.dtype == torch.uint8
    assert (found.images.int() - bytes_.images.int()).abs().float().mean() < 3


def test_saved_and_loaded_they_are_the_same(tmp_path):
    found = pictures()
    found.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["numbers.json", "pictures.safetensors"]
    again = Pictures.load(tmp_path)
    for field in fields(Pictures):
        mine, stored = getattr(found, field.name), getattr(again, field.name)
        assert torch.equal(mine, stored) if isinstance(mine, torch.Tensor) else mine == stored


SIZES = {
    "one order": {"orders": (4,)},
    "six orders": {"orders": (4, 7, 13, 25, 49, 97)},
    "fourteen orders": {"orders": tuple(range(4, 46, 3))},
    "one class": {"classes": 1, "right": torch.ones(40, dtype=torch.bool)},
    "large grey images": {"image": (1, 224, 160)},
    "tall maps": {"shape": (2, 7, 3)},
}


@pytest.mark.parametrize("draw", [figures_pictures.maps, figures_pictures.energy])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_everything_lies_within_the_figure_and_no_two_texts_overlap(draw, size, theme):
    figure = draw(pictures(**SIZES[size]), theme)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    boxes = []
    for text in [*figure.axes[0].texts, *figure.axes[1].get_xticklabels(), figure.axes[1].xaxis.label]:
        box = text.get_window_extent(renderer)
        assert figure.bbox.x0 <= box.x0, text
        assert box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0, text
        assert box.y1 <= figure.bbox.y1, text
        assert not any(box.overlaps(other) for other in boxes), text
        boxes.append(box)
    for image in figure.axes[0].images:
        left, right = image.get_extent()[:2]
        assert figure.axes[0].get_xlim()[0] <= left < right <= figure.axes[0].get_xlim()[1]


def test_the_grid_shows_each_map_once_on_one_symmetric_scale():
    found = pictures()
    figure = figures_pictures.maps(found)
    shown = [image for image in figure.axes[0].images if image.get_cmap().name != "gray"]
    assert {image.get_clim() for image in shown} == {(-limit_of(found), limit_of(found))}
    expected = [found.feature, *found.phi.unbind(1), *found.components.unbind(1), found.residual]
    for image, values in zip(shown, [m for column in expected for m in column], strict=True):
        np.testing.assert_array_equal(np.asarray(image.get_array()), values.numpy())
    lefts = [image.get_extent()[0] for image in figure.axes[0].images]
    assert lefts == sorted(lefts)
    published = figures_pictures.maps(found, limits="published")
    assert {image.get_clim() for image in published.axes[0].images[4:]} == {(-1.0, 1.0)}
    assert "as published" in published.axes[1].get_xlabel()


def test_the_energy_figure_shows_shares_relative_to_an_even_spread():
    found = pictures()
    shown = [i for i in figures_pictures.energy(found).axes[0].images if i.get_cmap().name != "gray"]
    expected = shares_by_position(found) * 12
    assert len(shown) == (1 + CLASSES) * 4
    for image, values in zip(shown, expected.flatten(0, 1), strict=True):
        np.testing.assert_allclose(np.asarray(image.get_array()), values.numpy())


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_the_colours_are_the_papers_at_zero_and_darker_or_lighter_away_from_it(theme):
    colours = figures_pictures.diverging(theme)
    np.testing.assert_allclose(colours(0.5)[:3], to_rgb(theme.paper), atol=0.02)
    distance = [np.linalg.norm(np.array(colours(x)[:3]) - to_rgb(theme.paper)) for x in np.linspace(0, 1, 21)]
    assert distance == sorted(distance[:11], reverse=True) + sorted(distance[11:])


def test_an_input_keeps_its_pixels_and_a_large_one_is_made_small():
    grey = torch.randint(256, (1, 8, 8), dtype=torch.uint8)
    np.testing.assert_array_equal(np.asarray(figures_pictures.input_image(grey)), grey[0].numpy())
    colour = torch.randint(256, (3, 8, 8), dtype=torch.uint8)
    np.testing.assert_array_equal(np.asarray(figures_pictures.input_image(colour)), colour.permute(1, 2, 0).numpy())
    assert figures_pictures.input_image(torch.zeros(3, 224, 112, dtype=torch.uint8)).size == (64, 128)


def test_files_are_the_same_each_time_and_refer_to_nothing_outside(tmp_path):
    found = pictures()
    for name in ("maps", "energy"):
        draw = getattr(figures_pictures, name)
        drawn = lambda frames, theme, coverage=None, draw=draw: draw(found, theme)  # noqa: E731
        first, second = (save(drawn, {}, tmp_path / part, name) for part in "ab")
        for one, other in zip(first, second, strict=True):
            assert one.read_bytes() == other.read_bytes()
        text = first.light.read_text()
        assert set(re.findall(r"\w+://[^\"'\s<]+", text)) <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
        }
        assert "pixelated" in text
        with Image.open(first.png) as image:
            assert image.width >= 600


def test_the_slider_holds_phi_of_each_order_then_f_and_says_what_is_explained():
    found = pictures(orders=(4, 7, 13, 25))
    frames = measured()
    widget = report_pictures.slider(found, frames)
    maps = [np.frombuffer(base64.b64decode(text), "<f4").reshape(5, 3, 4) for text in widget["data"]["maps"]]
    np.testing.assert_array_equal(np.stack(maps)[:, :4], found.phi.numpy())
    np.testing.assert_array_equal(np.stack(maps)[:, 4], found.feature.numpy())
    assert widget["data"]["limit"] == limit_of(found)
    residuals = frames["significance"]["residual"]
    for i, (step, residual) in enumerate(zip(widget["data"]["steps"], residuals, strict=True)):
        assert step.startswith(f"Order {found.orders[i]} ({i + 1} of 4): {100 * (1 - residual):.1f}% [")
    bare = report_pictures.slider(found, {})["data"]["steps"]
    assert bare[0] == "Order 4 (1 of 4)"


@pytest.mark.parametrize("size", SIZES)
def test_readings_are_single_sentences(size):
    found = pictures(**SIZES[size])
    for text in (report_pictures.read_maps(found), report_pictures.read_energy(found)):
        assert text.startswith("In this run ")
        assert len(re.findall(r"\.(?=\s|$)", text)) == 1


def test_the_report_shows_stored_pictures_and_none_without(tmp_path):
    pictures(orders=(4, 7, 13, 25)).save(tmp_path)
    common = {"title": "t", "spec": {}, "provenance": [], "scores": {}, "notes": {}, "chosen_order": None}
    analyses = {"target": measured(), "pruned": measured()}
    path = write_report(tmp_path / "with", analyses, pictures={"target": tmp_path, "pruned": tmp_path}, **common)
    page = path.read_text()
    for anchor in ("maps", "energy", "pruned-maps", "pruned-energy"):
        assert f'<section id="{anchor}">' in page
        assert (tmp_path / "with" / "figures" / f"{anchor}.png").exists()
    assert page.index('id="maps"') < page.index('id="significance"') < page.index('id="pruned-maps"')
    data = [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', page)]
    assert [len(part["maps"]) for part in data] == [CLASSES, CLASSES]
    again = write_report(tmp_path / "again", analyses, pictures={"target": tmp_path, "pruned": tmp_path}, **common)
    assert again.read_bytes() == path.read_bytes()
    without = write_report(tmp_path / "without", analyses, **common).read_text()
    assert 'id="maps"' not in without


@pytest.mark.parametrize("channels", [1, 3])
def test_images_that_a_net_takes_as_floats_are_shown_in_their_own_range(channels):
    data, table, _ = made(image=(channels, 8, 8))
    data.test_images = torch.randn(len(data.test_images), channels, 8, 8)
    found = make_pictures(data, table, Says())
    assert (found.images.dtype, found.means.dtype) == (torch.uint8, torch.uint8)
    assert (int(found.images.min()), int(found.images.max())) == (0, 255)
    report_pictures.maps.maps(found)
