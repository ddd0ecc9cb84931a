"""What goes to Prefect's UI: keys it takes, tables it can show, and progress that never holds up a training."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from tasks import ui
from tasks.env import Env
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


class Clock:
    """Seconds that pass when the test says so."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What a bar reads instead of the machine's clock."""
    own = Clock()
    monkeypatch.setattr(ui, "time", own)
    return own


@pytest.fixture
def answers() -> threading.Event:
    """Whether the server answers; until then an update waits."""
    event = threading.Event()
    event.set()
    return event


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch, clock: Clock, answers: threading.Event) -> list[tuple[float, str]]:
    """What a bar sends, once the server answers; a bar appears after 2 s and moves every second."""
    told = list[tuple[float, str]]()

    def send(bar: ui.Bar, percent: float, text: str) -> None:
        assert threading.current_thread() is not threading.main_thread() or percent == 100
        assert answers.wait(30)
        told.append((percent, text))

    monkeypatch.setattr(ui, "QUICK", 2.0)
    monkeypatch.setattr(ui, "PERIOD", 1.0)
    monkeypatch.setattr(ui.Bar, "_send", send)
    return told


def test_progress_moves_once_a_period(sent: list[tuple[float, str]], clock: Clock) -> None:
    bar = ui.Bar("disentangler m1")
    for done in range(1, 41):  # ten seconds
        clock.now += 0.25
        bar.move(done, 40, f"step {done}")
        if bar.sending is not None:
            bar.sending.result()
    bar.end(True)
    # after more than two seconds, then after more than one each
    assert sent == [*((100 * step / 40, f"step {step}") for step in range(9, 40, 5)), (100, "done")]


def test_a_server_that_does_not_answer_holds_no_training_up(
    sent: list[tuple[float, str]], clock: Clock, answers: threading.Event
) -> None:
    answers.clear()
    bar = ui.Bar("disentangler m1")
    for done in range(1, 101):  # returns, though nothing is answered meanwhile
        clock.now += 5
        bar.move(done, 100, f"step {done}")
    assert sent == []
    answers.set()
    bar.end(True)
    assert sent == [(1, "step 1"), (100, "done")]  # what came while the first waited is not sent late


def test_a_quick_stage_and_one_that_does_not_count_show_none(sent: list[tuple[float, str]], clock: Clock) -> None:
    quick, uncounted = ui.Bar("components"), ui.Bar("data")
    quick.move(1, 2, "")
    clock.now += 3
    uncounted.move(0, 0, "reading")
    for bar in (quick, uncounted):
        bar.end(True)
    assert sent == []


def test_a_failed_stage_stays_where_it_was(sent: list[tuple[float, str]], clock: Clock) -> None:
    bar = ui.Bar("target")
    clock.now += 3
    bar.move(3, 10, "loss 1")
    bar.end(False)
    assert sent == [(30, "loss 1")]


def test_only_a_server_of_ones_own_is_told(tmp_path: Path) -> None:
    for shown in (False, True):
        env = Env(store=str(tmp_path), run="r", shown=shown)
        assert (Progress(env, "target", "key", "target").bar is not None) == shown
