"""A little of `python -m tests.faults.fuzz`, with seeds of its own."""

from __future__ import annotations

import struct

import pytest
from hypothesis import strategies as st

from tests.faults.fuzz import ENTRIES, clean, fuzz

CASES = {"spec": 60, "parquet": 25, "image": 150, "checkpoint": 60, "store": 15}


@pytest.mark.parametrize("entry", ENTRIES)
def test_hostile_input_is_refused_in_a_sentence_or_does_no_harm(entry: str) -> None:
    fuzz(entry, CASES[entry], seed=1)  # raises what is found


def test_what_is_no_sentence_is_a_find(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that fails on a few inputs with an error of its own is found out."""

    def entry(folder: object) -> object:
        return lambda data: clean(lambda: struct.pack("b", data.draw(st.integers(0, 200))))

    monkeypatch.setitem(ENTRIES, "spec", entry)
    with pytest.raises(struct.error):
        fuzz("spec", CASES["spec"], seed=1)
