"""`featcx plan`: what it says of a store against what a run then does, and its time against the run's."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from featcx_core.analysis.components import ComponentTable
from featcx_core.data.sources import image_shape, load_dataset
from featcx_core.game.sampling import sampled_shapley_values
from featcx_core.game.values import EXACT_PLAYERS, coalition_losses
from featcx_core.specs import DatasetSpec, Numerics, ScheduleSpec
from featcx_core.store.artifacts import ArtifactRef, Store
from flows.analyze import analyze
from flows.cli.plan import announce
from flows.planning import plan
from flows.planning.calibration import Rates, Timed, kind, label
from flows.planning.cost import Net, Step
from flows.planning.costs import load_of
from flows.planning.differences import code_change, differences, nearest_difference
from flows.planning.loads import Load, Table, Trained, Work, counted
from flows.planning.plan import Planned, Planner, estimate, estimated, is_open, rates_here
from flows.planning.schedule import side_by_side
from flows.settings import load_spec
from tasks import train
from tasks.engine import Stage, checkpoint_folder
from tests.e2e.conftest import LEAN, TINY, Finished, featcx, typed

SETTINGS = DatasetSpec(source="digits")


def files(store: Path) -> dict[str, tuple[int, int]]:
    """Everything under a store, with sizes and times of change."""
    found = {str(path): path.stat() for path in store.rglob("*")}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}


def target_arguments(data: ArtifactRef, draws: int = 12_000) -> dict[str, Any]:
    own = {"net": "resnet8", "layer": None, "pre_relu": None, "options": {}, "weights": None, "code": None}
    own |= {"layout": None, "preprocess": "auto", "allow_chance": False}
    seeds = {"samples": 200, "subset_seed": 1, "seed": 2}
    return {"data": data, "schedule": ScheduleSpec(draws=draws), "numerics": Numerics()} | own | seeds


def publish(store: Store, stage: Stage, arguments: dict[str, Any]) -> ArtifactRef:
    """An artifact with this key and a small file for a payload."""

    def fill(folder: Path) -> dict[str, Any]:
        (folder / "payload").write_text(stage.name)
        return {**stage.key_parts(arguments), "lineage": {}, "label": stage.describe(arguments), "started": "2026"}

    return store.publish(stage.name, stage.key(arguments), fill)


def test_states_and_reasons_of_a_small_store(tmp_path: Path) -> None:
    store, own = Store(tmp_path / "store"), {"settings": SETTINGS, "files": None}

    def looked(draws: int = 12_000) -> list[tuple[str, str]]:
        planner = Planner(store)
        data = planner(train.data, **own)
        target = planner(train.target, **target_arguments(data, draws))
        assert is_open(target) == (planner.stages[1].state != "hit")
        planner(train.target, "again", **target_arguments(data, draws))  # the same stage counts once
        return [(stage.state, stage.why) for stage in planner.stages]

    assert looked() == [("miss", "first of its kind"), ("open", "waits for data")]
    assert not store.root.exists()
    data = publish(store, train.data, own)
    assert looked() == [("hit", ""), ("miss", "first of its kind")]
    publish(store, train.target, target_arguments(data))
    assert looked() == [("hit", ""), ("hit", "")]
    assert looked(6000)[1] == ("miss", "schedule.draws 12000 → 6000")
    key = train.target.key(target_arguments(data, 6000))
    checkpoint_folder(store, "target", key).mkdir(parents=True)
    assert looked(6000)[1] == ("miss", "schedule.draws 12000 → 6000, resumes from a checkpoint")
    (store.path(data) / "payload").write_text("damaged")
    assert looked() == [("miss", "the stored one is damaged"), ("open", "waits for data")]


def test_the_nearest_artifact_has_fewest_differences_then_is_newest() -> None:
    spec = {"seed": 0, "schedule": {"draws": 100, "lr": 1e-3}, "layer": None}
    parts = {"spec": spec, "inputs": {"data": "a", "target": "b"}, "code": "x"}

    def stored(**changes: Any) -> dict[str, Any]:
        return {"key": "k"} | parts | changes

    two = stored(code="y", spec=spec | {"schedule": {"draws": 50, "lr": 1e-3}})
    assert nearest_difference(parts, "new", [two]) == "schedule.draws 50 → 100; the code changed"
    older, newer = stored(spec=spec | {"seed": 1}), stored(spec=spec | {"seed": 2})
    assert nearest_difference(parts, "new", [older, newer, two]) == "seed 2 → 0"
    inputs = stored(inputs={"data": "a", "target": "c"}, spec=spec | {"layer": "stages.1"})
    assert nearest_difference(parts, "new", [inputs]) == "layer stages.1 → none; input target differs"
    bare, given = stored(spec=spec | {"weights": None}), stored(inputs=parts["inputs"] | {"weights": "w"})
    assert nearest_difference(given, "new", [bare]) == "weights none → given"
    assert nearest_difference(bare, "new", [given]) == "weights given → none"
    other = stored(inputs=parts["inputs"] | {"weights": "v"})
    assert nearest_difference(given, "new", [other]) == "input weights differs"
    all_of_it = stored(code="y", inputs={"data": "z", "target": "c"}, spec=spec | {"seed": 3})
    assert nearest_difference(parts, "new", [all_of_it]).endswith("; and 1 more")


def test_the_files_whose_code_changed_are_named() -> None:
    old = {"featcx_core/fit.py": "a", "featcx_core/seeds.py": "b", "tasks/train.py": "c", "featcx_core/gone.py": "d"}
    new = {"featcx_core/training/fit.py": "e", "featcx_core/seeds.py": "b", "tasks/train.py": "f"}
    assert code_change(old, new) == "training/fit.py, tasks/train.py, fit.py and 1 more changed"
    moved = {"featcx_core/training/fit.py": "a", "featcx_core/seeds.py": "z", "tasks/train.py": "c"}
    assert code_change(old | {"featcx_core/gone.py": "a"}, moved) == "seeds.py changed"  # that it moved is no change
    assert code_change({}, new) == "the code changed"
    parts = {"spec": {}, "inputs": {}}
    assert differences(parts | {"code": "x", "modules": old}, parts | {"code": "y", "modules": new})[0].startswith(
        "training/fit.py"
    )


def test_devices_side_by_side_in_closed_form() -> None:
    def stage(seconds: float, *inputs: int, computes: bool = True) -> Planned:
        return Planned("s", "s", "", "miss", "", Load(), inputs, computes, seconds)

    chain = [stage(1), stage(2, 0), stage(3, 1)]
    assert side_by_side(chain, 4, 1.5) == 6
    alike = [stage(2) for _ in range(7)]
    assert [side_by_side(alike, places, 1.0) for places in (1, 2, 7)] == [14, 8, 2]
    assert side_by_side(alike, 2, 1.5) == 3 * 2 * 1.5 + 2  # the last one runs alone, at full speed
    assert side_by_side([stage(5), stage(4, computes=False), stage(1)], 1, 1.0) == 6  # drawing holds no device
    assert side_by_side([stage(0), stage(1, 0)], 1, 1.0) == 1


def test_a_step_that_was_timed_takes_what_it_took_and_others_follow_in_proportion() -> None:
    step = Step(
        Net.of("disentangler", blocks=1, in_shape=(3, 32, 32), out_shape=(64, 8, 8), width=64), (), (3, 32, 32), 64
    )
    rates, work = Rates("here", "cpu", 1), Work(10, step)
    guess = rates.seconds(work)
    count = counted(work)
    took = (count.flops, count.traffic, count.kernels, guess / 10 * 3)
    rates.timed[label(step)] = Timed(kind(step), *took)
    assert rates.seconds(work) == pytest.approx(3 * guess)
    double = Work(10, step._replace(batch=128))
    assert 1.5 < rates.seconds(double) / rates.seconds(work) <= 2
    granted = Rates.taken_for_granted(2.0)
    assert granted.seconds(work) == pytest.approx(max(10 * count.flops / 2e12, 10 * count.kernels * 5e-6))


def test_an_estimate_needs_a_device_that_was_timed_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    spec = load_spec("digits")
    assert estimate(analyze, spec, tmp_path / "store") is None
    rates, _ = rates_here(spec)
    step = Step(Net.of("target", net="resnet8", in_shape=(1, 8, 8), classes=10), (), (1, 8, 8), 64, "adam")
    count = counted(Work(1, step))

    def seconds_with(a_step: float) -> float:
        rates.timed[label(step)] = Timed(kind(step), count.flops, count.traffic, count.kernels, a_step)
        rates.keep()
        return estimate(analyze, spec, tmp_path / "store") or 0.0

    assert seconds_with(0.1) > 2 * seconds_with(0.01) > 20
    assert not (tmp_path / "store").exists()


def test_the_whole_is_the_sum_of_its_stages() -> None:
    rates = Rates.taken_for_granted(1.0)
    step = Step(
        Net.of("disentangler", blocks=1, in_shape=(3, 32, 32), out_shape=(64, 8, 8), width=64), (), (3, 32, 32), 64
    )
    load = Load((Work(5, step),), 1.0, 10.0, 3.0)
    stages = [Planned("a", "a", "", "hit", "", load, (), True), Planned("b", "b", "", "open", "", load, (0,), True)]
    found = estimated(stages, rates, 1)
    assert [s.seconds for s in found.stages] == [0, 1 + rates.seconds(load.work[0])]
    told = found.as_dict()
    assert (told["hit"], told["open"], told["disk_bytes"], told["memory_bytes"]) == (1, 1, 3, 10)
    assert told["flops"] == load.flops > 0
    assert found.seconds == found.device_seconds > found.stages[1].seconds


@pytest.mark.parametrize("source", ["digits", "mnist"])
def test_image_shapes_are_known_without_reading(source: str) -> None:
    spec = DatasetSpec(source=source)
    assert image_shape(spec) == load_dataset(spec).shape


def png(size: tuple[int, int], mode: str = "RGB") -> bytes:
    """A black image, width × height."""
    file = io.BytesIO()
    Image.new(mode, size).save(file, "PNG")
    return file.getvalue()


def write_parquet(folder: Path, blobs: list[bytes], kind: str, name: str = "") -> None:
    """Training and test files of one class with this kind of image column; `name` tells shards apart."""
    folder.mkdir(exist_ok=True)
    stored = pa.large_binary() if kind == "large binary" else pa.binary()
    images = pa.array(blobs, stored) if "binary" in kind else [{"bytes": blob, "path": None} for blob in blobs]
    first = (
        {"box": pa.array([{"x": 1}] * len(blobs), pa.struct([("x", pa.int64())]))} if kind == "after a struct" else {}
    )
    if "binary" not in kind:
        images = pa.array(images, pa.struct([("bytes", stored), ("path", pa.string())]))
    table = pa.table(first | {"label": pa.array([0] * len(blobs), pa.int64()), "image": images})
    for split in ("train", "test"):
        pq.write_table(table, folder / f"{split}{name}.parquet")


@pytest.mark.parametrize("kind", ["struct", "binary", "large binary", "after a struct", "empty first shard"])
def test_the_shape_of_images_in_parquet(kind: str, tmp_path: Path) -> None:
    if kind == "empty first shard":
        write_parquet(tmp_path, [], kind, "-0")
    write_parquet(tmp_path, [png((12, 10))] * 2, kind, "-1")
    spec = DatasetSpec(source=f"parquet:{tmp_path}")
    assert image_shape(spec) == load_dataset(spec).shape == (3, 10, 12)
    smaller = spec.model_copy(update={"size": 9})
    assert image_shape(smaller) == load_dataset(smaller).shape == (3, 9, 9)


@pytest.mark.parametrize(("size", "shape"), [(None, (1, 8, 9)), (16, (1, 16, 16))])
def test_the_shape_of_images_in_folders(size: int | None, shape: tuple[int, int, int], tmp_path: Path) -> None:
    for split in ("train", "test"):
        folder = tmp_path / split / "cat"
        folder.mkdir(parents=True)
        for name in "ab":
            (folder / f"{name}.png").write_bytes(png((9, 8), "L"))
    spec = DatasetSpec(source=f"folder:{tmp_path}", size=size)
    assert image_shape(spec) == load_dataset(spec).shape == shape


def test_a_first_image_that_cannot_be_decoded_is_refused_in_a_sentence(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data", [b"no image"] * 200, "binary")
    preset = ["digits", "--set", f"dataset.source=parquet:{tmp_path / 'data'}", "--set", "target.samples=20"]
    done = typed("plan", *preset, "--store", tmp_path / "s")
    assert (done.code, "Traceback" in done.err) == (2, False)
    assert "train.parquet, row 0: the image cannot be decoded" in " ".join(done.err.split())


class Counting(nn.Module):
    """A head that keeps how many features it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        self.rows += len(feature)
        return feature.flatten(1)


@pytest.mark.parametrize("players", [5, EXACT_PLAYERS, EXACT_PLAYERS + 1, 24])
def test_shapley_values_of_any_number_of_orders_against_what_the_head_is_given(players: int) -> None:
    n, shape, head = 2, (64, 1, 1), Counting().eval()
    maps, rows = torch.randn(n, players, *shape), torch.arange(n)
    table = ComponentTable.from_tensors(maps, torch.randn(n, *shape), rows, range(1, players + 1))
    exact = players <= EXACT_PLAYERS
    made = [coalition_losses(table, head)] if exact else [*sampled_shapley_values(table, head)]
    net = Trained(Net.of("target", net="resnet8", in_shape=(1, 8, 8), classes=10), Net("feature", "{}"), shape, 20)
    sizes = Table(players, shape, {"seen": n, "test": n})
    load = load_of("shapley", {"components": sizes, "target": net, "split": "seen", "part": 0})
    steps = [work for work in load.work if isinstance(work.what, Step)]
    assert sum(work.times * work.what.batch for work in steps) == pytest.approx(head.rows)
    assert load.disk == sum(tensor.nbytes for tensor in made)
    after = load_of("effectiveness", {"components": sizes, "settings": load_spec("digits").analysis})
    assert after.memory > sum(tensor.nbytes for tensor in made)
    assert exact or (after.flops < 1e7 and after.memory < 1e8)  # no table of 2^L


def test_an_estimate_that_fails_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> float:
        raise StopIteration

    console = Console(record=True, file=io.StringIO())
    monkeypatch.setattr(plan, "estimate", broken)
    announce(console, analyze, load_spec("digits"), tmp_path / "store")
    assert "About" not in console.export_text()
    monkeypatch.setattr(plan, "estimate", lambda *_: 120.0)
    announce(console, analyze, load_spec("digits"), tmp_path / "store")
    assert "About 2.0 min" in console.export_text()


@pytest.mark.slow
def test_the_plan_of_a_run_is_what_the_run_does(tmp_path: Path) -> None:
    store, arguments = tmp_path / "store", ["digits", *LEAN, *TINY]

    def plan(*more: str) -> Finished:
        done = typed("plan", *arguments, *more, "--store", store, json_file=tmp_path / "p.json", XDG_CACHE_HOME=cache)
        assert done.code == 0, done.err
        return done

    cache = str(tmp_path / "cache")
    fresh = plan().json
    assert (fresh["hit"], fresh["miss"]) == (0, 1)
    assert not store.exists()
    ran = featcx("run", *arguments, "--store", store, json_file=tmp_path / "r.json")
    assert ran.json["stages"]["run"] == fresh["open"] + 1, ran.err
    before = files(store)
    again = plan().json
    assert (again["hit"], again["miss"], again["open"]) == (ran.json["stages"]["run"], 0, 0)
    assert again["flops"] == 0
    changed = plan("--set", "analysis.bootstrap=300").json
    assert files(store) == before
    todo = [stage for stage in changed["stages"] if stage["state"] != "hit"]
    states = {stage["stage"]: (stage["state"], stage["why"]) for stage in todo}
    assert states == {
        **dict.fromkeys(("chains", "substitution", "decodability"), ("miss", "settings.bootstrap 200 → 300")),
        "significance": ("open", "waits for chains, nulls"),
        "reliability": ("open", "waits for chains"),
        "effectiveness": ("open", "waits for significance"),
        "images": ("open", "waits for significance, substitution"),
        "figures": ("open", "waits for nodes"),
        "report": ("open", "waits for networks, figures"),
    }
    more = featcx("run", *arguments, "--set", "analysis.bootstrap=300", "--store", store, json_file=tmp_path / "c.json")
    assert more.json["stages"]["run"] == len(todo)


def test_published_settings_are_planned_in_seconds(tmp_path: Path) -> None:
    """Eight seconds on two cores of a Zen 5, half of it to time the device; slower processors get twice as many."""
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = typed("plan", "cifar10-paper", "--store", tmp_path / "s", json_file=tmp_path / "p.json", **cache)
    assert done.code == 0, done.err
    assert done.cpu_seconds < 20
    found = done.json
    assert 1e18 < found["flops"] < 3e18
    trained = {s["label"]: s["flops"] for s in found["stages"] if s["stage"] == "disentangler"}
    per_image = (
        2 * 3 * (3 * 128 * 9 * 1024 + 128 * 128 * 9 * 1024 + 128 * 256 * 9 * 256 + 256 * 512 * 9 * 64 + 512 * 64 * 64)
    )
    assert trained["disentangler m1"] == pytest.approx(1e6 * per_image, rel=0.08)  # beside the target's forward pass
    assert not (tmp_path / "s").exists()


def test_a_grid_on_devices_that_are_not_here(tmp_path: Path) -> None:
    grid = ["cifar10-paper", "--archs", "resnet8,resnet20", "--sizes", "200,2000", "--rate", "100"]
    one, eight = (
        typed("plan", *grid, "--devices", n, "--store", tmp_path / "s", json_file=tmp_path / f"{n}.json").json
        for n in ("1", "8")
    )
    assert one["flops"] == eight["flops"] > 1e18
    assert one["seconds"] >= one["flops"] / 100e12
    assert one["seconds"] / 8 <= eight["seconds"] < one["seconds"] / 2
    labels = [stage["label"] for stage in one["stages"] if stage["stage"] == "target"]
    assert len(labels) == 4 + 2  # four targets, two exemplary nets for all
