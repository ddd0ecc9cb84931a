"""`featcx remote`: what is there, what comes and goes, and what is said when it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from featcx_core.store.artifacts import Store
from tests.core.store.remote.homes import KEYS, chain
from tests.e2e.conftest import typed


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A folder that serves as a remote."""
    return f"file://{tmp_path}/served"


def test_an_artifact_goes_there_comes_back_and_is_looked_after(url: str, tmp_path: Path) -> None:
    refs = chain(Store(tmp_path / "a"))
    a, b = ("--remote", url, "--store", tmp_path / "a"), ("--remote", url, "--store", tmp_path / "b")
    pushed = typed("remote", "push", KEYS["report"][:12], *a)
    assert pushed.out.startswith("3 artifacts sent, 0."), pushed.err
    assert typed("remote", "push", "--all", *a).out == "0 artifacts sent, 0.0 MB; 3 were there.\n"
    status = typed("remote", "status", *b, json_file=tmp_path / "status.json")
    assert {row["path"] for row in status.json["artifacts"]} == {ref.path for ref in refs.values()}
    assert not any(row["here"] for row in status.json["artifacts"])
    assert typed("remote", "pull", f"report/{KEYS['report'][:8]}", *b).out.startswith("3 artifacts are here; 3 fetched")
    assert Store(tmp_path / "b").manifests() == Store(tmp_path / "a").manifests()
    assert typed("remote", "verify", "--remote", url).out == "3 artifacts, all whole\n"
    kept = typed("remote", "gc", "--keep-days", "0", "--max-size", "0", "--remote", url)
    assert kept.out == "0 artifacts (0.0 MB) removed\n"  # what was pushed by its key stays
    (payload,) = (tmp_path / "served" / "artifacts" / "net" / KEYS["net"]).glob("*/part/payload.bin")
    payload.write_bytes(b"other")
    damaged = typed("remote", "verify", "--remote", url, json_file=tmp_path / "verify.json")
    assert damaged.code == 1
    assert [fault["artifact"] for fault in damaged.json["faults"]] == [f"net/{KEYS['net']}"]
    (tmp_path / "served" / "pinned" / "report" / KEYS["report"]).unlink()
    assert "3 artifacts" in typed("remote", "gc", "--max-size", "0", "--dry-run", "--remote", url).out
    assert payload.exists()
    assert typed("remote", "gc", "--max-size", "0", "--remote", url).code == 0
    assert not payload.exists()


def test_the_environment_names_the_remote(url: str, tmp_path: Path) -> None:
    status = typed("remote", "status", "--store", tmp_path, FEATCX_REMOTE=url)
    assert f"{url}: 0 artifacts" in status.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("status",), "Say where the team's cache is"),
        (("gc", "--remote", "file:///nowhere"), "Say what to keep"),
        (("gc", "--keep-days", "-1", "--remote", "file:///tmp/none"), "cannot be negative"),
        (("pull", "abc", "--remote", "file:///nowhere"), "No artifact at file:///nowhere"),
        (("verify", "--remote", "quux://x"), "No driver opens quux://"),
        (("verify", "--remote", "bucket"), "write s3://bucket/folder"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(arguments: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    done = typed("remote", *arguments, cwd=tmp_path)
    assert done.code == 2
    assert sentence in done.err
    assert "Traceback" not in done.err


def test_a_run_with_an_address_that_nothing_opens_begins_nothing(tmp_path: Path) -> None:
    done = typed("run", "digits", "--remote", "quux://x", "--store", tmp_path / "s", cwd=tmp_path)
    assert done.code == 2
    assert "No driver opens quux://" in done.err
    assert not (tmp_path / "s").exists()
    assert json.dumps(done.json) == "{}"
