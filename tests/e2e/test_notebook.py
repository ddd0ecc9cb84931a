"""A run and a network in hand are one pipeline: the same numbers to the last digit."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import featcx_core as fx
from featcx_core.data.images import Dataset
from featcx_core.store.record import Record
from flows.notebook import BATCHES, SCHEDULE
from tests.e2e.conftest import LEAN, TINY, featcx


def test_analyze_and_run_agree_to_the_last_digit(tmp_path: Path) -> None:
    same = {name: json.dumps(value) for name, value in SCHEDULE.model_dump(mode="json").items() if name != "draws"}
    settings = [f"disentangler.schedule.{name}={value}" for name, value in same.items()]
    settings += [f"disentangler.batches={','.join(map(str, BATCHES))}", "disentangler.width=4"]
    settings += ["disentangler.schedule.draws=640", "reliability.enabled=false"]
    sets = [argument for setting in settings for argument in ("--set", setting)]
    run = featcx("run", "digits", *TINY, *LEAN, *sets, "--store", tmp_path / "store", json_file=tmp_path / "run.json")
    assert run.code == 0, run.err + run.out
    folder = {stage: Path(path) for stage, path in run.json["artifacts"].items()}
    target = fx.load_network(folder["target"])
    (data,) = (Dataset.load(path) for path in (tmp_path / "store" / "data").iterdir())
    found = fx.analyze(
        target.model,
        "stages.2",
        data.train_images,
        data.train_labels,
        test=(data.test_images, data.test_labels),
        seen=Record.load(folder["target"]).tensors["seen"]["seen"],
        pre_relu=True,
        orders=(4, 7),
        draws=640,
        width=4,
        rows=60,
        bootstrap=200,
        crop=data.crop,
        flip=data.flip,
        progress=False,
        store=tmp_path / "kept",
    )
    assert json.loads(found.orders.to_json(orient="records", double_precision=15)) == json.loads(
        pd.DataFrame(run.json["orders"]).to_json(orient="records", double_precision=15)
    )
    assert found.scores == run.json["target"]
    assert found.chosen_order == run.json["chosen_order"]
    opened = fx.open_run(tmp_path / "store")
    pd.testing.assert_frame_equal(opened.orders, found.orders)
    assert opened.scores == found.scores
    for order, net in found.disentanglers.items():
        theirs = opened.disentanglers[order].state_dict()
        assert len(net.nets) == 2
        assert all(value.equal(theirs[name]) for name, value in net.state_dict().items())
    pd.testing.assert_frame_equal(opened.images, found.images)
    assert "<img " in opened._repr_html_()
    kept = fx.open_run(tmp_path / "kept")
    assert type(kept) is type(opened) is fx.Analysis
    assert (kept.title, kept.notes, kept.settings) == (found.title, found.notes, found.settings)
    for name, frame in found.frames.items():
        pd.testing.assert_frame_equal(kept.frames[name], frame)
    with pytest.raises(fx.InputError, match="no finished run"):
        fx.open_run(tmp_path / "elsewhere")
