"""Orders that a budget does not resolve are drawn open, flagged, and called nothing by any sentence."""

from __future__ import annotations

import re

import numpy as np
from matplotlib.colors import to_hex

from featcx_core.report.canvas import LIGHT
from featcx_core.report.facets.shapley import draw_effectiveness, effective_words, overfitted_words, read_effectiveness
from featcx_core.report.facets.significance import draw_significance, not_resolved, read_significance
from featcx_core.report.run import summary
from tests.made_frames import measured


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
    assert effective_words(frames) == "no order is resolved, so none is called effective"
    assert "none is resolved" in overfitted_words(frames)
    assert "no order is resolved" in summary(frames, 7, {})[0]


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
    assert "open: not resolved" in figure.get_supxlabel()
    lines = draw_effectiveness(frames).axes[0].lines
    hollow = [line for line in lines if len(line.get_xdata()) == 2 and list(line.get_xdata()) == [2, 3]]
    assert any(to_hex(line.get_markerfacecolor()) == to_hex(paper) for line in hollow)
