"""What goes to Prefect's UI: keys it takes, tables it can show, and progress that never holds up a training."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tasks import ui
from tasks.engine import Env
from tasks.progress import Progress

PREFECTS_KEY = re.compile(r"^[a-z0-9-]+$")


@pytest.mark.parametrize(
    "words", [("progress", "pruned disentangler m4"), ("Summary", "vgg16_bn-n500-s0 (4 targets)"), ("Φ", "a--b")]
)
def test_keys_are_such_as_prefect_takes(words: tuple[str, ...]) -> None:
    assert PREFECTS_KEY.match(ui.slug(*words))


def test_rows_become_a_table_of_the_columns_that_hold_anything() -> None:
    rows: list[dict[str, Any]] = [
        {
            "order": 4,
            "effect": 0.123456,
            "ci": [0.1, float("nan")],
            "none": None,
            "nan": float("nan"),
            "gap": [None, None],
        },
        {"order": 7, "effect": None, "ci": [1.0, 2.0], "none": None, "nan": float("inf"), "gap": [None, None]},
    ]
    assert ui.markdown_table(rows).splitlines() == [
        "| order | effect | ci |",
        "| --- | --- | --- |",
        "| 4 | 0.1235 | [0.1, ] |",
        "| 7 |  | [1.0, 2.0] |",
    ]
    assert ui.markdown_table([]) == ""


def test_addresses_lead_to_the_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "report" / "abc"
    (folder / "figures").mkdir(parents=True)
    (folder / "manifest.json").touch()
    assert ui.address(folder / "report.html") is None
    monkeypatch.setenv(ui.ROUTE, "http://127.0.0.1:1")
    assert ui.address(folder / "figures" / "a.png") == "http://127.0.0.1:1/report/abc/figures/a.png"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, str]]:
    """What a bar sends to a server that takes 50 ms; a bar appears after 20 ms and moves every 100."""
    told = list[tuple[float, str]]()

    def send(bar: ui.Bar, percent: float, text: str) -> None:
        assert threading.current_thread() is not threading.main_thread() or percent == 100
        time.sleep(0.05)
        told.append((percent, text))

    monkeypatch.setattr(ui, "QUICK", 0.02)
    monkeypatch.setattr(ui, "PERIOD", 0.1)
    monkeypatch.setattr(ui.Bar, "_send", send)
    return told


def test_progress_moves_in_steps_and_costs_a_training_nothing(sent: list[tuple[float, str]]) -> None:
    bar, total, longest = ui.Bar("disentangler m1"), 200, 0.0
    for done in range(1, total + 1):
        began = time.perf_counter()
        bar.move(done, total, f"step {done}")
        longest = max(longest, time.perf_counter() - began)
        time.sleep(0.004)
    bar.end(True)
    shares = [share for share, _ in sent]
    assert shares == sorted(shares)
    assert sent[-1] == (100, "done")
    assert 3 <= len(sent) <= 2 + total * 0.02 / 0.1
    assert longest < 0.04  # a server's answer takes 0.05


def test_a_quick_stage_and_one_that_does_not_count_show_none(sent: list[tuple[float, str]]) -> None:
    quick, uncounted = ui.Bar("components"), ui.Bar("data")
    quick.move(1, 2, "")
    time.sleep(0.03)
    uncounted.move(0, 0, "reading")
    for bar in (quick, uncounted):
        bar.end(True)
    assert sent == []


def test_a_failed_stage_stays_where_it_was(sent: list[tuple[float, str]]) -> None:
    bar = ui.Bar("target")
    time.sleep(0.03)
    bar.move(3, 10, "loss 1")
    bar.end(False)
    assert sent == [(30, "loss 1")]


def test_only_a_server_of_ones_own_is_told(tmp_path: Path) -> None:
    for shown in (False, True):
        env = Env(store=str(tmp_path), run="r", shown=shown)
        assert (Progress(env, "target", "key", "target").bar is not None) == shown
