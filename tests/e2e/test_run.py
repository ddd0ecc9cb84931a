"""`featcx run` from the outside: contract, caching, determinism, bad input."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from featcx_core.analysis.components import ComponentTable
from featcx_core.store.artifacts import Store
from featcx_core.store.record import Record
from tests.e2e.conftest import LEAN, Finished, featcx, typed

ORDER_FIELDS = [
    "order",
    "blocks",
    "significance",
    "residual",
    "reliability",
    "effectiveness",
    "effectiveness_ci",
    "overfitting",
    "overfitting_ci",
    "overfitting_stable",
    "shapley_train",
    "shapley_overfit",
    "substituted_accuracy",
    "decodability",
    "decodability_ci",
    "decodability_floor",
    "reliable_share",
    "unreliable_share",
    "reliable_cross_seed",
    "unreliable_cross_seed",
    "draws",
    "residual_ci",
    "cross_seed",
    "cross_seed_ci",
    "reproducible_share",
    "gain",
    "gain_ci",
    "null",
    "resolved",
    "image_share",
    "image_share_ci",
    "images_explained",
    "images_explained_ci",
]


def test_json_keeps_the_contract(first: Finished) -> None:
    found = first.json
    assert {
        "spec",
        "report",
        "store",
        "seconds",
        "stages",
        "target",
        "orders",
        "chosen_order",
        "variants",
        "artifacts",
    } <= set(found)
    assert [row["order"] for row in found["orders"]] == [4, 7, 13]
    for row in found["orders"]:
        assert set(ORDER_FIELDS) <= set(row)
        assert row["order"] == 3 * row["blocks"] + 1
        assert all(row[name] is not None for name in ORDER_FIELDS)
        assert row["resolved"] in ("yes", "no", "negative")
        assert row["reproducible_share"] == pytest.approx(row["cross_seed"] / row["significance"])
        for name in ("cross_seed", "gain", "residual"):
            assert row[f"{name}_ci"][0] <= row[name] <= row[f"{name}_ci"][1]
    assert [row["draws"] for row in found["orders"]] == [3008, 6016, 9024]  # 6000 a depth, for two chains
    assert found["orders"][0]["gain"] == pytest.approx(1 - found["orders"][0]["residual"], abs=1e-6)
    assert set(found["target"]) == {"train_accuracy", "test_accuracy", "train_loss", "test_loss", "feature_variance"}
    assert found["chosen_order"] in (4, 7, 13)
    assert Path(found["report"]).is_file()
    assert found["stages"]["cached"] == 0


def test_images_are_told_a_row_each_and_in_sum(first: Finished) -> None:
    found, frames = first.json["images"], Record.load(Path(first.json["artifacts"]["images"])).frames
    images = frames["images"]
    names = ("rank_correlation", "rank_energy", "rank_partial")
    assert set(found) == {"images", *names, *(f"{name}_ci" for name in names)}
    assert found["images"] == len(images) == images["sample"].nunique()
    shares = images[[name for name in images if name.startswith("share_")]]
    assert np.allclose(shares.sum(axis=1), 1)
    assert [row["image_share"] for row in first.json["orders"]] == pytest.approx(shares.mean().tolist())
    assert images["loss"].mean() == pytest.approx(first.json["target"]["test_loss"], abs=1e-4)
    resolved = [row["order"] for row in first.json["orders"] if row["resolved"] == "yes"]
    assert (found["rank_correlation"] is None) == (len(resolved) < 2) == ("image_strip" not in frames)


def test_shapley_values_sum_to_the_difference_of_losses(first: Finished) -> None:
    folder = Path(first.json["artifacts"]["effectiveness"])
    ends = Record.load(folder).numbers
    total = sum(row["shapley_train"] for row in first.json["orders"])
    assert total == pytest.approx(ends["train_loss_empty"] - ends["train_loss_full"], abs=1e-5)
    assert ends["train_loss_full"] == pytest.approx(first.json["target"]["train_loss"], abs=1e-4)


def test_significance_of_the_stored_components_by_definition(first: Finished) -> None:
    table = ComponentTable.open(Path(first.json["artifacts"]["components"]) / "pool")
    maps = np.concatenate([stack.numpy() for stack, _ in table.stacked()]).astype(np.float64)
    whole = maps.sum(1).var(0).sum()
    for i, row in enumerate(first.json["orders"]):
        assert row["significance"] == pytest.approx(maps[:, i].var(0).sum() / whole, rel=1e-4)
        assert row["residual"] == pytest.approx(maps[:, i + 1 :].sum(1).var(0).sum() / whole, rel=1e-4)


def test_a_second_run_computes_nothing(first: Finished, store: Path) -> None:
    again = featcx("run", "digits", "--store", store, json_file=store.parent / "again.json")
    assert again.json["stages"] == {"run": 0, "cached": first.json["stages"]["run"]}
    assert again.json["orders"] == first.json["orders"]
    assert again.out.count("cached") >= first.json["stages"]["run"]


def test_one_changed_field_reruns_only_what_depends_on_it(first: Finished, store: Path) -> None:
    changed = featcx(
        "run",
        "digits",
        *LEAN,
        "--set",
        "analysis.bootstrap=200",
        "--store",
        store,
        json_file=store.parent / "changed.json",
    )
    ran = {line.split(":")[0].split()[0] for line in changed.out.splitlines() if ": computed" in line}
    moments = {"glance", "chains", "null", "significance", "reliability", "decodability"}
    assert ran == {*moments, "effectiveness", "substitution", "images", "figures", "report"}


def test_a_damaged_payload_is_computed_again(first: Finished, store: Path) -> None:
    folder = Path(first.json["artifacts"]["substitution"])
    before = Store(store).resolve(f"substitution/{folder.name}")["digest"]
    (folder / "substitution.parquet").write_bytes(b"broken")
    verified = typed("artifacts", "verify", "--store", store)
    assert verified.code == 1
    assert "substitution.parquet" in verified.out
    again = featcx("run", "digits", "--store", store, json_file=store.parent / "healed.json")
    assert again.json["stages"]["run"] == 1
    assert Store(store).resolve(f"substitution/{folder.name}")["digest"] == before
    assert typed("artifacts", "verify", "--store", store).code == 0


def test_artifacts_list_and_show(first: Finished, store: Path, tmp_path: Path) -> None:
    listed = typed("artifacts", "list", "--store", store, json_file=tmp_path / "list.json")
    keys = [a["key"] for a in listed.json["artifacts"] if a["stage"] == "components"]
    shown = typed("artifacts", "show", keys[0][:16], "--store", store)
    manifest = json.loads(shown.out)
    assert manifest["stage"] == "components"
    assert [len(chain) for chain in manifest["lineage"]["disentanglers"]] == [3, 3]


def test_tidy_tables_lie_beside_the_figures(first: Finished) -> None:
    report = Path(first.json["report"]).parent
    tables = list((report / "tables").glob("*.parquet"))
    assert tables
    assert all(len(pd.read_parquet(table)) for table in tables)
    assert list((report / "figures").glob("*.png"))


def test_a_store_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = featcx("run", "digits", "--store", tmp_path / "file" / "store")
    assert (done.code, "choose a folder with --store" in done.err) == (2, True)


def test_an_undecodable_image_names_file_and_row_and_leaves_nothing(tmp_path: Path) -> None:
    rng, rows = np.random.default_rng(0), []
    for i in range(60):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(buffer, "PNG")
        rows.append({"img": {"bytes": buffer.getvalue() if i != 37 else b"no image", "path": ""}, "label": i % 3})
    for split in ("train", "test"):
        pd.DataFrame(rows).to_parquet(tmp_path / f"{split}.parquet")
    source = f"dataset.source=parquet:{tmp_path}"
    done = featcx("run", "digits", "--set", source, "--set", "target.samples=30", "--store", tmp_path / "store")
    assert done.code == 2, done.err
    assert "train.parquet, row 37" in done.err
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_the_estimate_is_within_a_factor_of_two_of_the_run(first: Finished, tmp_path: Path) -> None:
    """In seconds of the processors, which other programs do not change: a device is timed in them too."""
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    planned = typed("plan", "digits", "--store", tmp_path / "s", json_file=tmp_path / "p.json", **cache)
    assert planned.code == 0, planned.err
    assert first.cpu_seconds / 2 < planned.json["device_seconds"] < first.cpu_seconds * 2
