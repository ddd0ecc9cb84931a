"""The store: whole artifacts or none, damage found, one publisher at a time."""

import hashlib
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from featcx_core.errors import InputError
from featcx_core.store.artifacts import ArtifactRef, Damage, FileRef, Store

KEY = "ab" * 32


def fill(text="payload", **manifest):
    """Writes two files, one in a folder."""

    def write(folder):
        (folder / "a.txt").write_text(text)
        (folder / "deep").mkdir()
        (folder / "deep" / "b.bin").write_bytes(b"\x00" * 1000)
        return {"metrics": {"x": 1.5}, "lineage": {}} | manifest

    return write


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def ref(store):
    return store.publish("stage", KEY, fill())


def leftovers(store):
    """What a publisher leaves besides artifacts, locks and notes of checks."""
    return sorted((store.root / ".partial").glob("*"))


def test_what_is_published_is_found(store, ref):
    assert store.find("stage", KEY) == ref
    assert store.path(ref) == store.root / "stage" / KEY
    assert (store.path(ref) / "a.txt").read_text() == "payload"
    assert not Path(ref.path).is_absolute()
    assert ArtifactRef.model_validate_json(ref.model_dump_json()) == ref
    assert store.verify() == []
    assert leftovers(store) == []
    assert store.find("stage", "cd" * 32) is None
    assert store.find("other", KEY) is None


def test_the_manifest_explains_the_folder(store, ref):
    manifest = store.manifest(ref)
    assert manifest["stage"] == "stage"
    assert manifest["key"] == KEY
    assert manifest["digest"] == ref.digest
    assert manifest["metrics"] == {"x": 1.5}
    files = {"a.txt": b"payload", "deep/b.bin": b"\x00" * 1000}
    assert manifest["files"] == {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
    }


def test_the_digest_is_of_content_alone(tmp_path):
    """Not of the key, the time or the place; volatile files do not count but are checked."""
    one = Store(tmp_path / "one").publish("stage", KEY, fill(started="then"))
    other = Store(tmp_path / "other").publish("stage", "cd" * 32, fill(started="now"))
    assert one.digest == other.digest
    assert one.digest != Store(tmp_path / "third").publish("stage", KEY, fill("other")).digest

    def timed(folder, text):
        (folder / "log.txt").write_text(text)
        return fill(volatile=["log.txt"])(folder)

    store = Store(tmp_path / "fourth")
    first = store.publish("stage", KEY, lambda folder: timed(folder, "1 s"))
    assert first.digest == store.publish("stage", "ef" * 32, lambda folder: timed(folder, "2 s")).digest == one.digest
    (store.path(first) / "log.txt").write_text("3 s")
    assert store.find("stage", KEY) is None


def test_file_references_count_bytes_not_paths(tmp_path):
    for name, text in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / name).write_text(text)
    a, b, c = (FileRef.of(tmp_path / name, [tmp_path / name]) for name in "abc")
    assert a.digest == b.digest != c.digest
    assert a.path != b.path


def test_file_references_count_names_below_their_folder(tmp_path):
    def reference(root, *names):
        for name in names:
            (tmp_path / root / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / root / name).write_text(name[-1])
        return FileRef.of(tmp_path / root, [tmp_path / root / name for name in names]).digest

    here = reference("here", "cat/1", "dog/2")
    assert reference("there", "cat/1", "dog/2") == here
    assert reference("relabelled", "cat/1", "cat/2") != here
    assert reference("renamed", "cat/1", "fox/2") != here


def change(path):
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def empty(path):
    path.write_bytes(b"")


def flip_and_hide(path):
    """Same size, and a time as before."""
    stat = path.stat()
    change(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def replace(path):
    """A new file in its place, with size and time as before: only its inode tells."""
    stat, data = path.stat(), path.read_bytes()
    other = path.with_name("other")
    other.write_bytes(data[:-1] + b"?")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.rename(path)


@pytest.mark.parametrize("name", ["a.txt", "deep/b.bin"])
@pytest.mark.parametrize(
    ("harm", "reason"),
    [(Path.unlink, "is missing"), (change, "has changed"), (empty, "has changed"), (replace, "has changed")],
)
def test_a_damaged_file_is_a_miss_and_named(store, ref, name, harm, reason):
    other = store.publish("stage", "cd" * 32, fill("other"))
    harm(store.path(ref) / name)
    assert store.find("stage", KEY) is None
    assert store.find("stage", other.key) == other
    (damage,) = store.verify()
    assert (damage.artifact, damage.file) == (ref.path, name)
    assert reason in damage.reason


def test_verify_hashes_even_what_looks_untouched(store, ref):
    flip_and_hide(store.path(ref) / "a.txt")
    assert store.verify() == [Damage(ref.path, "a.txt", "has changed since it was written")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"files": {}}',
        '{"files": 3, "digest": ""}',
        '{"files": {"a.txt": {}}, "stage": "s", "key": "k", "digest": ""}',
    ],
)
def test_a_damaged_manifest_is_a_miss_and_named(store, ref, text):
    (store.path(ref) / "manifest.json").write_text(text)
    assert store.find("stage", KEY) is None
    assert [(d.artifact, d.file) for d in store.verify()] == [(ref.path, "manifest.json")]
    assert store.manifests() == []
    assert store.publish("stage", KEY, fill()) == ref  # and can be made anew
    assert store.find("stage", KEY) == ref


def test_a_manifest_that_lies_about_its_digest(store, ref):
    path = store.path(ref) / "manifest.json"
    path.write_text(path.read_text().replace(ref.digest, "0" * 64))
    assert store.find("stage", KEY) is None
    assert [d.file for d in store.verify()] == ["manifest.json"]


def test_a_missing_manifest_is_a_miss_and_named(store, ref):
    (store.path(ref) / "manifest.json").unlink()
    assert store.find("stage", KEY) is None
    assert store.verify() == [Damage(ref.path, "manifest.json", "is missing")]


def test_a_damaged_artifact_is_replaced(store, ref):
    change(store.path(ref) / "a.txt")
    again = store.publish("stage", KEY, fill())
    assert again == ref
    assert store.find("stage", KEY) == ref
    assert store.verify() == []
    assert leftovers(store) == []


def test_a_touched_file_is_hashed_anew_and_accepted(store, ref, monkeypatch):
    hashed = []
    plain = sys.modules[Store.__module__].sha256_of
    monkeypatch.setattr(
        sys.modules[Store.__module__], "sha256_of", lambda path: hashed.append(path.name) or plain(path)
    )
    assert store.find("stage", KEY) == ref
    assert hashed == []  # nothing has changed since it was published
    os.utime(store.path(ref) / "a.txt", (1, 1))
    assert store.find("stage", KEY) == ref
    assert hashed == ["a.txt", "b.bin"]
    assert store.find("stage", KEY) == ref
    assert len(hashed) == 2


def test_a_copied_store_is_whole(store, ref, tmp_path):
    """Other inodes and times, no notes of checks."""
    import shutil

    shutil.copytree(store.root / "stage", tmp_path / "copy" / "stage")
    copy = Store(tmp_path / "copy")
    assert copy.find("stage", KEY) == ref
    assert copy.verify() == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_nothing(store, error):
    def fail(folder):
        fill()(folder)
        raise error("half way")

    with pytest.raises(error):
        store.publish("stage", KEY, fail)
    assert store.find("stage", KEY) is None
    assert leftovers(store) == []
    assert not (store.root / "stage").exists()
    assert store.verify() == []


def test_a_failure_leaves_what_was_there(store, ref):
    change(store.path(ref) / "a.txt")

    def fail(folder):
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        store.publish("stage", KEY, fail)
    assert len(store.verify()) == 1


KILLED = """
    import os, signal, sys
    from featcx_core.store import artifacts as store

    moment = sys.argv[2]

    def die(*args):
        os.kill(os.getpid(), signal.SIGKILL)

    def fill(folder):
        (folder / "a.txt").write_text("half")
        if moment == "filling":
            die()
        (folder / "b.txt").write_text("whole")
        return {}

    if moment == "hashing":
        store.sha256_of = die
    if moment == "manifest":
        store._write = die
    if moment == "syncing":
        store._sync = die
    if moment == "renaming":
        rename = store.Path.rename
        store.Path.rename = lambda self, to: die() if to.name == "ab" * 32 else rename(self, to)
    with store.Store(sys.argv[1]).lock("stage", "ab" * 32):
        store.Store(sys.argv[1]).publish("stage", "ab" * 32, fill)
"""


def test_a_killed_publisher_leaves_nothing_that_looks_finished(store):
    for moment in ("filling", "hashing", "manifest", "syncing", "renaming"):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(KILLED), str(store.root), moment], check=False, capture_output=True
        )
        assert done.returncode == -9, (moment, done.stderr)
        assert store.find("stage", KEY) is None, moment
        assert store.manifests() == [], moment
        assert store.verify() == [], moment
    with store.lock("stage", KEY):  # the kernel has let go of the dead one's lock
        ref = store.publish("stage", KEY, fill())
    assert store.find("stage", KEY) == ref
    assert store.verify() == []


def compute(store, log, hold=0.0):
    """What a stage does: lock, look, publish."""
    with store.lock("stage", KEY):
        found = store.find("stage", KEY)
        if found is None:
            log.append("computed")
            time.sleep(hold)
            found = store.publish("stage", KEY, fill())
    return found


def test_concurrent_threads_compute_once(store):
    log, refs = [], []
    threads = [threading.Thread(target=lambda: refs.append(compute(store, log, 0.05))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log == ["computed"]
    assert len(refs) == 8
    assert len(set(refs)) == 1
    assert store.verify() == []


def test_concurrent_processes_compute_once(store, tmp_path):
    script = """
        import sys, time
        from pathlib import Path
        from featcx_core.store.artifacts import Store
        store, key = Store(sys.argv[1]), "ab" * 32
        while not Path(sys.argv[2]).exists():
            time.sleep(0.005)
        with store.lock("stage", key):
            found = store.find("stage", key)
            if found is None:
                print("computed")
                time.sleep(0.1)
                store.publish("stage", key, lambda folder: (folder / "a.txt").write_text("x") and {})
    """
    start = tmp_path / "start"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), str(store.root), str(start)], stdout=subprocess.PIPE
        )
        for _ in range(3)
    ]
    start.write_text("")
    printed = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert b"".join(printed) == b"computed\n"
    assert store.find("stage", KEY) is not None


def test_locks_of_other_keys_do_not_wait(store):
    with store.lock("stage", KEY), store.lock("stage", "cd" * 32), store.lock("other", KEY):
        assert compute_blocked(store)


def compute_blocked(store):
    """Whether another thread has to wait for the key."""
    thread = threading.Thread(target=compute, args=(store, []), daemon=True)
    thread.start()
    thread.join(0.1)
    return thread.is_alive()


def test_publishing_without_a_lock_gives_a_whole_artifact_or_none(store):
    errors = []

    def publish():
        try:
            for _ in range(5):
                store.publish("stage", KEY, fill())
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=publish) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.find("stage", KEY) is not None or errors
    assert store.verify() == []
    assert leftovers(store) == []


def test_resolve_by_prefix(store):
    for key in ("ab" * 32, "ac" * 32, "f0" * 32):
        store.publish("stage", key, fill(key))
    store.publish("other", "f0" * 32, fill("other"))
    assert store.resolve("ab")["key"] == "ab" * 32
    assert store.resolve("stage/ac")["key"] == "ac" * 32
    assert store.resolve("other/f0")["stage"] == "other"
    with pytest.raises(InputError, match=r"Several artifacts start with 'a': .*Give more of the key"):
        store.resolve("a")
    with pytest.raises(InputError, match="Several artifacts start with 'f0'"):
        store.resolve("f0")
    with pytest.raises(InputError, match=r"No artifact in .* has a key that starts with 'zz'"):
        store.resolve("zz")
    with pytest.raises(InputError, match="No artifact"):
        store.resolve("third/f0")


def test_manifests_are_oldest_first_and_skip_what_is_broken(store):
    for key, started in (("ab" * 32, "2024-02"), ("cd" * 32, "2024-01"), ("ef" * 32, "2024-03")):
        store.publish("stage", key, fill(started=started))
    (store.root / "stage" / ("ef" * 32) / "manifest.json").write_text("{")
    assert [m["started"] for m in store.manifests()] == ["2024-01", "2024-02"]
    assert Store(store.root / "nowhere").manifests() == []
    assert Store(store.root / "nowhere").verify() == []


def test_lineage_names_inputs_before_what_uses_them(store):
    data = store.publish("data", "aa" * 32, fill("data"))
    net = store.publish("net", "bb" * 32, fill("net", lineage={"data": data.model_dump()}))
    chain = [net.model_dump(), data.model_dump()]
    top = store.publish("top", "cc" * 32, fill("top", lineage={"nets": chain, "more": {"net": net.model_dump()}}))
    assert [m["stage"] for m in store.lineage([top])] == ["data", "net", "top"]
    assert [m["stage"] for m in store.lineage([data, net])] == ["data", "net"]


def test_manifests_are_json_that_people_can_read(store, ref):
    text = (store.path(ref) / "manifest.json").read_text()
    assert json.loads(text)["files"]
    assert "\n" in text


@pytest.mark.parametrize(("mask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_files_are_as_open_as_the_umask_says(tmp_path, mask, mode):
    """Whatever the library that wrote them thinks: safetensors closes its own to the group."""
    before = os.umask(mask)
    try:
        store = Store(tmp_path / "store")

        def write(folder):
            (folder / "closed").write_text("x")
            (folder / "closed").chmod(0o600)
            return {}

        ref = store.publish("stage", KEY, write)
    finally:
        os.umask(before)
    assert {oct(p.stat().st_mode & 0o777) for p in store.path(ref).iterdir()} == {oct(mode)}
