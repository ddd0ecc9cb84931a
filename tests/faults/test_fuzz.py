"""A little of `python -m tests.faults.fuzz`, with seeds of its own."""

from __future__ import annotations

import pytest

from tests.faults.fuzz import ENTRIES, fuzz

CASES = {"spec": 60, "parquet": 25, "image": 150, "checkpoint": 60, "store": 15}


@pytest.mark.parametrize("entry", ENTRIES)
def test_hostile_input_is_refused_in_a_sentence_or_does_no_harm(entry: str) -> None:
    fuzz(entry, CASES[entry], seed=1)
