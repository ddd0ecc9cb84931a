"""What is asked becomes a run or a sweep; what a flow finds is told, and shown where there is a UI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from featcx_core.errors import InputError
from featcx_core.specs import RunSpec, SweepSpec
from flows.analyze import analyze
from flows.asked import Asked
from flows.job import Job
from flows.planning.plan import job_of
from flows.sweep import sweep
from tasks.env import Env


def counted(shown: list[tuple[str, dict[str, Any]]]) -> Job[RunSpec]:
    def check(spec: RunSpec, store: Path) -> None:
        if spec.seed == 3:
            raise InputError("No third seed.")

    return Job(
        "counted",
        title=lambda spec: f"seed {spec.seed}",
        check=check,
        stages=lambda submit, spec: None,
        body=lambda spec, env: {"seed": spec.seed},
        show=lambda name, results: shown.append((name, results)),
    )


@pytest.mark.parametrize("shown", [False, True])
def test_results_are_left_in_the_ui_where_there_is_one(tmp_path: Path, shown: bool) -> None:
    left = list[tuple[str, dict[str, Any]]]()
    env = Env(store=str(tmp_path), run="one", shown=shown)
    results = counted(left).within(RunSpec(seed=2), env, "seed 2")
    assert results["seed"] == 2
    assert results["seconds"] >= 0
    assert left == ([("seed 2", results)] if shown else [])


def test_what_cannot_run_begins_no_flow(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No third seed"):
        counted([])(RunSpec(seed=3), tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("axis", [{"sizes": "50,100"}, {"archs": "resnet8"}, {"seeds": "0,1"}, {"over": ["seed=1"]}])
def test_any_axis_makes_a_sweep(axis: dict[str, Any]) -> None:
    asked = Asked("digits", None, ["disentangler.width=4"], **axis)
    spec = asked.either()
    assert isinstance(spec, SweepSpec)
    assert spec == asked.sweep()
    assert spec.runtime == spec.base.runtime
    assert spec.base.disentangler.width == 4
    assert spec.base.variants.pruned is None
    assert job_of(spec) is sweep


def test_none_makes_a_run_with_the_presets_variants() -> None:
    spec = Asked("digits", None, ["disentangler.width=4"]).either()
    assert isinstance(spec, RunSpec)
    assert spec.variants.pruned is not None
    assert job_of(spec) is analyze


def test_a_file_changes_the_preset_and_options_the_file(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("seed = 4\n[disentangler]\nwidth = 6\n")
    spec = Asked("digits", tmp_path / "own.toml", ["disentangler.width=5"]).run()
    assert (spec.seed, spec.disentangler.width) == (4, 5)
