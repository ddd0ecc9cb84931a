"""One real run of the `digits` preset, shared by the tests of this folder."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest

from flows.cli import main
from flows.running.embedded import PrefectServer


class Finished(NamedTuple):
    """A finished command: exit code, what it printed, its --json if it wrote one, seconds of the processors."""

    code: int
    out: str
    err: str
    json: dict[str, Any]
    cpu_seconds: float


LEAN = [
    argument
    for off in ("variants.distilled", "variants.pruned", "variants.quantised", "substitution.control")
    for argument in ("--set", f"{off}=false")
]  # the target alone


TINY = [
    argument
    for setting in (
        "disentangler.blocks=1,2",
        "disentangler.schedule.draws=640",
        "target.schedule.draws=1280",
        "exemplary.schedule.draws=1280",
        "reliability.schedule.draws=640",
        "reliability.cycle_steps=200",
        "components.rows=60",
        "analysis.bootstrap=200",
    )
    for argument in ("--set", setting)
]  # on digits a target takes seconds

UNJUDGED = ["--set", "disentangler.continuation=false"]  # no net trained on, no null target: a third of the trainings


def cpu_seconds() -> float:
    """Of all processes that this one has started and that have ended: other programs do not lengthen it much."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def clean_environment() -> dict[str, str]:
    """This process's environment without settings of Prefect and featcx."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "FEATCX"))}


def featcx(
    *arguments: str | Path, json_file: Path | None = None, cwd: Path | None = None, **environment: str
) -> Finished:
    """Runs the command line in a process of its own."""
    command = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
    if json_file is not None:
        command += ["--json", str(json_file)]
    before = cpu_seconds()
    environment = clean_environment() | environment
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, check=False)
    found = json.loads(json_file.read_text()) if json_file is not None and json_file.exists() else {}
    return Finished(done.returncode, done.stdout, done.stderr, found, cpu_seconds() - before)


def typed(
    *arguments: str | Path, json_file: Path | None = None, cwd: Path | None = None, **environment: str
) -> Finished:
    """Runs the command line in this process, where it takes seconds less: for what ends before a flow begins."""
    command = ["featcx", *map(str, arguments), *(["--json", str(json_file)] if json_file else [])]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    out, err, before = io.StringIO(), io.StringIO(), time.process_time()
    try:
        with (
            patch.object(PrefectServer, "_start", lambda _: ""),  # which starts while the input is read
            patch.object(sys, "argv", command),
            patch.dict(os.environ, clean_environment() | environment, clear=True),
            contextlib.chdir(cwd or "."),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as left,
        ):
            main()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    found = json.loads(json_file.read_text()) if json_file is not None and json_file.exists() else {}
    code = left.value.code or 0
    return Finished(int(code), out.getvalue(), err.getvalue(), found, time.process_time() - before)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the shared run."""
    return tmp_path_factory.mktemp("run") / "store"


@pytest.fixture(scope="session")
def first(store: Path) -> Finished:
    """`featcx run digits` into a fresh store."""
    done = featcx("run", "digits", "--store", store, json_file=store.parent / "first.json", PYTHONHASHSEED="1")
    assert done.code == 0, done.err + done.out
    return done
