"""A store that cannot be written serves what it has, and says what it lacks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from featcx_core.errors import InputError
from flows.analyze import analyze
from flows.asked import Asked
from flows.recipes import whole_run
from flows.running.preflight import check_store, numerics_for
from flows.running.submitting import Reader, new_env
from tests.e2e.conftest import Finished


def listing(folder: Path) -> dict[Path, int]:
    """All files of a folder and when they changed."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.slow
def test_a_read_only_store_serves_hits_and_refuses_the_rest(
    store: Path, first: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a mount that is read-only, where `access` says no, which binds the superuser too."""
    there, access = listing(store), os.access

    def read_only(path: Any, mode: int, **how: Any) -> bool:
        return access(path, mode, **how) and not (mode & os.W_OK and Path(path).is_relative_to(store))

    monkeypatch.setattr(os, "access", read_only)
    check_store(store)
    spec = Asked("digits", None, []).run()
    results = analyze.within(spec, new_env(spec, store), "again")
    assert results["orders"] == first.json["orders"]
    assert results["report"] == first.json["report"]
    assert results["stages"] == {"run": 0, "cached": first.json["stages"]["run"]}
    other = Asked("digits", None, ["seed=7"]).run()
    with pytest.raises(InputError, match=r"cannot be written, and target resnet8 n=200 is not in it; make it writable"):
        analyze.within(other, new_env(other, store), "another")
    assert listing(store) == there
    # As of a sweep's point, and of what a pruning leaves: all is there but the first table's own significance.
    glance = whole_run(Reader(new_env(spec, store)), spec, numerics_for(spec)).glance["significance"].result()
    place, hidden = store / glance.path, store.parent / "hidden"
    place.rename(hidden)
    try:
        again = analyze.within(spec, new_env(spec, store), "without a glance")
    finally:
        hidden.rename(place)
    assert again["orders"] == first.json["orders"]
    assert again["stages"] == {"run": 0, "cached": first.json["stages"]["run"] - 2}
