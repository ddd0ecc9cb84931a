"""`featcx status` and `featcx open`: what runs, and the page of what has run."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path

import pytest

from featcx_core.store.artifacts import Store
from flows.cli import main
from tasks.env import Env
from tasks.progress import Progress, early_results, tell_early


@pytest.fixture
def typed(tmp_path, monkeypatch, capsys):
    """Types a command on a store in this process: its exit code and what it says."""

    def run(*arguments: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["featcx", *arguments, "--store", str(tmp_path / "store")])
        with pytest.raises(SystemExit) as left:
            main()
        told = capsys.readouterr()
        return left.value.code, told.out + told.err

    return run


def publish(store: Store, stage: str, key: str, file: str) -> None:
    def fill(folder: Path) -> dict[str, object]:
        (folder / file).write_text("words")
        return {"label": stage, "seconds": 0.0, "started": "2026-11-26T12:00:00+00:00", "device": "CPU"}

    store.publish(stage, key, fill)


def test_status_tells_of_runs_that_are_alive(typed, tmp_path):
    store = Store(tmp_path / "store")
    lease = store.lease("r1")
    for run in ("r1", "ended"):
        env = Env(store=str(store.root), run=run)
        Progress(env, "target", "a", "target resnet8").finish(computed=True)
        Progress(env, "trunk", "b", "trunk m1").note("running", 30, 100, "loss 0.1")
        Progress(env, "trunk", "c", "trunk m2").note("waiting")
    code, told = typed("status")
    assert (code or 0) == 0
    assert "r1: 1 computed, 1 running, 1 waiting" in told
    assert "trunk m1" in told
    assert "30%" in told
    assert "ended" not in told
    lease.close()
    assert "Nothing runs in" in typed("status")[1]


def test_open_shows_the_newest_report_or_the_one_that_is_named(typed, tmp_path, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda page: bool(opened.append(page)) or True)
    store = Store(tmp_path / "store")
    code, told = typed("open")
    assert code == 2
    assert "There is no report" in told
    publish(store, "report", "a1" * 32, "report.html")
    publish(store, "sweep_report", "b2" * 32, "report.html")
    publish(store, "target", "c3" * 32, "scores.json")
    for arguments, stage in (((), "sweep_report"), (("a1",), "report")):
        code, told = typed("open", *arguments)
        assert (code or 0) == 0
        assert opened[-1] == Path(told.strip()).as_uri()
        assert opened[-1].split("/")[-3] == stage
    assert typed("open", "c3")[0] == 2
    assert len(opened) == 2


def test_first_results_are_there_once_they_are_told(tmp_path):
    env = Env(store=str(tmp_path), run="r")
    assert early_results(env, "first") is None
    tell_early(env, "first", {"orders": [{"order": 4, "significance": 0.5, "overfitting": None}]})
    assert early_results(env, "first") == {"orders": [{"order": 4, "significance": 0.5, "overfitting": None}]}
