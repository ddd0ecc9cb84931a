"""What is left of a stage, by the pace of the process that computes it."""

from types import SimpleNamespace

import pytest

from tasks import progress as module
from tasks.progress import Progress, read_notes


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Tells of done of total at a time; gives the seconds left."""
    clock = iter([])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    progress = Progress(SimpleNamespace(store=tmp_path, run="run", shown=False), "stage", "key", "label")

    def tell(at, done, total=100):
        nonlocal clock
        clock = iter([float(at)] * 9)
        progress.note("running", done, total)
        return read_notes(tmp_path, "run")[0].left

    return tell


def test_a_stage_that_went_on_half_way_counts_its_own_steps_alone(told):
    assert told(1000, 90) is None  # no pace yet
    assert told(1010, 92) == pytest.approx(40)  # 2 in 10 s, 8 to go


def test_the_next_of_several_trainings_is_timed_afresh(told):
    told(0, 0)
    assert told(10, 50) == pytest.approx(10)
    assert told(20, 10) is None
    assert told(30, 20) == pytest.approx(80)
    assert told(40, 5, 50) is None
