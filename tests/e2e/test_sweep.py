"""`featcx sweep` from the outside: shared stages, kill and resume, one size more, failed points, bad input."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from featcx_core.store.artifacts import Store
from tests.e2e.conftest import TINY, UNJUDGED, Finished, clean_environment, featcx, typed

SEEDS = ("--seeds", "0,1")


def sweep(store: Path, *arguments: str, name: str = "sweep", **environment: str) -> Finished:
    json_file = store.parent / f"{name}.json"
    return featcx("sweep", "digits", *TINY, *UNJUDGED, *arguments, "--store", store, json_file=json_file, **environment)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweep") / "store"


@pytest.fixture(scope="module")
def killed(place: Path) -> set[str]:
    """A sweep that was killed half-way: what it had finished, as stage/key."""
    command = [sys.executable, "-m", "flows.cli", "sweep", "digits", *TINY, *UNJUDGED, "--sizes", "40", *SEEDS]
    with subprocess.Popen(
        [*command, "--store", str(place)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=clean_environment(),
        start_new_session=True,
    ) as process:
        while not list(place.glob("components/*/manifest.json")):
            assert process.poll() is None
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)  # its Prefect server too
    return {f"{m['stage']}/{m['key']}" for m in Store(place).manifests()}


@pytest.fixture(scope="module")
def resumed(place: Path, killed: set[str]) -> Finished:
    done = sweep(place, "--sizes", "40", *SEEDS)
    assert done.code == 0, done.err + done.out
    return done


@pytest.mark.slow
def test_a_killed_sweep_recomputes_nothing_that_was_finished(place: Path, killed: set[str], resumed: Finished) -> None:
    every = {f"{m['stage']}/{m['key']}" for m in Store(place).manifests()}
    assert killed < every
    assert resumed.json["stages"] == {"run": len(every - killed), "cached": len(killed)}


@pytest.mark.slow
def test_shared_stages_appear_once(place: Path, resumed: Finished) -> None:
    labels = [m["label"] for m in Store(place).manifests()]
    assert labels.count("data digits") == 1
    assert labels.count("target resnet8 whole pool") == 2  # exemplary A and B
    assert sum(label.startswith("target resnet8 n=") for label in labels) == 2


@pytest.mark.slow
def test_the_resumed_sweep_equals_an_unbroken_one(place: Path, resumed: Finished, tmp_path: Path) -> None:
    whole = sweep(tmp_path / "whole", "--sizes", "40", *SEEDS, PYTHONHASHSEED="3")
    assert whole.code == 0, whole.err
    a, b = ({(m["stage"], m["key"]): m["digest"] for m in Store(s).manifests()} for s in (place, tmp_path / "whole"))
    assert b.items() <= a.items()
    assert any(stage == "sweep_report" for stage, _ in b)
    pages = [Path(done.json["report"]).read_text().partition("Provenance")[0] for done in (resumed, whole)]
    assert pages[0] == pages[1]


@pytest.mark.slow
def test_one_size_more_runs_only_its_own_stages(place: Path, resumed: Finished) -> None:
    more = sweep(place, "--sizes", "40,80", *SEEDS, name="more")
    assert more.code == 0, more.err
    ran = [line.split(":")[0] for line in more.out.splitlines() if ": computed" in line]
    assert len(ran) == more.json["stages"]["run"]
    assert {line.split()[0] for line in ran} == {"resnet8-n80-s0", "resnet8-n80-s1", "sweep_report"}
    names = [f"resnet8-n{n}-s{seed}" for n, seed in itertools.product((40, 80), (0, 1))]
    assert [point["name"] for point in more.json["points"]] == names
    predicted = typed("predict", more.json["table"], "--orders", "4", json_file=place.parent / "fit.json")
    assert predicted.code == 0, predicted.err
    assert predicted.json["rows"] == 4


@pytest.mark.slow
def test_json_and_table_keep_the_contract(resumed: Finished) -> None:
    found = resumed.json
    assert {"points", "table", "stages", "report"} <= set(found)
    assert Path(found["report"]).is_file()
    assert [point["name"] for point in found["points"]] == ["resnet8-n40-s0", "resnet8-n40-s1"]
    table = pd.read_parquet(found["table"])
    assert {"target", "arch", "samples", "seed", "order", "reliable_share", "unreliable_share", "test_accuracy"} <= set(
        table
    )
    assert len(table) == 2 * 2
    for point in found["points"]:
        assert Path(point["report"]).is_file()
        own = table[table.target == point["name"]].set_index("order")
        for row in point["orders"]:
            assert own.at[row["order"], "significance"] == pytest.approx(row["significance"])
            assert own.at[row["order"], "test_accuracy"] == pytest.approx(point["target"]["test_accuracy"])


@pytest.mark.slow
def test_a_failed_point_is_reported_and_stops_no_other(tmp_path: Path) -> None:
    (tmp_path / "fragile_nets.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, classes, breaks):\n"
        "        super().__init__()\n"
        "        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU())\n"
        "        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))\n"
        "        self.breaks = breaks\n"
        "    def forward(self, x):\n"
        "        if self.training and self.breaks:\n"
        "            raise RuntimeError('this net does not train')\n"
        "        return self.head(self.body(x))\n"
    )
    done = sweep(
        tmp_path / "store",
        *("--set", "target.net=fragile_nets:Net", "--set", "target.layer=body", "--set", "reliability.enabled=false"),
        *("--over", "target.options=[{breaks=false},{breaks=true}]"),
        *("--sizes", "40"),
        PYTHONPATH=str(tmp_path),
        FEATCX_ALLOW_IMPORTS="fragile_nets",
    )
    assert done.code == 1, done.err
    assert len(done.json["points"]) == 1
    (reason,) = done.json["failed"].values()
    assert "this net does not train" in reason
    assert reason in done.err
    assert "this net does not train" in Path(done.json["report"]).read_text()
