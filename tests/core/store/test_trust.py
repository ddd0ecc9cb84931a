"""A store may come from a stranger: whatever its files say, nothing outside is touched, and no wrong artifact is served."""

import json
import random
import shutil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from featcx_core.errors import InputError
from featcx_core.store.artifacts import ArtifactRef, Store, references
from featcx_core.store.pruning import left_over, remove, superfluous
from featcx_core.store.trust import as_written, inside, read_json
from tests.faults.mutations import PRECIOUS, mutated, small_files

KEYS = {"data": "d" * 64, "target": "1" * 64, "report": "3" * 64}


def publish(store, stage, started, **lineage):
    def fill(folder):
        (folder / "payload").write_bytes(b"x" * 1000)
        return {"started": started, "label": stage, "lineage": TypeAdapter(Any).dump_python(lineage)}

    return store.publish(stage, KEYS[stage], fill)


def made(root):
    """A store of a data set, a target and a report, with the notes, locks and records of a run."""
    store = Store(root / "store")
    data = publish(store, "data", "1")
    target = publish(store, "target", "2", data=data)
    report = publish(store, "report", "3", target=target, more=[{"deep": data}])
    for ref in (data, target, report):
        assert store.find(ref.stage, ref.key) == ref
        note = store.root / ".runs" / "r1" / f"{ref.stage}-{ref.key}.json"
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps([ref.stage, "cached", 0, 0, "", 1.0, 0.0, None]))
        with store.lock(ref.stage, ref.key):
            pass
    (root / "outside").mkdir()
    (root / "outside" / "thesis.txt").write_bytes(PRECIOUS)
    return store, {ref.stage: ref for ref in (data, target, report)}


def outside(root):
    """All that lies beside the store."""
    return {
        p: p.read_bytes() if p.is_file() else b"" for p in root.rglob("*") if "store" not in p.relative_to(root).parts
    }


@given(
    st.lists(st.text(max_size=8) | st.sampled_from(["..", ".", "/", "/etc", "a/../..", "", "a\\b", "x\0y"]), min_size=1)
)
def test_no_name_leads_out_of_a_folder(tmp_path_factory, names):
    root = tmp_path_factory.getbasetemp() / "root"
    try:
        path = inside(root, *names)
    except InputError:
        return
    assert path.resolve().is_relative_to(root.resolve())
    assert path != root


def test_no_link_leads_out_of_a_store(tmp_path):
    store, refs = made(tmp_path)
    shutil.rmtree(store.root / "target")
    (tmp_path / "outside" / KEYS["target"]).mkdir()
    (store.root / "target").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="symbolic link"):
        store.path(refs["target"])
    with pytest.raises(InputError, match="symbolic link"):
        store.publish("target", KEYS["target"], lambda folder: {})
    assert store.find("target", KEYS["target"]) is None
    assert any(damage.artifact.startswith("target") for damage in store.verify())


@pytest.mark.parametrize("seed", range(3))
def test_mutated_files_neither_lead_out_nor_are_believed(tmp_path, seed):
    """100 mutations of manifests, notes of checks and of runs, and locks; `python -m tests.faults.fuzz store` does more."""
    store, refs = made(tmp_path)
    kept, before = tmp_path / "kept", outside(tmp_path)
    shutil.copytree(store.root, kept)
    small = [path.relative_to(kept) for path in small_files(kept)]
    chance = random.Random(seed)
    for _ in range(100):
        place = chance.choice(small)
        shutil.rmtree(store.root)
        shutil.copytree(kept, store.root)
        (store.root / place).write_bytes(mutated((kept / place).read_bytes(), chance))
        for ref in refs.values():
            found = store.find(ref.stage, ref.key)
            assert found is None or found == ref, place
        store.verify()
        store.lineage(refs.values())
        for m in store.manifests():
            assert store.resolve(f"{m['stage']}/{m['key']}") == m
        left_over(store, older_than=-1)
        remove(store, superfluous(store, 0, None), left_over(store, older_than=-1))
        remove(store, superfluous(store, 0, 0), [])
        now = outside(tmp_path)
        assert {p: v for p, v in now.items() if kept not in (p, *p.parents)} == before


def test_a_link_anywhere_is_told_and_never_followed(tmp_path):
    store, _ = made(tmp_path)
    for place in (".checks/x.json", ".runs/r1/y.json", f"data/{KEYS['data']}/more"):
        (store.root / place).symlink_to(tmp_path / "outside" / "thesis.txt")
    told = {(d.artifact, d.file) for d in store.verify()}
    assert {(".checks", "x.json"), (".runs/r1", "y.json"), (f"data/{KEYS['data']}", "more")} <= told
    remove(store, superfluous(store, 0, None), left_over(store, older_than=-1))
    assert (tmp_path / "outside" / "thesis.txt").read_text() == "precious"


def test_what_only_looks_like_a_reference_is_passed_over():
    good = {"stage": "data", "key": "k", "digest": "d"}
    assert (
        references({"a": [good, {"stage": "..", "key": "k", "digest": "d"}], "b": {"c": good}})
        == [ArtifactRef(**good)] * 2
    )
    nest = []
    for _ in range(100_000):
        nest = [nest]
    assert references(nest) == []


def test_a_manifest_in_which_a_bit_has_flipped_counts_for_nothing(tmp_path):
    """Wherever: in white space it may stand, since nothing else is said."""
    store, refs = made(tmp_path)
    manifest, chance = store.path(refs["target"]) / "manifest.json", random.Random(0)
    whole = manifest.read_bytes()
    for _ in range(200):
        flipped, place = bytearray(whole), chance.randrange(len(whole))
        flipped[place] ^= 1 << chance.randrange(8)
        manifest.write_bytes(flipped)
        told = store.verify()
        assert told or json.loads(flipped) == json.loads(whole) or b'"seal"' not in flipped
    manifest.write_bytes(whole)
    assert store.verify() == []


def test_lineage_ends_where_a_circle_or_a_gap_begins(tmp_path):
    store, refs = made(tmp_path)
    manifest = store.path(refs["data"]) / "manifest.json"
    told = json.loads(manifest.read_text()) | {"lineage": {"report": refs["report"].model_dump()}, "seal": None}
    manifest.write_text(json.dumps(told))
    assert sorted(m["stage"] for m in store.lineage([refs["report"]])) == ["data", "report", "target"]
    shutil.rmtree(store.path(refs["data"]))
    assert [m["stage"] for m in store.lineage([refs["report"]])] == ["target", "report"]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": NaN}', '{"a": Infinity}', "\xff", "", "{"])
def test_text_that_is_no_json_is_a_value_error(tmp_path, text):
    (tmp_path / "x").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"."):
        read_json(tmp_path / "x")


def test_what_a_live_run_has_noted_is_not_pruned(tmp_path):
    store, refs = made(tmp_path)
    (store.root / ".runs" / "r1" / f"report-{KEYS['report']}.json").unlink()
    lease = store.lease("r1")
    assert store.live_runs() == ["r1"]
    assert [m["stage"] for m in superfluous(store, 0, None)] == ["report"]
    going = [store.manifest(ref) for ref in refs.values()]  # as if the notes came after the choice
    gone, _ = remove(store, going, [])
    assert [m["stage"] for m in gone] == ["report"]
    assert store.find("data", KEYS["data"]) == refs["data"]
    assert left_over(store, older_than=-1) == []
    lease.close()
    assert store.live_runs() == []
    assert len(superfluous(store, 0, None)) == 2


@pytest.mark.parametrize(
    "error", [KeyError("settings"), TypeError("no\nlines"), MemoryError(), ValueError("x" * 10_000)]
)
def test_what_is_not_as_written_is_told_in_a_line(error):
    with pytest.raises(InputError, match=type(error).__name__) as told, as_written("The run"):
        raise error
    assert len(str(told.value)) < 500
    assert "\n" not in str(told.value)
    with pytest.raises(InputError, match=r"^as it is$"), as_written("The run"):
        raise InputError("as it is")
