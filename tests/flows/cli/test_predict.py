"""`featcx predict` on tables whose answer is known, and on such as it cannot use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.e2e.conftest import typed


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
    done = typed("predict", tmp_path / "t.csv", "--orders", "4,7,13,25", json_file=tmp_path / "p.json")
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
    done = typed("predict", tmp_path / "t.parquet")
    assert done.code == 2
    assert sentence in done.err
