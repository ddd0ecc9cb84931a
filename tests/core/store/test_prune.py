"""Garbage collection keeps what a kept report was made from, and leaves live work alone."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from featcx_core.errors import InputError
from featcx_core.store.artifacts import ArtifactRef, Store
from featcx_core.store.pruning import left_over, remove, superfluous


def publish(store: Store, stage: str, key: str, started: str, **lineage: ArtifactRef) -> ArtifactRef:
    def fill(folder: Path) -> dict[str, object]:
        (folder / "payload").write_bytes(b"x" * 1000)
        return {"started": started, "label": stage, "lineage": {n: ref.model_dump() for n, ref in lineage.items()}}

    return store.publish(stage, key, fill)


@pytest.fixture
def store(tmp_path):
    """Two reports, the older one on a target of its own, both on the same data."""
    place = Store(tmp_path)
    data = publish(place, "data", "d" * 64, "1")
    for i in (1, 2):
        target = publish(place, "target", str(i) * 64, f"{i + 1}", data=data)
        publish(place, "report", str(i + 2) * 64, f"{i + 3}", target=target)
    return place


def stages(manifests) -> list[tuple[str, str]]:
    return [(m["stage"], m["key"][0]) for m in manifests]


def test_a_sweep_s_report_keeps_its_targets(store):
    reports = [ref(m) for m in store.manifests() if m["stage"] == "report"]
    publish(store, "sweep_report", "9" * 64, "9", **{f"point{i}": report for i, report in enumerate(reports)})
    assert stages(superfluous(store, 1, None)) == []


def ref(manifest) -> ArtifactRef:
    return ArtifactRef(stage=manifest["stage"], key=manifest["key"], digest=manifest["digest"])


def test_the_newest_reports_keep_their_lineage(store):
    assert stages(superfluous(store, 2, None)) == []
    assert sorted(stages(superfluous(store, 1, None))) == [("report", "3"), ("target", "1")]
    assert len(superfluous(store, 0, None)) == 5


def test_size_keeps_the_newest(store):
    assert len(superfluous(store, None, 0.0025)) == 3
    assert superfluous(store, None, 1.0) == []
    with pytest.raises(InputError, match="cannot be negative"):
        superfluous(store, -1, None)


def test_size_takes_whole_reports_never_an_input_of_one_that_stays(store):
    """Two reports with their two targets and the data: 1 kB each."""
    assert stages(superfluous(store, 2, 0.005)) == []
    for megabytes in (0.0049, 0.003, 0.001, 0.0):
        assert sorted(stages(superfluous(store, 2, megabytes))) == [("report", "3"), ("target", "1")]
    assert len(superfluous(store, 0, 1.0)) == 5


def test_removed_is_gone_and_the_rest_is_whole(store):
    going = superfluous(store, 1, None)
    with store.lock("target", "1" * 64):  # somebody uses it
        remove(store, going, [])
    assert sorted(stages(store.manifests())) == [("data", "d"), ("report", "4"), ("target", "1"), ("target", "2")]
    remove(store, going, [])
    assert len(store.manifests()) == 3
    assert not store.verify()


def test_left_overs_are_old_and_nobodys(store):
    dead, live = (store.root / ".partial" / f"target-{key * 12}-ab" for key in "56")
    for folder in (dead, live):
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - 9999,) * 2)
    with store.lock("target", "6" * 64):
        assert left_over(store) == [dead]
    assert left_over(store, older_than=1e6) == []
    (dead / "round-0").mkdir()
    os.utime(dead, (time.time() - 9999,) * 2)
    assert left_over(store) == [live]  # of the other one a part is new


def test_a_store_at_work_is_pruned_and_verified(store):
    """Folders come and go meanwhile, as those of what is being published do."""
    over = threading.Event()

    def work():
        while not over.is_set():
            for i in range(20):
                folder = store.root / ".partial" / f"target-{i}" / "part"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "payload").touch()
                note = store.root / ".runs" / "r1" / f"{i}.json"
                note.parent.mkdir(parents=True, exist_ok=True)
                (store.root / "fresh").write_text("{}")
                (store.root / "fresh").rename(note)
            shutil.rmtree(store.root / ".partial")
            shutil.rmtree(store.root / ".runs")

    worker = threading.Thread(target=work)
    worker.start()
    try:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            left_over(store)
            assert store.verify() == []
    finally:
        over.set()
        worker.join()
