"""A stage that says where Ray placed it; imported by Ray's workers as well as by the test."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from prefect import flow

from featcx_core.specs import RunSpec, RuntimeSpec
from featcx_core.store.artifacts import Store
from flows.running.embedded import PrefectServer, prepare_environment, reporting_to
from flows.running.submitting import Submitter, new_env, settled, task_runner
from tasks.engine import Work, stage


@stage("where", label="{shard}")
def where(work: Work, *, shard: int) -> dict[str, object]:
    """Holds its place until another shard holds one too."""
    here, began = work.store.root / ".here", time.time()
    here.mkdir(exist_ok=True)
    own = here / str(shard)
    own.touch()
    while len(list(here.iterdir())) < 2 and time.time() < began + 120:
        time.sleep(0.05)
    time.sleep(1)
    own.unlink()
    told = {"gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "from": began, "to": time.time()}
    (work.folder / "where.json").write_text(json.dumps(told))
    return {}


@flow(name="where")
def everywhere(spec: RunSpec, store: str, shards: int) -> None:
    """As many shards as asked for, each on a GPU of its own."""
    submit = Submitter(new_env(spec, Path(store)))
    for shard in range(shards):
        submit(where, shard=shard)
    settled(submit.futures)


def main(store: str, shards: int) -> None:
    """Places the shards by Ray and prints what they told."""
    import ray

    prepare_environment(debug=False)
    spec = RunSpec(runtime=RuntimeSpec(runner="ray"))
    with PrefectServer() as server, reporting_to(server.url()):
        ray.init(num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False)
        everywhere.with_options(task_runner=task_runner(spec))(spec, store, shards)
    root, manifests = Store(store).root, Store(store).manifests()
    print(json.dumps([json.loads((root / "where" / m["key"] / "where.json").read_text()) for m in manifests]))
