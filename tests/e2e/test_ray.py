"""Placement by Ray: GPUs of one's own, and a sweep that outlives one of its two nodes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from featcx_core.store.artifacts import Store
from tests.e2e.conftest import TINY, UNJUDGED, clean_environment, featcx

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytest.importorskip("prefect_ray", reason="the extra `ray` is not installed")
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_shards_that_run_at_once_see_different_gpus(tmp_path: Path) -> None:
    """Ray is told of two GPUs, which this machine need not have: it hands out their numbers all the same."""
    done = subprocess.run(
        [sys.executable, "-c", f"from tests.e2e.ray_stages import main; main({str(tmp_path / 'store')!r}, 2)"],
        capture_output=True,
        text=True,
        env=clean_environment() | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    shards = json.loads(done.stdout.splitlines()[-1])
    assert len(shards) == 2
    assert {shard["gpu"] for shard in shards} == {"0", "1"}
    first, second = shards
    assert first["from"] < second["to"]
    assert second["from"] < first["to"]


@pytest.mark.slow
def test_a_sweep_outlives_one_of_two_nodes(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    sizes = ("--sizes", "40,80", "--set", "reliability.enabled=false")
    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        second = cluster.add_node(**node)
        cluster.wait_for_nodes()
        command = [sys.executable, "-m", "flows.cli", "sweep", "digits", *TINY, *UNJUDGED, *sizes, "--runner", "ray"]
        store, json_file = tmp_path / "store", tmp_path / "sweep.json"
        with subprocess.Popen(
            [*command, "--device", "cpu", "--store", str(store), "--json", str(json_file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean_environment() | {"RAY_ADDRESS": cluster.address},
        ) as process:
            while not list(store.glob("disentangler/*/manifest.json")):
                assert process.poll() is None, process.communicate()[0]
                time.sleep(0.1)
            cluster.remove_node(second, allow_graceful=False)
            out, _ = process.communicate(timeout=600)
        assert process.returncode == 0, out
    finally:
        cluster.shutdown()
    found = json.loads(json_file.read_text())
    assert [point["name"] for point in found["points"]] == ["resnet8-n40-s0", "resnet8-n80-s0"]
    alone = featcx("sweep", "digits", *TINY, *UNJUDGED, *sizes, "--device", "cpu", "--store", tmp_path / "alone")
    assert alone.code == 0, alone.err
    a, b = ({(m["stage"], m["key"]): m["digest"] for m in Store(s).manifests()} for s in (store, tmp_path / "alone"))
    assert a == b
