"""A figure is taken from where it was drawn before exactly while all that it read is the same."""

import pytest
from matplotlib.figure import Figure

from featcx_core.report import gallery
from featcx_core.report.gallery import Gallery
from tests.made_frames import measured


@pytest.fixture
def drawn(monkeypatch):
    """Names of the figures that were drawn, not taken."""
    names, save = [], gallery.save
    monkeypatch.setattr(gallery, "save", lambda *args: names.append(args[3]) or save(*args))
    return names


def figure(frames, theme, coverage=None):
    """Reads one table, and another where there is one."""
    found = Figure()
    found.suptitle(f"{len(frames['significance'])} {'control' in frames and len(frames['control'])}")
    return found


def every(frames, theme, coverage=None):
    found = Figure()
    found.suptitle(", ".join(frames))
    return found


@pytest.fixture
def before(tmp_path):
    kept = Gallery(tmp_path / "before", about=[7, "robust"])
    for name, draw in (("one", figure), ("all", every)):
        kept.draw(draw, measured(), name, 0.95)
    kept.keep()
    return kept.folder


def again(before, frames, about=(7, "robust")):
    here = Gallery(before.parent / "here", list(about), before)
    return [here.draw(draw, frames, name, 0.95) for name, draw in (("one", figure), ("all", every))]


def test_what_is_the_same_is_taken_byte_by_byte(before, drawn):
    for picture in again(before, measured()):
        for path in picture:
            assert path.read_bytes() == (before / path.name).read_bytes()
    assert not drawn


def test_a_table_that_was_read_and_differs_has_it_drawn(before, drawn):
    frames = measured()
    other = frames["significance"].assign(significance=lambda frame: frame["significance"] + 1e-12)
    again(before, frames | {"significance": other})
    assert drawn == ["one", "all"]


def test_a_table_that_was_not_read_changes_nothing(before, drawn):
    """Whoever goes through all tables has read each."""
    frames = measured()
    again(before, frames | {"covariance": frames["covariance"].iloc[:1]})
    assert drawn == ["all"]


def test_a_table_that_was_missing_and_is_there_now_has_it_drawn(before, drawn):
    again(before, measured() | {"control": measured()["significance"]})
    assert drawn == ["one", "all"]


@pytest.mark.parametrize("about", [(8, "robust"), (7, "published"), ()])
def test_other_settings_have_all_drawn(before, drawn, about):
    again(before, measured(), about)
    assert drawn == ["one", "all"]
