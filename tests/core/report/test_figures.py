"""Figures against the tables that they draw, and their files byte for byte."""

import io
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from PIL import Image

from featcx_core.report.canvas import DARK, LIGHT
from featcx_core.report.facets.substitution import draw_substitution
from featcx_core.report.figure_files import save, svg
from featcx_core.report.run import run_sections
from tests.made_frames import ORDERS, measured, reliability, troubled, wide

FIGURES = {section.name: section.figure for section in run_sections() if section.name != "comparison"}
NAMES = list(FIGURES)
NAMESPACES = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def draw(name, frames, theme=LIGHT):
    return FIGURES[name](frames, theme, coverage=0.95)


def line(axis, label):
    """The line of a labelled series with whiskers, or of a plain plot."""
    for container in axis.containers:
        if container.get_label() == label:
            return container[0]
    return next(found for found in axis.lines if found.get_label() == label)


def labels(figure):
    legends = [*figure.legends, *(axis.get_legend() for axis in figure.axes if axis.get_legend())]
    return [text.get_text() for legend in legends for text in legend.get_texts()]


@pytest.fixture(params=["measured", "troubled"])
def frames(request):
    return {"measured": {**measured(), **reliability(), **wide()}, "troubled": troubled() | wide()}[request.param]


@pytest.mark.parametrize("name", NAMES)
def test_files_are_the_same_each_time_and_refer_to_nothing_outside(name, frames, tmp_path):
    first, second = (save(FIGURES[name], frames, tmp_path / part, name, 0.95) for part in "ab")
    assert [path.name for path in first] == [f"{name}.svg", f"{name}-dark.svg", f"{name}.png"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert first.light.read_bytes() != first.dark.read_bytes()
    for path in (first.light, first.dark):
        text = path.read_text()
        assert set(re.findall(r"\w+://[^\"'\s<]+", text)) <= NAMESPACES
        assert "DOCTYPE" not in text
        assert "<metadata" not in text
    with Image.open(first.png) as image:
        assert image.width == round(200 * FIGURES[name](frames).get_figwidth())
        assert set(image.info) == {"dpi"}


@pytest.mark.parametrize("name", NAMES)
def test_the_dark_file_is_what_the_dark_theme_draws(name, frames, tmp_path):
    """But for the names of marks, which are made of their colours."""

    def anonymous(text):
        return re.sub(rb"\b[a-z]+[0-9a-f]{10}\b", b"", text)

    picture = save(FIGURES[name], frames, tmp_path, name, 0.95)
    assert anonymous(picture.dark.read_bytes()) == anonymous(svg(draw(name, frames, DARK)))


def test_threads_draw_the_same_as_one_alone_and_leave_matplotlib_as_it_was():
    frames, before = {**measured(), **reliability(), **wide()}, dict(matplotlib.rcParams)
    alone = [svg(draw(name, frames)) for name in NAMES]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda name: svg(draw(name, frames)), NAMES))
    assert together == alone
    assert dict(matplotlib.rcParams) == before


def test_no_pyplot():
    code = "import sys, featcx_core.report.run; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_colours_stand_out_from_the_paper(theme):
    def luminance(colour):
        parts = np.array(to_rgb(colour))
        return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    def contrast(colour):
        bright, dim = sorted([luminance(colour), luminance(theme.paper)], reverse=True)
        return (bright + 0.05) / (dim + 0.05)

    assert min(contrast(colour) for colour in (theme.ink, theme.muted, theme.alarm)) >= 4.5
    assert min(contrast(colour) for colour in theme.series) >= 3


@pytest.mark.parametrize("name", NAMES)
def test_texts_lie_within_the_figure_and_legends_off_the_data(name, frames):
    figure = draw(name, frames)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    parts = [*figure.axes, *figure.legends, *figure.texts, *(text for axis in figure.axes for text in axis.texts)]
    for part in parts:
        box = part.get_tightbbox(renderer)
        assert figure.bbox.x0 - 1 <= box.x0, part
        assert box.x1 <= figure.bbox.x1 + 1, part
        assert figure.bbox.y0 - 1 <= box.y0, part
        assert box.y1 <= figure.bbox.y1 + 1, part
    for axis in figure.axes:
        legends = [*figure.legends, *([axis.get_legend()] if axis.get_legend() else [])]
        for legend in legends:
            assert legend.get_window_extent(renderer).y0 >= axis.bbox.y1 - 8


@pytest.mark.parametrize("name", NAMES)
def test_n_and_coverage_are_told(name):
    figure = draw(name, {**measured(), **reliability(), **wide()})
    foot = figure.get_supxlabel()
    assert foot.startswith("n = ")
    whiskers = name not in ("residuals", "covariance", "substitution", "image_strip")
    assert ("95% bootstrap" in foot) == whiskers


def test_significance_draws_shares_and_what_is_explained(frames):
    frame = frames["significance"]
    (axis,) = draw("significance", frames).axes
    np.testing.assert_allclose([bar.get_height() for bar in axis.patches], frame["significance"])
    explained = line(axis, "explained up to this order (1 − residual)")
    np.testing.assert_allclose(explained.get_ydata(), 1 - frame["residual"])
    ends = np.array([segment[:, 1] for segment in axis.collections[0].get_segments()])
    np.testing.assert_allclose(ends, frame[["significance_low", "significance_high"]])
    assert [tick.get_text() for tick in axis.get_xticklabels()] == [str(order) for order in frame["order"]]
    flagged = [mark for mark in axis.lines if str(mark.get_label()).startswith("residual rises")]
    assert [x for mark in flagged for x in mark.get_xdata()] == list(np.flatnonzero(frame["residual_rises"]))


def test_residuals_ring_the_flagged_gaps_only(frames):
    frame = frames["splits"]
    upper, lower = draw("residuals", frames).axes
    for split in ("pool", "seen", "validation", "test"):
        rows = frame[frame["split"] == split]
        np.testing.assert_allclose(line(upper, split).get_ydata(), rows["residual"])
        if split != "test":
            np.testing.assert_allclose(line(lower, split).get_ydata(), rows["gap"])
    ringed = [y for found in lower.lines if found.get_label() == "flagged" for y in found.get_ydata()]
    np.testing.assert_allclose(sorted(ringed), sorted(frame[frame["gap_flag"]]["gap"]))


def test_residuals_without_test_images_have_one_panel():
    frames = measured()
    frame = frames["splits"]
    frames["splits"] = frame[frame["split"] != "test"].drop(columns=["gap", "gap_flag"])
    assert len(draw("residuals", frames).axes) == 1


def test_covariance_shows_each_pair_on_a_symmetric_scale(frames):
    frame = frames["covariance"]
    axis = draw("covariance", frames).axes[0]
    values = np.asarray(axis.images[0].get_array())
    np.testing.assert_allclose(values.ravel(), 100 * frame["covariance"])  # rows of the frame run over a, then b
    low, high = axis.images[0].get_clim()
    assert -low == high == pytest.approx(100 * frame["covariance"].abs().max())
    shown = [float(text.get_text().replace("−", "-")) for text in axis.texts]
    np.testing.assert_allclose(shown, values.ravel(), atol=0.0501)


def test_shapley_puts_seen_beside_test(frames):
    frame = frames["effectiveness"]
    (axis,) = draw("shapley", frames).axes
    seen, test = (c for c in axis.containers if c.get_label() in ("seen images", "test images"))
    np.testing.assert_allclose([bar.get_height() for bar in seen], frame["shapley_train"])
    np.testing.assert_allclose([bar.get_height() for bar in test], frame["shapley_test"])
    assert all(a.get_x() + a.get_width() <= b.get_x() for a, b in zip(seen, test, strict=True))


def test_effectiveness_draws_values_with_intervals(frames):
    frame = frames["effectiveness"]
    (axis,) = draw("effectiveness", frames).axes
    np.testing.assert_allclose(axis.containers[0][0].get_ydata(), frame["effectiveness"])
    ends = np.array([segment[:, 1] for segment in axis.containers[0][2][0].get_segments()])
    np.testing.assert_allclose(ends, frame[["effectiveness_low", "effectiveness_high"]])


def test_overfitting_draws_what_is_unstable_open_and_says_so():
    frames = troubled()
    figure = draw("overfitting", frames)
    (axis,) = figure.axes
    np.testing.assert_allclose(line(axis, "stable").get_ydata(), frames["effectiveness"]["overfitting"][:3])
    low, high = axis.get_ylim()
    assert high < 0.3  # order 49 has −200%, order 25 has 60%
    assert low > -0.2
    open_ = [mark for mark in axis.lines if mark.get_marker() in ("^", "v") and len(mark.get_xdata())]
    assert [(mark.get_marker(), float(mark.get_xdata()[0])) for mark in open_] == [("^", 3), ("v", 4)]
    assert {to_hex(mark.get_markerfacecolor()) for mark in open_} == {LIGHT.paper}
    bars = [mark for mark in axis.lines if len(mark.get_xdata()) == 2 and mark.get_color() == LIGHT.alarm]
    assert [mark.get_linestyle() for mark in bars] == ["-", "--"]
    np.testing.assert_allclose(bars[1].get_ydata(), axis.get_ylim())
    texts = [text.get_text() for text in axis.texts]
    assert any(text.startswith("no reading") for text in texts)
    assert {"60%", "−200%"} <= set(texts)
    assert any("unstable" in text and "unbounded" in text for text in labels(figure))


def test_overfitting_that_is_all_stable_needs_no_legend():
    frames = troubled()
    frames["effectiveness"] = frames["effectiveness"][:3]
    assert labels(draw("overfitting", frames)) == []


def test_overfitting_where_nothing_is_stable_is_still_drawn():
    frames = troubled()
    frames["effectiveness"] = frames["effectiveness"][3:].reset_index(drop=True)
    assert svg(draw("overfitting", frames))


def test_substitution_marks_the_chosen_order_against_the_feature_itself(frames):
    frame, own = frames["substitution"], frames["substitution_splits"].set_index("split")["accuracy"]["test"]
    figure = draw("substitution", frames)
    (axis,) = figure.axes
    test, validation = line(axis, "Φ, test"), line(axis, "Φ, validation")
    np.testing.assert_allclose(test.get_ydata(), frame["substituted_accuracy"])
    np.testing.assert_allclose(validation.get_ydata(), frame["validation_accuracy"])
    assert validation.get_linewidth() < test.get_linewidth()
    level = next(mark for mark in axis.lines if str(mark.get_label()).startswith("f itself"))
    np.testing.assert_allclose(level.get_ydata(), own)
    best = int(frame["validation_accuracy"].to_numpy().argmax())
    ring = next(mark for mark in axis.lines if str(mark.get_label()).startswith("chosen"))
    assert f"order {frame['order'][best]}," in ring.get_label()
    np.testing.assert_allclose(ring.get_xydata(), [[best, frame["substituted_accuracy"][best]]])


def test_substitution_marks_the_order_it_is_told():
    (axis,) = draw_substitution(troubled(), LIGHT, chosen=25).axes
    ring = next(mark for mark in axis.lines if str(mark.get_label()).startswith("chosen"))
    np.testing.assert_allclose(ring.get_xydata(), [[3, 0.581]])


def test_reliability_stands_beside_decodability_with_floors():
    frames = reliability()
    left, right = draw("reliability", frames).axes
    ratio = line(left, "reliability ratio (fit × shrinkage)")
    np.testing.assert_allclose(ratio.get_ydata(), frames["reliability"]["reliability"])
    ringed = [mark for mark in left.lines if str(mark.get_label()).startswith("above 1")]
    np.testing.assert_allclose([mark.get_xydata() for mark in ringed], [[[3, 1.31]]])
    frame = frames["decodability"]
    component = frame[frame["quantity"] == "component"]
    np.testing.assert_allclose(line(right, "component c").get_ydata(), component["decodability"])
    floor = line(right, "component c: floor (untrained nets)")
    np.testing.assert_allclose(floor.get_ydata(), component["floor"])
    assert to_hex(floor.get_markerfacecolor()) == LIGHT.paper
    np.testing.assert_allclose(line(right, "feature f").get_ydata(), 0.6)
    assert [tick.get_text() for tick in right.get_xticklabels()] == [str(order) for order in ORDERS]


@pytest.mark.parametrize("name", ["reliability", "decodability"])
def test_reliability_draws_the_one_panel_there_is(name):
    assert len(draw("reliability", {name: reliability()[name]}).axes) == 1


def test_images_draws_shares_and_what_is_explained(frames):
    frame = frames["image_orders"]
    (axis,) = draw("images", frames).axes
    np.testing.assert_allclose([bar.get_height() for bar in axis.patches], frame["image_share"])
    explained = line(axis, "of test images: Φ explains 90% of the feature")
    np.testing.assert_allclose(explained.get_ydata(), frame["images_explained"])


def test_the_strip_puts_the_simplest_first_and_the_most_complex_last():
    frames = measured()
    strip = frames["image_strip"].sort_values("label", kind="stable")
    (axis,) = draw("image_strip", frames).axes
    shown = sorted(axis.images, key=lambda image: (round(image.get_extent()[0], 3), image.get_extent()[3]))
    wanted = strip.assign(down=np.where(strip["end"] == "simple", strip["place"], 9 - strip["place"]))
    for image, row in zip(shown, wanted.sort_values(["label", "down"]).to_dict("records"), strict=True):
        np.testing.assert_array_equal(image.get_array(), np.asarray(Image.open(io.BytesIO(row["png"]))))
