"""Whole runs with a team's cache: a second home, a tampered file, a cluster whose machines share no folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from featcx_core.store.artifacts import Store
from featcx_core.store.remote.address import Address
from featcx_core.store.remote.cache import Remote
from featcx_core.store.remote.upkeep import faults
from tests.core.store.remote.servers import BUCKET, CREDENTIALS, s3_server
from tests.e2e.conftest import Finished, clean_environment, featcx, typed
from tests.e2e.remote_stages import MEETING, PARTS

ROOT = Path(__file__).parents[2]
WHOLE = {"bytes": 20_000 * PARTS, "sum": 20_000 * sum(range(PARTS))}


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A server whose address the environment names."""
    with s3_server() as url, pytest.MonkeyPatch.context() as patch:
        for name, value in (CREDENTIALS | {"AWS_ENDPOINT_URL": url}).items():
            patch.setenv(name, value)
        yield url


def ran(
    store: Path, url: str, seed: int = 0, runner: str = "threads", read_only: bool = False, **environment: str
) -> tuple[dict[str, Any], str]:
    """The results of the small stages, and what was told."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from tests.e2e.remote_stages import main; main({str(store)!r}, {url!r}, {seed}, {runner!r}, {read_only})",
        ],
        capture_output=True,
        text=True,
        env=clean_environment() | {"PYTHONPATH": str(ROOT)} | environment,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.slow
def test_a_run_with_tampered_files_begins_again_once_and_is_right(s3: str, tmp_path: Path) -> None:
    url = f"s3://{BUCKET}/tampered"
    first, _ = ran(tmp_path / "a", url)
    assert first["numbers"] == WHOLE
    assert first["remote"]["sent"] == first["stages"]["run"] == 2 * PARTS + 1
    address = Address(url)
    spoilt = [e.name for e in address.list("artifacts/pair") if e.name.endswith("pair.bin")][:3]
    for name in spoilt:
        address.create(b"\x07" * 20_000, name, over=True)
    found, told = ran(tmp_path / "b", url, seed=1)  # the last stage is another, so that it reads the pairs
    assert found["numbers"] == WHOLE
    assert found["remote"]["refused"] == 3
    assert told.count("is not what its manifest says; it is computed here") == 3
    _, faulty = faults(Remote(url))
    assert faulty == []  # who computed them again has mended the remote


@pytest.mark.slow
def test_who_only_reads_finds_what_the_team_has_signed_and_sends_nothing(s3: str, tmp_path: Path) -> None:
    url, key = f"s3://{BUCKET}/signed", "FEATCX_REMOTE_KEY"
    ran(tmp_path / "a", url, **{key: "the team's"})
    there = Address(url).list("artifacts")
    reader, _ = ran(tmp_path / "b", url, seed=1, read_only=True, **{key: "the team's"})  # of another last stage
    assert reader["numbers"] == WHOLE
    assert reader["stages"] == {"run": 1, "cached": 2 * PARTS}
    stranger, told = ran(tmp_path / "c", url, read_only=True, **{key: "another"})
    assert stranger["numbers"] == WHOLE
    assert stranger["stages"] == {"run": 2 * PARTS + 1, "cached": 0}
    assert "not signed with the team's key" in told
    assert Address(url).list("artifacts") == there


@pytest.mark.slow
def test_a_second_home_finds_a_whole_run_cached(s3: str, store: Path, first: Finished, tmp_path: Path) -> None:
    url = f"s3://{BUCKET}/whole"
    pushed = featcx("remote", "push", "--all", "--store", store, "--remote", url)
    assert pushed.code == 0, pushed.err
    plan = typed("plan", "digits", "--store", tmp_path / "b", "--remote", url, json_file=tmp_path / "plan.json")
    assert plan.json["miss"] == plan.json["open"] == 0, plan.out
    assert plan.json["away"] == plan.json["hit"]
    second = featcx("run", "digits", "--store", tmp_path / "b", json_file=tmp_path / "b.json", FEATCX_REMOTE=url)
    assert second.code == 0, second.err
    assert second.json["stages"] == {"run": 0, "cached": first.json["stages"]["run"]}
    assert second.json["orders"] == first.json["orders"]
    assert second.json["variants"] == first.json["variants"]
    (report,) = (m for m in Store(tmp_path / "b").manifests())  # nothing else was fetched whole
    assert report["stage"] == "report"
    assert report in Store(store).manifests()
    whole = sum(file["bytes"] for file in report["files"].values())
    assert second.json["remote"]["bytes_fetched"] < whole + 2e6  # and of all others tables and numbers


@pytest.mark.slow
def test_a_cluster_without_a_shared_folder(s3: str, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    pytest.importorskip("prefect_ray", reason="the extra `ray` is not installed")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"num_cpus": 0, "include_dashboard": False})
    try:
        (tmp_path / "meeting").mkdir()
        for name in ("one", "two"):
            home = tmp_path / name
            home.mkdir()
            own = {"FEATCX_NODE_STORE": str(home / "store"), "HOME": str(home), MEETING: str(tmp_path / "meeting")}
            cluster.add_node(**node, env_vars=os.environ | own)
        cluster.wait_for_nodes()
        driver = tmp_path / "driver"
        found, _ = ran(driver, f"s3://{BUCKET}/ray", runner="ray", RAY_ADDRESS=cluster.address)
    finally:
        cluster.shutdown()
    assert found["numbers"] == WHOLE
    assert found["where"] == [str(tmp_path / name / "store") for name in ("one", "two")]
    made = [
        {f"{m['stage']}/{m['key']}" for m in Store(tmp_path / name / "store").manifests()} for name in ("one", "two")
    ]
    assert all(made)
    assert {m["stage"] for m in Store(driver).manifests()} == {"pair", "total"}  # what its own machine needed and made
