"""A lean part of `benchmarks.known_truth`: what depth adds is found where it is, and not where it is not."""

from __future__ import annotations

import pytest

from benchmarks.known_truth import Protocol, judged, known_net

SHORT = Protocol()._replace(blocks=(1, 2), draws=(6000, 5000))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("truth", "presented", "resolved"), [(1, None, False), (2, None, True), (2, (1, 1), False)],
    ids=["a net of order 4", "a net of order 7", "order 4 trained twice"],
)  # fmt: skip
def test_order_7_is_resolved_where_it_is_there_and_trained(digits, truth, presented, resolved):
    frame = judged(known_net(truth, digits, 0), digits, SHORT, 0, presented).set_index("order")
    assert frame.loc[4, "resolved"] == "yes"
    assert (frame.loc[7, "resolved"] == "yes") == resolved
    assert frame.loc[7, "cross_seed"] < frame.loc[7, "significance"]
