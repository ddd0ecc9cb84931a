"""What a stored run is good for: export, comparison, prediction."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.e2e.conftest import LEAN, Finished, featcx


def test_an_exported_network_has_the_reported_accuracy(first: Finished, store: Path, tmp_path: Path) -> None:
    key = Path(first.json["artifacts"]["report"]).name
    done = featcx("export", key[:16], tmp_path / "net", "--store", store)
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
    again = featcx("export", key[:16], tmp_path / "net", "--store", store)
    assert (again.code, "is not empty" in again.err) == (2, True)


@pytest.mark.slow
def test_two_runs_compare(first: Finished, store: Path, tmp_path: Path) -> None:
    other = featcx("run", "digits", *LEAN, "--set", "seed=1", "--store", store, json_file=tmp_path / "other.json")
    assert other.code == 0, other.err
    a, b = (Path(run.json["artifacts"]["report"]).name for run in (first, other))
    done = featcx("compare", a[:20], b[:20], "--store", store, json_file=tmp_path / "c.json")
    assert done.code == 0, done.err
    values = {(row["metric"], row["order"]): row for row in done.json["differences"]}
    for mine, theirs in zip(first.json["orders"], other.json["orders"], strict=True):
        for metric in ("significance", "effectiveness", "decodability"):
            difference = values[metric, mine["order"]]["difference"]
            assert difference == pytest.approx(theirs[metric] - mine[metric])
    assert Path(done.json["figure"]).is_file()
    same = featcx("compare", a[:20], a[:20], "--store", store)
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


def prediction_table(rng: np.random.Generator, targets: int = 25) -> pd.DataFrame:
    """Accuracy that is linear in the shares, in the layout of a sweep's table."""
    rows = []
    for t in range(targets):
        shares = rng.uniform(0, 0.3, (4, 2))
        accuracy = 0.4 + shares.sum() * 0.2
        described = {"target": f"t{t}", "arch": f"a{t % 5}", "samples": 200 * 2 ** (t // 5), "seed": 0}
        for order, (good, bad) in zip((4, 7, 13, 25), shares, strict=True):
            found = {"reliable_share": good, "unreliable_share": bad, "test_accuracy": accuracy, "test_loss": 1.0}
            rows.append(described | {"order": order} | found)
    return pd.DataFrame(rows)


def test_predict_on_a_table_whose_answer_is_known(tmp_path: Path) -> None:
    prediction_table(np.random.default_rng(0)).to_csv(tmp_path / "t.csv", index=False)
    done = featcx("predict", tmp_path / "t.csv", "--orders", "4,7,13,25", json_file=tmp_path / "p.json")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "p.json").read_text())
    assert (found["rows"], found["predictors"]) == (25, 8)
    for part in ("published", "leave_one_out", "by_arch", "by_samples"):
        assert found[part]["r2"] == pytest.approx(1)
    assert found["combined"]["leave_one_out_r2"] == pytest.approx(1)
    seen = "import sys, flows.cli.display, flows.results, featcx_core.studies.prediction"
    loaded = f"{seen}; print({{'prefect', 'torch'}} & {{*sys.modules}})"
    assert (
        subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout == "set()\n"
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.drop(columns="reliable_share"), "reliable_share"),
        (lambda t: t[t.target.isin([f"t{i}" for i in range(5)])], "targets"),
        (lambda t: t.assign(unreliable_share=0.1), "The same for every target"),
    ],
)
def test_predict_refuses_what_it_cannot_use(change, sentence: str, tmp_path: Path) -> None:
    change(prediction_table(np.random.default_rng(0))).to_parquet(tmp_path / "t.parquet")
    done = featcx("predict", tmp_path / "t.parquet")
    assert done.code == 2
    assert sentence in done.err
