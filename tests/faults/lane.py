"""A process that forks one run after the other, a store that is known whole, and what is checked after each fault."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import importlib
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from featcx_core.kernels import user_cache
from featcx_core.store.artifacts import Damage, Store
from tests.e2e.conftest import LEAN, TINY
from tests.faults.steps import SETTINGS, install

if TYPE_CHECKING:
    from featcx_core.specs import RunSpec
    from tasks.env import Env

HERE = Path(__file__).parent
FLOW = ["run", "digits", *LEAN, *TINY, "--set", "reliability.enabled=false", "--set", "disentangler.blocks=1"]
SAVES = 0.1  # seconds between a training's checkpoints: of trainings that take one
ALLOWED = 120.0  # seconds for a run, more than which it hangs


class Run:
    """A forked run: its process and what it said."""

    def __init__(self, process: int, said: Path) -> None:
        self.process, self.path, self.code = process, said, None

    def wait(self, seconds: float = ALLOWED) -> int | None:
        """Its exit code, negative for a signal; None when it does not end in time."""
        until = time.monotonic() + seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        while self.code is None and time.monotonic() < until:
            done, status = os.waitpid(self.process, os.WNOHANG)
            if done:
                self.code = os.waitstatus_to_exitcode(status)
            else:
                time.sleep(0.01)
        return self.code

    def end(self) -> None:
        """Whatever it does, it ends."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process, signal.SIGKILL)
        self.wait(5)

    @property
    def said(self) -> str:
        """What it printed."""
        return self.path.read_text(errors="replace")


class Found(NamedTuple):
    """What a fault left and what the run after it made of that: nothing of this but `words` of a good run is above zero."""

    lost: int
    beyond: int
    outside: int
    words: list[str]


class Lane:
    """A folder with a store, a home and a temporary folder of its own, in which one fault follows another."""

    def __init__(self, root: Path, alone: bool = False) -> None:
        self.root, self.store, self.number, self.alone = root, root / "store", 0, alone
        self.whole, self.account, self.once = root / "whole", root / "lane" / "account", root / "lane" / "once"
        for name in ("lane", "home", "work", "tmp", "beside"):
            (root / name).mkdir(parents=True)
        for name in ("home", "work", "beside"):
            (root / name / "precious.txt").write_text("nobody touches this")
        self.server, self.url = (None, "") if alone else _server(root / "lane")
        done = self.start({"imported": str(root / "lane" / "imported")}, own_server=True, runner=self.usual)
        if done.wait() != 0:
            raise RuntimeError(f"The run without a fault failed: {done.said}")
        import_all((root / "lane" / "imported").read_text().split())
        know_all(self.store)
        self.seconds = self.timed()
        self.store.rename(self.whole)
        self.artifacts = {f"{m['stage']}/{m['key']}": m for m in Store(self.whole).manifests()}
        self.before = self.beside()

    @property
    def usual(self) -> str:
        """What runs a recipe where a fault asks for nothing else: `alone` does without Prefect, as a notebook does."""
        return "alone" if self.alone else "threads"

    def timed(self) -> float:
        """Seconds of a run that finds all."""
        began = time.monotonic()
        self.start({}).wait()
        return time.monotonic() - began

    @property
    def slow(self) -> float:
        """How many times slower than on a quiet machine this one is now: time limits are stretched by it."""
        return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))

    def until_busy(self, run: Run) -> None:
        """Waits until a run has told something of its stages."""
        while run.wait(0.02) is None and not list(self.store.glob(".runs/*/*.json")):
            pass

    def servers(self) -> list[int]:
        """The processes of servers that a run has started."""
        mark, found = f"LANE={self.root}".encode(), []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if b"temporary_server" in (path / "cmdline").read_bytes() and mark in (path / "environ").read_bytes():
                    found.append(int(path.name))
        return found

    def reset(self, missing: list[str]) -> None:
        """The whole store again, without some artifacts."""
        shutil.rmtree(self.store, ignore_errors=True)
        shutil.rmtree(self.root / "tmp")
        (self.root / "tmp").mkdir()
        shutil.copytree(self.whole, self.store)
        shutil.rmtree(self.store / ".runs")
        for path in missing:
            shutil.rmtree(self.store / path)
        for path in (self.account, self.once):
            path.unlink(missing_ok=True)

    def start(self, fault: dict[str, Any], *, own_server: bool = False, runner: str = "", url: str = "") -> Run:
        """Forks a run that something goes wrong in, or nothing."""
        self.number += 1
        runner = runner or self.usual
        said = self.root / "lane" / f"{self.number}.txt"
        settings = {"nth": 0, "seed": 0, "action": "", "step": ""} | fault
        settings |= {"runner": runner, "store": str(self.store), "account": str(self.account), "once": str(self.once)}
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "FEATCX"))},
            "HOME": str(self.root / "home"),
            "TMPDIR": str(self.root / "tmp"),
            "PYTHONPATH": os.pathsep.join([str(HERE / "site"), *sys.path]),
            "LANE": str(self.root),
            "XDG_CACHE_HOME": str(user_cache().parent),
        }
        if not own_server:
            environment |= {"PREFECT_API_URL": url or self.url, "PREFECT_HOME": str(self.root / "lane")}
        process = os.fork()
        if process == 0:
            _run(
                [*FLOW, "--store", str(self.store), "--runner", runner], environment, settings, said, self.root / "work"
            )
        return Run(process, said)

    def beside(self) -> dict[str, str]:
        """All that lies beside the store, by its bytes."""
        return {
            str(path.relative_to(self.root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for name in ("home", "work", "beside", "whole")
            for path in sorted((self.root / name).rglob("*"))
            if path.is_file()
        }

    def accounted(self) -> dict[str, Counter[str]]:
        """How often each artifact was published, and damaged by the fault."""
        found = {"published": Counter[str](), "damaged": Counter[str]()}
        for line in self.account.read_text().splitlines() if self.account.exists() else ():
            what, _, artifact = line.partition(" ")
            found[what][artifact] += 1
        return found

    def note(self, what: str, artifact: str) -> None:
        """The harness's own damage in the same account."""
        with self.account.open("a") as file:
            file.write(f"{what} {artifact}\n")

    def lost(self, missing: list[str]) -> tuple[int, list[str]]:
        """Bytes of what was there, or was published, and is not whole, though the fault did not damage it; half-written."""
        account, place = self.accounted(), Store(self.store)
        there = (self.artifacts.keys() - missing) | account["published"].keys()
        damaged: list[Damage] = place.verify() if self.store.exists() else []
        bad = {damage.artifact for damage in damaged if "/" in damage.artifact and damage.artifact[0] != "."}
        gone = {path for path in there if not (self.store / path / "manifest.json").exists()}
        lost = [p for p in (bad | gone) & there if not account["damaged"][p]]
        half = [f"{p} is half-written" for p in bad - there if not account["damaged"][p]]
        return sum(sum(f["bytes"] for f in self.artifacts[p]["files"].values()) for p in lost), half

    def locks_held(self) -> list[str]:
        """Locks that nobody can hold, since no process of the run is left."""
        held = []
        for path in [*self.store.glob(".locks/*"), *(self.root / "tmp").glob("featcx-*/*")]:
            if path.is_file():
                with path.open() as file:
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        held.append(f"{path.name} is held")
        return held

    def left_running(self, patience: float = 8.0) -> list[str]:
        """Processes of a run that has ended."""
        until, mark = time.monotonic() + patience, f"LANE={self.root}".encode()
        while True:
            found = []
            for path in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    if mark in (path / "environ").read_bytes().split(b"\0"):
                        found.append(f"process {path.name} is left: {(path / 'cmdline').read_bytes()[:200]!r}")
            if not found or time.monotonic() > until:
                return found
            time.sleep(0.05)

    def judge(self, missing: list[str], ended: Run | None) -> Found:
        """What a fault has left; then the run after it, and all that must hold."""
        words = self.left_running()
        if ended is not None:
            ended.end()
            if "Traceback" in ended.said:
                words.append("it ended in a traceback")
        lost, half = self.lost(missing)
        words += half + self.locks_held()
        again = self.start({})
        if (code := again.wait()) != 0:
            words.append(f"the run after it ended with {code}: {again.said[-400:]}")
        again.end()
        words += self.left_running()
        words += [f"{p.name} is left in TMPDIR" for p in (self.root / "tmp").iterdir() if "devices" not in p.name]
        account = self.accounted()
        needed = Counter(missing) + account["damaged"]
        beyond = account["published"] - needed
        words += [f"{p} was computed {n} times beyond the least" for p, n in beyond.items()]
        words += self.different()
        now = self.beside()
        outside = [p for p in self.before.keys() | now.keys() if self.before.get(p) != now.get(p)]
        words += [f"{p} was touched" for p in outside]
        return Found(lost, beyond.total(), len(outside), words)

    def different(self) -> list[str]:
        """Artifacts that are not byte for byte those of a run without a fault."""
        place, words = Store(self.store), []
        for path, expected in self.artifacts.items():
            stage, _, key = path.partition("/")
            ref = place.find(stage, key)
            if ref is None or ref.digest != expected["digest"]:
                words.append(f"{path} is not what it was")
        return words

    def close(self) -> None:
        """Ends the server."""
        if self.server is not None:
            self.server.kill()
            self.server.wait()


def asked() -> RunSpec:
    """What the runs are to analyse."""
    from flows.asked import Asked

    return Asked(FLOW[1], changes=FLOW[3::2]).run()


def run_alone(store: Path) -> None:
    """The flow's own stages in this process, begun again where something has vanished; an error is told in a line.

    Without the report, which takes as long as all the others.
    """
    from flows.analyze import analyze, stages
    from flows.running.here import Here
    from flows.running.submitting import new_env
    from tasks.present import report

    def body(spec: RunSpec, env: Env) -> dict[str, Any]:
        with Here(env) as submit:
            stages(lambda stage, *scope, **given: submit(stage, *scope, **given) if stage is not report else None, spec)
            submit.settled()
        return {}

    spec = asked()
    try:
        dataclasses.replace(analyze, body=body).within(spec, new_env(spec, store), "alone")
    except Exception as error:
        print(f"The run failed ({type(error).__name__}: {error}).")
        sys.exit(1)


def know_all(store: Path) -> None:
    """What runs work out of texts and data that stay, such as versions of code, is known before they are forked."""
    from flows.analyze import analyze
    from flows.planning.plan import looked_at, rates_here

    rates_here(asked())
    looked_at(analyze, asked(), store)


def import_all(names: list[str]) -> None:
    """What a run has imported is imported here, where runs are forked from: no later one spends its seconds on that."""
    for name in names:
        with contextlib.suppress(Exception):  # some modules are made, not imported
            importlib.import_module(name)


def _run(argv: list[str], environment: dict[str, str], settings: dict[str, Any], said: Path, cwd: Path) -> None:
    """What a forked process does: it becomes the command."""
    code = 1
    try:
        os.setsid()
        out = os.open(said, os.O_WRONLY | os.O_CREAT)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, number in ((null, 0), (out, 1), (out, 2)):
            os.dup2(source, number)
        settings["main"] = os.getpid()
        os.environ.clear()
        os.environ.update(environment | {SETTINGS: json.dumps(settings)})
        os.chdir(cwd)
        sys.path.insert(0, str(HERE / "site"))  # where the processes of a pool find modules, too
        tempfile.tempdir, sys.argv = None, ["featcx", *argv]
        if "prefect" in sys.modules:  # it read its settings when it was imported
            sys.modules["prefect.context"].refresh_global_settings_context()
        install(settings)
        if settings["runner"] == "alone":
            run_alone(Path(settings["store"]))
            code = 0
        else:
            from flows.cli import main

            main()
    except SystemExit as left:
        code = int(left.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        if told := settings.get("imported"):
            Path(told).write_text("\n".join(sys.modules))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _server(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A Prefect server that runs of this lane share, as those of a user share one; some start their own instead."""
    import socket
    import urllib.request

    from flows.running.embedded import QUIET, SERVER

    template = user_cache() / f"prefect-{importlib.metadata.version('prefect')}.db"
    if template.exists():
        shutil.copyfile(template, folder / "prefect.db")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/api"
        own = {
            "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder}/prefect.db",
            "PREFECT_HOME": str(folder),
        }
        process = subprocess.Popen(
            [sys.executable, "-P", SERVER, str(bound.fileno())],
            env={n: v for n, v in os.environ.items() if n != "LD_PRELOAD"} | QUIET | own,
            stdin=subprocess.PIPE,
            pass_fds=[bound.fileno()],
            start_new_session=True,
            cwd=folder,
        )
    for _ in range(3000):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
            return process, url
        time.sleep(0.1)
    raise RuntimeError("The server did not start")
