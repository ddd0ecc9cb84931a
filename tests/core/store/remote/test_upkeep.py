"""What lies at a remote is looked after: what may go, what stays, what comes and goes by its key."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from featcx_core.errors import InputError
from featcx_core.store.artifacts import Store
from featcx_core.store.remote.outbox import sending
from featcx_core.store.remote.upkeep import DAY, inventory, pull, push, remove, superfluous
from tests.core.store.remote.homes import KEYS, chain, content, home, publish, sent


@pytest.fixture
def served(tmp_path):
    """A folder that serves as a remote, whose times can be set."""
    return tmp_path / "served"


def aged(served: Path, days: float, pattern: str = "**/*") -> None:
    """As if the files had been written so many days ago."""
    for path in served.glob(pattern):
        if path.is_file():
            os.utime(path, (time.time() - days * DAY,) * 2)


def paths(held):
    return sorted(h.ref.stage for h in held)


def test_what_was_not_used_lately_goes_and_what_stays_keeps_its_lineage(served, tmp_path):
    a = home(tmp_path / "a", f"file://{served}")
    sent(a)
    assert superfluous(a.remote, 1, None) == []
    aged(served, 10)
    assert paths(superfluous(a.remote, 7, None)) == ["data", "net", "report"]
    aged(served, 0, f"artifacts/net/{KEYS['net']}.json")
    assert paths(superfluous(a.remote, 7, None)) == ["report"]  # the data that the net was made from stay


def test_use_is_told_once_a_day_and_keeps_what_was_used(served, tmp_path):
    a = home(tmp_path / "a", f"file://{served}")
    refs = sent(a)
    aged(served, 10)
    b = home(tmp_path / "b", a.remote.url)
    with sending(b, patient=True):
        for _ in range(3):
            assert b.find("net", KEYS["net"]) is not None
        b.path(refs["net"])
    notes = list((served / "used").iterdir())
    assert len(notes) == 1
    assert notes[0].read_text() == f"net/{KEYS['net']}\n"
    with sending(b, patient=True):  # what it had of the day is in the same file
        b.path(refs["data"])
    assert [p.read_text().count("\n") for p in (served / "used").iterdir()] == [2]
    assert paths(superfluous(a.remote, 7, None)) == ["report"]


def test_what_was_pushed_by_its_key_stays_with_its_lineage(served, tmp_path):
    a = home(tmp_path / "a", f"file://{served}")
    chain(a)
    assert {ref.stage for ref, _ in push(a, KEYS["net"])} == {"data", "net"}
    a.send("report", KEYS["report"])
    aged(served, 10)
    assert paths(superfluous(a.remote, 7, 0)) == ["report"]


def test_a_size_keeps_what_was_used_last(served, tmp_path):
    a = home(tmp_path / "a", f"file://{served}")
    sent(a)
    aged(served, 3)
    aged(served, 1, f"artifacts/data/{KEYS['data']}.json")
    size = {p.split("/")[0]: h.bytes for p, h in inventory(a.remote).items()}
    assert paths(superfluous(a.remote, None, size["data"] / 1e6)) == ["net", "report"]
    assert paths(superfluous(a.remote, None, sum(size.values()) / 1e6)) == []


def test_this_machines_clock_does_not_matter(served, tmp_path, monkeypatch):
    a = home(tmp_path / "a", f"file://{served}")
    sent(a)
    monkeypatch.setattr(time, "time", lambda: 4e9)  # in the year 2096
    assert superfluous(a.remote, 7, None) == []


def test_collecting_is_resumable_and_leaves_no_half(served, tmp_path, monkeypatch):
    a = home(tmp_path / "a", f"file://{served}")
    refs = sent(a)
    aged(served, 10)
    going = superfluous(a.remote, 7, None)
    plain, removed = a.remote.address.remove, []

    def cut(name):
        if len(removed) > 2:
            raise OSError("cut")
        removed.append(name)
        plain(name)

    monkeypatch.setattr(a.remote.address, "remove", cut)
    with pytest.raises(OSError, match="cut"):
        remove(a.remote, going)
    monkeypatch.undo()
    b = home(tmp_path / "b", a.remote.url)
    for stage, ref in refs.items():
        assert b.find(stage, ref.key) is None or content(b.path(ref)) == content(a.path(ref))
    remove(a.remote, superfluous(a.remote, 7, None))
    assert inventory(a.remote) == {}


def test_an_upload_under_way_is_left_alone_and_one_that_was_cut_goes(served, tmp_path):
    a = home(tmp_path / "a", f"file://{served}")
    sent(a)
    (served / f"artifacts/net/{KEYS['net']}.json").unlink()
    assert superfluous(a.remote, 7, None) == []
    aged(served, 2, "artifacts/net/**/*")
    assert paths(superfluous(a.remote, 7, None)) == ["net"]


def test_a_run_comes_by_its_key_whole_or_alone(bucket, tmp_path):
    a = home(tmp_path / "a", bucket)
    refs = sent(a)
    b = home(tmp_path / "b", bucket)
    assert {ref.stage for ref in pull(b, KEYS["report"][:12])} == {"data", "net", "report"}
    plain = Store(b.root)
    assert all(plain.find(ref.stage, ref.key) == ref for ref in refs.values())
    assert plain.manifests() == Store(a.root).manifests()
    c = home(tmp_path / "c", bucket)
    pull(c, f"net/{KEYS['net']}", alone=True)
    assert [m["stage"] for m in Store(c.root).manifests()] == ["net"]
    with pytest.raises(InputError, match="No artifact at s3"):
        pull(c, "0123")


def test_names_at_a_remote_that_are_no_artifacts_are_passed_over(served, tmp_path):
    a = home(tmp_path / "a", f"file://{served}")
    sent(a)
    for name in ("artifacts/..x/y.json", "artifacts/a b/c.json", "artifacts/loose", "artifacts/net/x/y/z/deep"):
        (served / name).parent.mkdir(parents=True, exist_ok=True)
        (served / name).write_text("strange")
    assert sorted(h.ref.stage for h in inventory(a.remote).values() if h.envelope) == ["data", "net", "report"]
    assert publish(a, "net").key == KEYS["net"]


def test_limits_are_not_negative(served, tmp_path):
    with pytest.raises(InputError, match="cannot be negative"):
        superfluous(home(tmp_path / "a", f"file://{served}").remote, -1, None)
