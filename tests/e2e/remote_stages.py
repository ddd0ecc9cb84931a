"""Small stages of a run with a remote; imported by Ray's workers as well as by the test."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from featcx_core.specs import RunSpec, RuntimeSpec
from featcx_core.store.artifacts import ArtifactRef
from flows.job import Job
from flows.running.embedded import PrefectServer, prepare_environment, reporting_to
from flows.running.submitting import settled, submitter
from tasks.engine import Work, stage
from tasks.env import Env, opened

PARTS = 4
MEETING = "FEATCX_TEST_MEETING"  # a folder in which two machines see that the other has begun, too


@stage("part", label="{number}")
def part(work: Work, *, number: int) -> dict[str, object]:
    """Some bytes; of several machines that are to meet none has its own alone."""
    if meeting := os.environ.get(MEETING):
        (Path(meeting) / work.store.root.parent.name).touch()
        until = time.monotonic() + 120
        while len(list(Path(meeting).iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.1)
    (work.folder / "part.bin").write_bytes(bytes([number]) * 10_000)
    return {"where": str(work.store.root)}


@stage("pair", label="{label}")
def pair(work: Work, *, parts: list[ArtifactRef], label: str) -> dict[str, object]:
    """The bytes of its parts."""
    (work.folder / "pair.bin").write_bytes(b"".join((work.path(ref) / "part.bin").read_bytes() for ref in parts))
    return {"where": str(work.store.root)}


@stage("total", computes=False)
def total(work: Work, *, pairs: list[ArtifactRef], salt: str) -> dict[str, object]:
    """How many bytes there are."""
    found = b"".join((work.path(ref) / "pair.bin").read_bytes() for ref in pairs)
    (work.folder / "numbers.json").write_text(json.dumps({"bytes": len(found), "sum": sum(found)}))
    return {}


def stages(submit: Any, spec: RunSpec) -> Any:
    """Every pair takes parts that different machines have made."""
    parts = [submit(part, number=i) for i in range(PARTS)]
    pairs = [submit(pair, parts=[parts[i], parts[(i + 2) % PARTS]], label=str(i)) for i in range(PARTS)]
    return submit(total, pairs=pairs, salt=str(spec.seed))


def body(spec: RunSpec, env: Env) -> dict[str, Any]:
    """What the last stage found, and where the others ran."""
    submit, store = submitter(env), opened(env)
    last = stages(submit, spec)
    settled(submit.futures)
    numbers = json.loads((store.tables(last.result()) / "numbers.json").read_text())
    where = [store.manifest(f.result())["metrics"].get("where") for f in submit.futures]
    return {"numbers": numbers, "where": sorted({w for w in where if w}), "stages": submit.counts()}


def main(store: str, url: str, seed: int, runner: str, read_only: bool) -> None:
    """Runs them and prints the results."""
    prepare_environment(debug=False)
    runtime = RuntimeSpec.model_validate({"runner": runner, "remote": url, "remote_read_only": read_only})
    job: Job[RunSpec] = Job("parts", lambda s: "parts", lambda s, p: None, stages, body, lambda n, r: None)
    with PrefectServer() as server, reporting_to(server.url()):
        print(json.dumps(job(RunSpec(seed=seed, runtime=runtime), Path(store))))
