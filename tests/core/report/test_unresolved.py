"""Orders that a budget does not resolve are drawn open, flagged, and called nothing by any sentence."""

from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib.colors import to_hex

from featcx_core.metrics import METRICS
from featcx_core.report.canvas import LIGHT
from featcx_core.report.facets.images import read_images
from featcx_core.report.facets.reliability import read_reliability
from featcx_core.report.facets.shapley import (
    draw_effectiveness,
    effective_words,
    overfitted_words,
    read_effectiveness,
    read_interactions,
)
from featcx_core.report.facets.significance import draw_significance, not_resolved, read_significance
from featcx_core.report.facets.width import read_width
from featcx_core.report.frames import with_resolved
from featcx_core.report.run import run_sections, summary
from featcx_core.report.section import ORDER, columns
from featcx_core.report.sweep.readings import doubts, open_orders, over_sizes
from featcx_core.report.tables import table_of
from featcx_core.studies.frames import frames_of
from featcx_core.wording import number, unresolved
from flows.cli.display import comparison_table, summary_table
from flows.showing import overview
from tests.made_frames import measured, reliability, wide
from tests.made_sweeps import made

DRAWN = {section.name: section.figure for section in run_sections()}


def resolved(*words):
    """A measured run whose orders are resolved or not, two chains sharing all of the first component and none of the last."""
    frames = measured()
    frame = frames["significance"]
    share = np.array([1.0, 0.8, 0.1, 0.0])
    frame["cross_seed"] = share * frame["significance"]
    frame["cross_seed_low"], frame["cross_seed_high"] = frame["cross_seed"] - 0.01, frame["cross_seed"] + 0.01
    for name in ("significance", "effectiveness"):
        frames[name]["resolved"] = list(words)
    return frames


def test_an_unresolved_order_is_never_ranked_and_always_flagged():
    """The most effective order is not resolved, so no sentence may call it that."""
    frames = resolved("yes", "yes", "no", "negative")
    frames["effectiveness"].loc[2, ["effectiveness", "effectiveness_low", "effectiveness_high"]] = [9.0, 8.9, 9.1]
    for reading in (read_effectiveness, effective_words, overfitted_words):
        assert not re.search(r"\b(13|25)\b", reading(frames).replace("9.0", "")), reading(frames)
    frames["image_orders"]["resolved"] = ["yes", "yes", "no", "negative"]
    assert not re.search(r"order (13|25)", read_images(frames))
    assert "complexity over orders 4 and 7" in read_images(frames)
    assert "that of order 13" not in read_significance(frames)
    assert "of those resolved (4, 7)" in read_significance(frames)
    flags = not_resolved(frames)
    assert "Order 13 is not resolved" in flags[0]
    assert "does not mean that nothing is there" in flags[0]
    assert "At order 25 the deeper net fits worse" in flags[1]
    first, second, _ = summary(frames, 7, {})
    assert "orders 4 and 7 are resolved and orders 13 and 25 are not" in first
    assert "complex" not in first
    assert "13" not in second
    assert not_resolved(resolved("yes", "yes", "yes", "yes")) == []


def test_with_no_order_resolved_nothing_is_called_anything():
    frames = resolved("no", "no", "no", "no")
    assert read_significance(frames).startswith("In this run no order is resolved")
    frames["image_orders"]["resolved"] = "no"
    assert "no image is called simple or complex" in read_images(frames)
    assert effective_words(frames) == "no order is resolved, so none is called effective"
    assert "none is resolved" in overfitted_words(frames)
    assert "no order is resolved" in summary(frames, 7, {})[0]


@pytest.mark.parametrize(
    ("plain", "equal", "says"),
    [
        ((0.1, 0.2), (0.1, 0.2), "does worse on images that are more complex"),
        ((-0.2, -0.1), (-0.2, -0.1), "does better on images that are more complex"),
        ((-0.1, 0.1), (-0.1, 0.1), "not told to be harder or easier"),
        ((0.1, 0.2), (-0.1, 0.1), "nothing is read"),
        ((-0.1, 0.1), (-0.2, -0.1), "nothing is read"),
    ],
)
def test_complex_images_are_called_harder_only_where_that_holds_at_equal_energy_too(plain, equal, says):
    frames = measured()
    for name, (low, high) in (("rank_correlation", plain), ("rank_partial", equal)):
        frames["image_ranks"][f"{name}_low"], frames["image_ranks"][f"{name}_high"] = low, high
    assert says in read_images(frames)


def test_one_chain_tells_nothing_apart():
    frames = resolved(None, None, None, None)
    frames["significance"]["cross_seed"] = np.nan
    assert "One chain of disentanglers" in not_resolved(frames)[0]


def test_bars_and_markers_of_unresolved_orders_are_open():
    frames = resolved("yes", "yes", "no", "no")
    figure = draw_significance(frames)
    bars = figure.axes[0].containers[0].patches
    paper = LIGHT.paper
    assert [to_hex(bar.get_facecolor()) == to_hex(paper) for bar in bars] == [False, False, True, True]
    assert "open (○): not resolved" in figure.get_supxlabel()
    lines = draw_effectiveness(frames).axes[0].lines
    hollow = [line for line in lines if len(line.get_xdata()) == 2 and list(line.get_xdata()) == [2, 3]]
    assert any(to_hex(line.get_markerfacecolor()) == to_hex(paper) for line in hollow)


def with_words(*words):
    """A run with reliability whose frames carry the words that significance has, as a run's do."""
    frames = resolved(*words) | reliability()
    return with_resolved({name: frame.drop(columns="resolved", errors="ignore") if name != "significance" else frame
                          for name, frame in frames.items()})  # fmt: skip


def test_every_metric_of_an_order_carries_whether_it_is_resolved():
    frames = with_words("yes", "yes", "no", None)
    for name in ("reliability", "effectiveness", "substitution"):
        assert unresolved(frames[name]).tolist() == [False, False, True, False]
    decodable = frames["decodability"].set_index(["quantity", "order"])
    assert decodable.loc[("component", 13), "resolved"] == "no"
    assert decodable.drop("component").resolved.isna().all()  # Φ and f are no components
    pairs = frames["interactions"]
    assert (unresolved(pairs) == ((pairs.a == 13) | (pairs.b == 13)).to_numpy()).all()
    rows = table_of("", frames["effectiveness"], (ORDER, *columns("effectiveness"))).rows
    assert [row[0].text for row in rows] == ["4", "7", "13 ○", "25"]
    for name in ("covariance", "interactions"):
        shown = {text.get_text() for text in DRAWN[name](frames).axes[0].get_xticklabels()}
        assert "13 ○" in shown
        assert "25" in shown


def test_decodability_and_interactions_are_read_of_resolved_orders_alone():
    frames = with_words("no", "yes", "yes", "no")
    text = read_reliability(frames)
    assert "most decodable component is that of order 7" in text  # order 4 is, but is not resolved
    assert not re.search(r"\border 4\b|\borders 4\b|\b25\b", text)
    pairs = frames["interactions"]
    pairs.loc[(pairs.a == 4) & (pairs.b == 25), "interaction"] = -9.0
    text = read_interactions(frames)
    assert "orders 7 and 13" in text
    assert "of 1 pairs of resolved orders" in text
    assert "no interaction is read" in read_interactions(with_words("yes", "no", "no", "no"))
    assert "no component is called decodable" in read_reliability(with_words("no", "no", "no", "negative"))


def test_terminal_and_ui_mark_what_the_report_draws_open():
    row = {metric.name: None for metric in METRICS} | {"order": 13, "residual_rises": False, "overfitting_ci": [0, 1],
                                                       "overfitting_stable": False}  # fmt: skip
    rows = [row | {"resolved": word} for word in ("yes", "no", "negative", None)]
    assert [shown["order"] for shown in overview(rows)] == ["13", "13 ○", "13 ○", "13"]
    cells = summary_table({"orders": rows}).columns[0].cells
    assert list(cells) == ["13", "13 ○", "13 ○", "13"]
    difference = {"metric": "cross_seed", "order": 13, "resolved": "no"} | dict.fromkeys(
        ("original", "value", "difference", "difference_low", "difference_high", "p_holm")
    )
    assert list(comparison_table({"differences": [difference]}).columns[1].cells) == ["13 ○"]


def test_a_wide_control_is_told_by_its_interval():
    for low, high, words in (
        (0.01, 0.03, "this much width does not do what depth does"),
        (-0.03, -0.01, "width does more here than depth"),
        (-0.01, 0.03, "tells neither apart"),
    ):
        frames = resolved("yes", "yes", "yes", "no") | wide(low, high)
        assert words in read_width(frames)
        assert "order 7 at twice the width (32) leaves 14.0% [12.0%, 16.0%]" in read_width(frames)
    drawn = {line.get_label(): line for line in DRAWN["wide_control"](frames).axes[0].containers}
    assert "order 7 at width 32" in drawn


def test_a_sweep_reads_no_order_that_is_not_resolved():
    """Of two seeds one does not resolve order 13: drawn open, not read, and told under its section."""
    table = made(seeds=(0, 1))
    table["resolved"] = "yes"
    table.loc[(table.order == 25) | ((table.order == 13) & (table.seed == 1)), "resolved"] = "no"
    frames, _ = frames_of(table, (), {}, 0.95)
    effective = frames["effectiveness"]
    assert (unresolved(effective) == effective.order.isin([13, 25]).to_numpy()).all()
    text = over_sizes(frames, "effectiveness", "effectiveness", number)
    assert "at order 7" in text
    assert not re.search(r"order (13|25)", text)
    assert "at order 25" in over_sizes(frames, "significance", "significance")  # whose value says how little is there
    assert open_orders(frames)[0].startswith("○: not resolved")
    assert "order 25 in 6 targets" in open_orders(frames)[0]
    assert "9 of 24 orders are not resolved" in doubts(frames, {})
    table["resolved"] = "no"
    frames, _ = frames_of(table, (), {}, 0.95)
    assert "no order is resolved" in over_sizes(frames, "effectiveness", "effectiveness", number)
