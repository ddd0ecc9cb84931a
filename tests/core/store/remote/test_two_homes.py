"""Two machines and one cache: what one computes the other finds, byte by byte, over S3, sftp and a folder."""

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from featcx_core.errors import InputError
from featcx_core.store.artifacts import ArtifactRef, Store
from featcx_core.store.remote.address import Address, Patience, Unreachable
from featcx_core.store.remote.cache import Remote
from featcx_core.store.remote.envelope import envelope_name
from featcx_core.store.remote.outbox import due, sending
from featcx_core.store.trust import MANIFEST
from tests.core.store.remote.homes import KEYS, chain, content, home, publish, sent
from tests.core.store.remote.servers import sftp_server


@pytest.fixture(params=["s3", "file", "sftp"])
def url(request, tmp_path):
    """The address of an empty cache on each kind of server."""
    if request.param == "s3":
        yield request.getfixturevalue("bucket")
    elif request.param == "file":
        yield f"file://{tmp_path}/served"
    else:
        pytest.importorskip("paramiko", reason="paramiko is not installed")
        (tmp_path / "ssh").mkdir()
        with sftp_server(tmp_path / "ssh") as server, pytest.MonkeyPatch.context() as patch:
            patch.setenv("FEATCX_KNOWN_HOSTS", str(server["known"]))
            patch.setenv("FEATCX_SSH_KEY", str(server["key"]))
            yield f"sftp://{server['user']}@127.0.0.1:{server['port']}{tmp_path}/served"


def test_what_one_machine_computes_another_finds_byte_by_byte(url, tmp_path):
    a, b = home(tmp_path / "a", url), home(tmp_path / "b", url)
    refs = sent(a)
    for ref in refs.values():
        assert b.find(ref.stage, ref.key) == ref
        assert not b.place(ref).exists()  # known by its manifest alone
    assert content(b.path(refs["net"])) == content(a.path(refs["net"]))
    assert not b.place(refs["data"]).exists()
    assert [m["stage"] for m in b.lineage([refs["report"]])] == ["data", "net", "report"]
    assert Store(b.root).find("net", KEYS["net"]) == refs["net"]  # an artifact like any other
    assert b.verify() == []
    assert b.find("net", "0" * 64) is None


def test_many_threads_ask_at_once_and_each_gets_its_own_answer(url):
    """paramiko loses what another thread reads than the one that waits, so each call has a connection to itself."""
    address = Address(url, Patience(tries=1, answer=5))
    for i in range(6):
        address.create(bytes([i]) * 50_000, f"files/{i}", over=True)

    def asked(i):
        return [(len(address.list("files")), address.read(f"files/{i}", 0, 60_000)) for _ in range(10)]

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(asked, range(6))) == [[(6, bytes([i]) * 50_000)] * 10 for i in range(6)]


def page(folder):
    """Fills an artifact as a report does."""
    (folder / "figures").mkdir()
    (folder / "report.html").write_text("<p>a page</p>" * 100_000)
    (folder / "figures" / "maps.svg").write_text("<svg></svg>" * 1000)
    (folder / "small.svg").write_text("<svg></svg>")
    about = {"spec": {}, "inputs": {}, "code": "c", "metrics": {}, "device": "CPU", "lineage": {}}
    return about | {"started": "2026-11-27T10:00:00", "label": "report"}


def test_pages_travel_packed_and_arrive_as_they_were(url, tmp_path):
    a, b = home(tmp_path / "a", url), home(tmp_path / "b", url)
    ref = a.publish("report", KEYS["report"], page)
    assert a.send("report", ref.key).outcome == "sent"
    assert content(b.path(b.find("report", ref.key))) == content(a.path(ref))
    assert b.journal.summary()["bytes_fetched"] < 20_000
    there = {entry.name.rpartition("/")[2] for entry in a.remote.address.list("artifacts/report")}
    assert there == {f"{ref.key}.json", "report.html.gz", "maps.svg.gz", "small.svg"}


@pytest.mark.parametrize(
    "bomb", [gzip.compress(bytes(300 << 20), 1), gzip.compress(b"") * 100_000, b"no gzip"], ids=len
)
def test_what_unpacks_to_more_than_its_manifest_says_is_refused_early(bomb, tmp_path):
    url = f"file://{tmp_path}/served"
    a, b = home(tmp_path / "a", url), home(tmp_path / "b", url)
    ref = a.publish("report", KEYS["report"], page)
    a.send("report", ref.key)
    (packed,) = (tmp_path / "served").rglob("report.html.gz")
    packed.write_bytes(bomb)
    tracemalloc.start()
    with pytest.raises(FileNotFoundError, match=r"report\.html|unpack"):
        b.path(b.find("report", ref.key))
    assert tracemalloc.get_traced_memory()[1] < 100 << 20  # of which 64 MiB are kept free for an envelope
    tracemalloc.stop()


def test_tables_are_fetched_without_the_rest(bucket, tmp_path):
    a, b = home(tmp_path / "a", bucket), home(tmp_path / "b", bucket)
    ref = sent(a)["net"]
    assert sorted(p.name for p in b.tables(ref).iterdir()) == ["numbers.json"]
    assert json.loads((b.tables(ref) / "numbers.json").read_text()) == {"stage": "net"}
    assert b.journal.summary()["bytes_fetched"] == len('{"stage": "net"}')
    (b.tables(ref) / "numbers.json").write_text("{}")  # a view that was changed is fetched again
    assert json.loads((b.tables(ref) / "numbers.json").read_text()) == {"stage": "net"}
    assert not b.place(ref).exists()


def test_what_is_published_is_sent_in_the_background_and_what_was_not_stays_due(url, tmp_path):
    a = home(tmp_path / "a", url)
    with sending(a, patient=True):
        data = publish(a, "data")
    assert due(a) == []
    with sending(a, patient=False):
        net = publish(a, "net", data=data)
    left = [ref.path for ref in due(a)]
    b = home(tmp_path / "b", url)
    assert b.find("data", data.key) == data
    assert (b.find("net", net.key) is None) == (left == [net.path])
    with sending(a, patient=True):
        pass
    assert due(a) == []
    assert home(tmp_path / "c", url).find("net", net.key) == net


def test_a_read_only_remote_is_left_as_it_is(url, tmp_path):
    sent(home(tmp_path / "a", url))
    address = Address(url)
    before = address.list("")
    b = home(tmp_path / "b", url, read_only=True)
    with sending(b, patient=True):
        assert b.find("net", KEYS["net"]) is not None
        publish(b, "report", b"other")
    assert due(b) == []
    with pytest.raises(Unreachable, match="only read"):
        b.remote.send(b.place(ArtifactRef(stage="report", key=KEYS["report"], digest="")), "report", KEYS["report"])
    assert address.list("") == before


def test_two_uploads_of_one_key_are_harmless(bucket, tmp_path):
    """Of several that come at once one wins, and what is there is whole."""
    homes = [home(tmp_path / str(i), bucket) for i in range(4)]
    refs = [publish(each, "net", b"same", started=f"2026-11-27T10:00:0{i}") for i, each in enumerate(homes)]
    assert len(set(refs)) == 1
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda each: each.send("net", KEYS["net"]).outcome, homes))
    assert set(outcomes) <= {"sent", "there"}
    reader = home(tmp_path / "reader", bucket)
    assert content(reader.path(refs[0])).keys() == content(homes[0].path(refs[0])).keys()


def test_another_result_for_the_same_key_is_told_with_both_origins_and_changes_nothing(url, tmp_path, caplog):
    a, b, reader = (home(tmp_path / name, url) for name in "abc")
    first = publish(a, "net", b"one")
    assert a.send("net", KEYS["net"]).outcome == "sent"
    second = publish(b, "net", b"two", started="2026-11-27T11:11:11")
    assert first.digest != second.digest
    assert b.send("net", KEYS["net"]).outcome == "differs"
    told = b.journal.summary()
    assert told["differs"] == 1
    assert "not deterministic" in told["told"][0]
    assert "2026-11-27T11:11" in told["told"][0]  # here
    assert "2026-11-27T10:00" in told["told"][0]  # there
    assert os.uname().nodename in told["told"][0]
    assert "not deterministic" in caplog.text
    assert reader.find("net", KEYS["net"]) == first
    assert b"one" in content(reader.path(first))["part/payload.bin"]
    assert b.find("net", KEYS["net"]) == second  # the local store is the truth of a run
    assert due(b) == []


@pytest.mark.parametrize("whose", ["nobody's", "another team's", "altered"])
def test_only_what_the_team_has_signed_counts_where_there_is_a_key(bucket, tmp_path, whose):
    maker = home(tmp_path / "a", bucket, secret={"nobody's": "", "another team's": "b"}.get(whose, "a"))
    ref = sent(maker)["net"]
    if whose == "altered":
        address = Address(bucket)
        whole = json.loads(address.read(envelope_name("net", ref.key), 0, 1 << 20))
        whole["origin"]["host"] = "elsewhere"
        address.create(json.dumps(whole).encode(), envelope_name("net", ref.key), over=True)
    reader = home(tmp_path / "b", bucket, secret="a")
    assert reader.find("net", ref.key) is None
    (told,) = reader.journal.summary()["told"]
    assert "signed" in told
    assert f"net/{ref.key[:12]}" in told  # refused by name
    mended = publish(reader, "net", data=publish(reader, "data"))
    assert reader.send("net", mended.key).outcome == "sent"
    assert home(tmp_path / "c", bucket, secret="a").find("net", ref.key) == mended


def test_a_signature_of_the_team_counts(bucket, tmp_path):
    ref = sent(home(tmp_path / "a", bucket, secret="a"))["net"]
    assert home(tmp_path / "b", bucket, secret="a").find("net", ref.key) == ref
    assert home(tmp_path / "c", bucket).find("net", ref.key) == ref  # who has no key asks for none


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nowhere", "write s3://"),
        ("quux://x/y", "No driver opens quux://"),
    ],
)
def test_an_address_that_nothing_opens_is_a_sentence(url, words):
    with pytest.raises(InputError, match=words):
        Remote(url)


def test_a_server_that_nobody_knows_is_a_sentence(tmp_path):
    pytest.importorskip("paramiko", reason="paramiko is not installed")
    (tmp_path / "ssh").mkdir()
    with sftp_server(tmp_path / "ssh") as server, pytest.MonkeyPatch.context() as patch:
        (tmp_path / "none").touch()
        patch.setenv("FEATCX_KNOWN_HOSTS", str(tmp_path / "none"))
        patch.setenv("FEATCX_SSH_KEY", str(server["key"]))
        a = home(tmp_path / "a", f"sftp://{server['user']}@127.0.0.1:{server['port']}{tmp_path}/served")
        with pytest.raises(InputError, match="log in once with ssh"):
            a.find("net", KEYS["net"])


def test_a_folder_that_is_here_already_is_not_looked_for_elsewhere(tmp_path):
    a = home(tmp_path / "a", f"file://{tmp_path}/served")
    refs = chain(a)
    assert a.find("net", KEYS["net"]) == refs["net"]
    assert not (tmp_path / "served").exists()
    assert (a.path(refs["net"]) / MANIFEST).exists()
    assert isinstance(a.due, Path)
