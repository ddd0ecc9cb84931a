"""`featcx complexity` from the outside: contract, caching, bad input."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from featcx_core.analysis.tasknet import TaskNet
from featcx_core.data.images import Dataset
from featcx_core.nets.disentangler import Disentangler
from featcx_core.nets.kinds import load_network
from featcx_core.store.artifacts import Store
from featcx_core.store.record import Record
from tests.e2e.conftest import Finished, featcx

TINY = {
    "complexity.depths": "0,3",
    "complexity.seeds": "0,7",
    "complexity.blocks": "1",
    "complexity.schedule.draws": "640",
    "disentangler.blocks": "1,2",
    "disentangler.schedule.draws": "640",
    "analysis.bootstrap": "200",
}


def check(store: Path, name: str = "", **changed: str) -> Finished:
    settings = [part for field, value in (TINY | changed).items() for part in ("--set", f"{field}={value}")]
    return featcx(
        "complexity", "digits", *settings, "--device", "cpu", "--store", store, json_file=store.parent / f"{name}.json"
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("complexity") / "store"


@pytest.fixture(scope="module")
def tiny(place: Path) -> Finished:
    done = check(place, "first")
    assert done.code == 0, done.err + done.out
    return done


@pytest.mark.slow
def test_json_keeps_the_contract(tiny: Finished) -> None:
    found = tiny.json
    assert {"rank_correlation", "rank_correlation_ci", "seeds", "tasks", "report", "stages", "seconds"} <= set(found)
    assert -1 <= found["rank_correlation_ci"][0] <= found["rank_correlation"] <= found["rank_correlation_ci"][1] <= 1
    assert found["seeds"] == [0, 7]
    assert [(task["n"], task["seed"]) for task in found["tasks"]] == [(0, 0), (0, 7), (3, 0), (3, 7)]
    for task in found["tasks"]:
        assert isinstance(task["learner_r2"], float)
        assert [row["order"] for row in task["orders"]] == [4, 7]
        for row in task["orders"]:
            assert row["std_ratio"] == pytest.approx(row["variance_ratio"] ** 0.5)
        published = [row["published_std_ratio"] for row in task["orders"]]
        assert published == ([0.995, 0.053] if task["n"] == 0 else [None, None])
    # data, four times (learner, two chains of two disentanglers, weights), report
    assert found["stages"] == {"run": 1 + 4 * 6 + 1, "cached": 0}


@pytest.mark.slow
def test_the_report_stands_on_its_own_beside_its_tables(tiny: Finished) -> None:
    page = Path(tiny.json["report"])
    text = page.read_text()
    assert "rank correlation" in text
    assert 'src="http' not in text
    frame = pd.read_parquet(page.parent / "tables" / "tasks.parquet")
    assert len(frame) == 2 * 2 * 2
    assert {"n", "seed", "order", "std_ratio", "variance_ratio", "learner_r2", "published_std_ratio"} <= set(frame)
    assert len(list((page.parent / "figures").glob("*.png"))) == 2


@pytest.mark.slow
def test_r2_of_the_stored_nets_by_definition(tiny: Finished, place: Path) -> None:
    manifests = Store(place).manifests()
    (data,) = (m for m in manifests if m["stage"] == "data")
    dataset = Dataset.load(place / "data" / data["key"])
    for manifest in (m for m in manifests if m["stage"] == "task_learner"):
        folder = place / "task_learner" / manifest["key"]
        task, learner = load_network(folder / "task", TaskNet), load_network(folder, Disentangler)
        with torch.no_grad():
            images = dataset.normalise(dataset.test_images)
            wanted, missed = task(images).double(), (task(images) - learner(images)).double()
        r2 = 1 - missed.var(0, correction=0).sum() / wanted.var(0, correction=0).sum()
        scores = Record.load(folder).numbers["scores"]
        assert scores["r2"] == pytest.approx(float(r2), abs=1e-3)


@pytest.mark.slow
def test_another_seed_computes_its_own_nets_alone(tiny: Finished, place: Path) -> None:
    more = check(place, "more", **{"complexity.seeds": "0,7,8"})
    assert more.json["stages"] == {"run": 2 * 6 + 1, "cached": 1 + 4 * 6}
    kept = [task for task in more.json["tasks"] if task["seed"] != 8]
    assert kept == tiny.json["tasks"]
