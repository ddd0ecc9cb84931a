"""What a stored run is good for: export, comparison, prediction."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.e2e.conftest import LEAN, UNJUDGED, Finished, featcx, typed


def test_an_exported_network_has_the_reported_accuracy(first: Finished, store: Path, tmp_path: Path) -> None:
    key = Path(first.json["artifacts"]["report"]).name
    done = typed("export", key[:16], tmp_path / "net", "--store", store)
    assert done.code == 0, done.err
    script = """
import sys, torch, featcx_core
net = featcx_core.load_network(sys.argv[1])
data = featcx_core.load_dataset(featcx_core.DatasetSpec(source="digits"))
with torch.no_grad():
    right = (net(data.test_images).argmax(1) == data.test_labels).sum()
print(int(right) / len(data.test_labels))
"""
    fresh = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "net"], capture_output=True, text=True, check=False
    )
    assert fresh.returncode == 0, fresh.stderr
    chosen = {row["order"]: row["substituted_accuracy"] for row in first.json["orders"]}[first.json["chosen_order"]]
    assert float(fresh.stdout) == chosen
    assert repr(chosen) in done.out
    again = typed("export", key[:16], tmp_path / "net", "--store", store)
    assert (again.code, "is not empty" in again.err) == (2, True)


@pytest.mark.slow
def test_two_runs_compare(first: Finished, store: Path, tmp_path: Path) -> None:
    other = featcx(
        "run", "digits", *LEAN, *UNJUDGED, "--set", "seed=1", "--store", store, json_file=tmp_path / "other.json"
    )
    assert other.code == 0, other.err
    a, b = (Path(run.json["artifacts"]["report"]).name for run in (first, other))
    done = featcx("compare", a[:20], b[:20], "--store", store, json_file=tmp_path / "c.json")
    assert done.code == 0, done.err
    values = {(row["metric"], row["order"]): row for row in done.json["differences"]}
    for mine, theirs in zip(first.json["orders"], other.json["orders"], strict=True):
        for metric in ("cross_seed", "effectiveness", "decodability"):
            difference = values[metric, mine["order"]]["difference"]
            assert difference == pytest.approx(theirs[metric] - mine[metric])
    assert Path(done.json["figure"]).is_file()
    same = typed("compare", a[:20], a[:20], "--store", store)
    assert (same.code, "same target" in same.err) == (2, True)


def test_variants_are_in_the_json_and_paired(first: Finished) -> None:
    assert list(first.json["variants"]) == ["distilled", "pruned", "quantised"]
    for variant in first.json["variants"].values():
        assert [row["order"] for row in variant["orders"]] == [4, 7, 13]
        assert variant["target"]["test_accuracy"] > 0.5
    frame = pd.read_parquet(Path(first.json["artifacts"]["comparison"]) / "comparison.parquet")
    known = frame.dropna()
    assert len(known) > 30
    assert (known.difference_low <= known.difference).all()
    assert (known.difference <= known.difference_high).all()
    assert (known.p_holm >= known.p).all()
    assert set(first.json["control"]["gain"]) == {"gain", "low", "high", "won", "lost", "p"}
