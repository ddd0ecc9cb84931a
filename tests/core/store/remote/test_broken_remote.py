"""Whatever goes wrong between a store and its remote: a miss or a sentence, never wrong bytes, never a hang."""

from __future__ import annotations

import time

import pytest

from featcx_core.store.remote.address import Unreachable
from featcx_core.store.remote.upkeep import faults
from tests.core.store.remote.faults import FAULTS, HANG, listing_is_told, made, tampered, torn, vanished
from tests.core.store.remote.homes import KEYS, home, publish, sent


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_survived(name, s3, bucket, breaker, tmp_path):
    fault = FAULTS[name]
    outcome = made(fault, bucket, s3, breaker, tmp_path)
    assert outcome.right
    assert outcome.seconds < HANG
    if "always" in name or "once" in name or "sending" in name:
        assert outcome.broken > 0  # the fault was made
    assert outcome.missed != fault.mended
    assert not fault.words or any(fault.words in text for text in outcome.told), outcome.told
    assert fault.words or outcome.told == []


def test_who_needs_a_list_is_told_that_it_is_forbidden(bucket, breaker):
    assert "does not allow listing" in listing_is_told(bucket, breaker)


def test_a_remote_that_does_not_answer_is_left_alone_for_a_while(bucket, breaker, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ENDPOINT_URL", breaker.url)
    breaker.rule = lambda method, path: "503"
    store = home(tmp_path, bucket)
    for i in range(50):
        assert store.find("net", f"{i:064d}") is None
    assert breaker.broken <= 3  # tries of the first, none of the others
    (told,) = store.journal.summary()["told"]
    assert "the run goes on without the remote" in told
    store.remote._out = (time.monotonic() - 1, "")
    breaker.rule = lambda method, path: None
    ref = publish(store, "net")
    assert store.send("net", ref.key) is not None


def test_what_was_spoilt_is_mended_by_who_computes_it_again(bucket, tmp_path):
    a = home(tmp_path / "a", bucket)
    refs = sent(a)
    tampered(a.remote.address, refs["net"])
    torn(a.remote.address, refs["data"])
    vanished(a.remote.address, refs["report"])
    count, found = faults(a.remote)
    assert count == 3
    assert {(fault.artifact.split("/")[0], fault.reason.split(" ")[0]) for fault in found} == {
        ("net", "part/payload.bin"),
        ("data", found[0].reason.split(" ")[0]),
        ("report", "part/payload.bin"),
    }
    b = home(tmp_path / "b", bucket)
    for stage, ref in refs.items():
        if (there := b.find(stage, ref.key)) is not None:
            with pytest.raises(FileNotFoundError):
                b.path(there)
    for stage, lineage in (("data", {}), ("net", {"data": refs["data"]}), ("report", {"net": refs["net"]})):
        ref = publish(b, stage, **lineage)
        assert b.send(stage, ref.key).outcome == "sent"
    assert faults(a.remote) == (3, [])
    c = home(tmp_path / "c", bucket)
    assert c.find("net", KEYS["net"]) == refs["net"]
    c.path(refs["net"])


def test_once_burnt_payloads_are_fetched_when_they_are_found(bucket, tmp_path):
    """So that a run begins again once, however many artifacts are spoilt."""
    a = home(tmp_path / "a", bucket)
    refs = sent(a)
    for stage in ("data", "net"):
        tampered(a.remote.address, refs[stage])
    b = home(tmp_path / "b", bucket)
    assert b.find("data", KEYS["data"]) is not None
    with pytest.raises(FileNotFoundError):
        b.path(refs["data"])
    assert b.find("net", KEYS["net"]) is None
    assert b.find("report", KEYS["report"]) == refs["report"]
    assert b.place(refs["report"]).exists()
    other = home(tmp_path / "b", bucket)  # another process of the same run
    assert other.find("data", KEYS["data"]) is None


def test_a_full_disk_is_no_reason_to_write_over_what_is_there(bucket, monkeypatch, tmp_path):
    a, b = home(tmp_path / "a", bucket), home(tmp_path / "b", bucket)
    first = publish(a, "net", b"one")
    a.send("net", KEYS["net"])
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(FileNotFoundError, match="free here"):
        b.path(first)
    monkeypatch.undo()
    publish(b, "net", b"two")
    assert b.send("net", KEYS["net"]).outcome == "differs"


def test_nothing_is_written_by_who_only_reads(bucket, tmp_path):
    b = home(tmp_path / "b", bucket, read_only=True)
    publish(b, "net")
    with pytest.raises(Unreachable):
        b.remote.send(tmp_path, "net", KEYS["net"])
