"""Stages of two chains, the first of which begins by waiting for the second; imported by the pool's processes too."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from featcx_core.specs import RunSpec
from featcx_core.store.artifacts import ArtifactRef
from flows.running.embedded import PrefectServer, prepare_environment, reporting_to
from flows.running.processes import ProcessPool
from flows.running.submitting import Submitter, finished, has_computed, new_env, settled
from tasks.engine import Work, stage


@stage("link", label="{number}", computes=False)
def link(work: Work, *, number: int, awaited: int | None, before: ArtifactRef | None) -> dict[str, object]:
    """Waits for another link of the same store, then says which process it ran in and what started that."""
    began, imported = time.time(), "torch._dynamo" in sys.modules
    while awaited is not None and not (work.store.root / f"link-{awaited}").exists():
        assert time.time() < began + 60, "the other chain did not start"
        time.sleep(0.05)
    (work.store.root / f"link-{number}").touch()
    (work.folder / "told.json").write_text(json.dumps([os.getpid(), os.getppid(), imported]))
    return {}


@stage("broken", computes=False)
def broken(work: Work, *, before: ArtifactRef | None) -> dict[str, object]:
    """Fails."""
    raise RuntimeError("the chain broke")


@flow(name="chains")
def chains(spec: RunSpec, store: str) -> None:
    """Links 0, 1, 2, 3 in a chain, the first of which waits for link 4."""
    submit, before = Submitter(new_env(spec, Path(store))), None
    for number in range(4):
        before = submit(link, number=number, awaited=None if number else 4, before=before)
    submit(link, number=4, awaited=None, before=None)
    settled(submit.futures)


@flow(name="failing")
def failing(spec: RunSpec, store: str) -> list[str]:
    """A chain whose first stage fails, and a link beside it: what each stage's failure is taken to be."""
    submit = Submitter(new_env(spec, Path(store)))
    first = submit(broken, before=None)
    second = submit(link, number=1, awaited=None, before=first)
    third = submit(link, number=2, awaited=None, before=second)
    beside = submit(link, number=3, awaited=None, before=None)
    finished(submit.futures)
    told = [repr(submit.failure(future)) for future in (first, second, third, beside)]
    try:
        settled(submit.futures)
    except RuntimeError as error:
        told.append(str(error))
    return [*told, str(has_computed(submit, third))]


def main_failing(store: str) -> None:
    """Prints what the failing flow told: with a pool of processes, and with threads once more."""
    prepare_environment(debug=False)
    with PrefectServer() as server, reporting_to(server.url()):
        runners = ProcessPool(max_workers=2), ThreadPoolTaskRunner(max_workers=10)
        print(
            json.dumps(
                [failing.with_options(task_runner=runner)(RunSpec(), store) for runner in (*runners, runners[0])]
            )
        )


def main(store: str) -> None:
    """Runs both chains on two processes and prints what their links told."""
    prepare_environment(debug=False)
    with PrefectServer() as server, reporting_to(server.url()):
        chains.with_options(task_runner=ProcessPool(max_workers=2))(RunSpec(), store)
    links = [json.loads(path.read_text()) for path in Path(store).glob("link/*/told.json")]
    module = sys.modules.get("prefect.server.api.server")  # imported where Prefect starts a server by itself
    servers = [] if module is None else list(module.SubprocessASGIServer._instances)
    print(json.dumps({"flow": os.getpid(), "links": links, "servers": servers}))
