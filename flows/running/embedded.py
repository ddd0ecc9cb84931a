"""Prefect without a server to start: one temporary server for a run and all its workers, with a database of its own."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import importlib.metadata
import multiprocessing
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import IO

from featcx_core.errors import InputError
from featcx_core.kernels import user_cache

QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",  # a temporary server that ends may leave a last note unwritten
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
}


LOGS = "PREFECT_LOGGING_TO_API_ENABLED"
ALIVE = "alive"
RESTARTS = 3  # of a run's own server
SERVER = Path(__file__).with_name("temporary_server.py")


HEEDED = frozenset(
    ("PREFECT_LOGGING_LEVEL", "PREFECT_SERVER_LOGGING_LEVEL", LOGS)
)  # of a user's settings, beside QUIET


def prepare_environment(debug: bool) -> None:
    """Sets what Prefect reads on import; what the user has set stays. Call before importing prefect."""
    reach_this_machine()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if debug:
        os.environ["PREFECT_LOGGING_LEVEL"] = "INFO"


def reach_this_machine() -> None:
    """No proxy stands between a process and its own machine."""
    for name in ("no_proxy", "NO_PROXY"):
        known = os.environ.get(name, os.environ.get(name.swapcase(), ""))
        os.environ[name] = ",".join(dict.fromkeys([*filter(None, known.split(",")), "127.0.0.1", "localhost", "::1"]))


_stops: list[
    Callable[[int, FrameType | None], None]
] = []  # of the contexts entered; a flow that held one could not travel


def heed_sigterm() -> None:
    """Has SIGTERM end a flow of the command line as it ends all else: Prefect's own handler waits for all trainings."""
    if _stops and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _stops[-1])


class PrefectServer:
    """The API to report to: the user's own where PREFECT_API_URL names one, else a temporary server with a fresh database.

    A context: entering it begins the start in the background, `url` waits for it, leaving it stops the server.
    """

    def __init__(self) -> None:
        self.own = os.environ.get("PREFECT_API_URL")
        remove_left_over()
        self.folder = tempfile.TemporaryDirectory(prefix="featcx-", ignore_cleanup_errors=True)
        self.alive = _held(Path(self.folder.name))
        # Else Python makes a folder of its own for a pool's sockets, which a killed run would leave for good.
        multiprocessing.current_process()._config.setdefault("tempdir", self.folder.name)  # type: ignore[attr-defined]
        self.starting: Future[str] | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.bound, self.ending = socket.socket(), False

    def __enter__(self) -> PrefectServer:
        _stops.append(self._stop_at_once)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop_at_once)
        if self.own is not None:
            answering(self.own)
        else:
            self._forget_settings()
            os.environ.setdefault(LOGS, "false")  # nobody reads those of a server that ends with the run
            self.starting = ThreadPoolExecutor(1).submit(self._start)
        return self

    def _forget_settings(self) -> None:
        """Has Prefect see none of the user's settings: a login, a profile or a `prefect.toml` is meant for another server."""
        for name in [name for name in os.environ if name.startswith("PREFECT_") and name not in HEEDED | QUIET.keys()]:
            del os.environ[name]
        os.environ["PREFECT_HOME"] = self.folder.name
        try:
            Path.home()
        except RuntimeError:  # nobody's; Prefect asks for it on import
            os.environ["HOME"] = self.folder.name
        with contextlib.chdir(self.folder.name):  # which holds no .env and no prefect.toml
            from prefect.settings import get_current_settings

            get_current_settings()

    def url(self) -> str:
        """The API's address, once it answers."""
        return self.own or self.starting.result()  # type: ignore[union-attr]

    def __exit__(self, *error: object) -> None:
        _stops[:] = [stop for stop in _stops if stop != self._stop_at_once]
        if self.process is not None:
            told_all()
            self._end()
            for name in ("PREFECT_API_URL", "PREFECT_HOME", LOGS):
                os.environ.pop(name, None)
        multiprocessing.current_process()._config.pop("tempdir", None)  # type: ignore[attr-defined]
        self.folder.cleanup()
        self.bound.close()
        self.alive.close()

    def _stop_at_once(self, number: int, frame: FrameType | None) -> None:
        """Ends the process as soon as trainings have saved themselves: Prefect would wait for their ends."""
        for other in (signal.SIGINT, signal.SIGTERM):
            signal.signal(other, signal.SIG_IGN)
        print("featcx: stopped; finished stages are kept, the same command carries on.", file=sys.stderr, flush=True)
        save_trainings()
        self._end()
        self.folder.cleanup()
        os._exit(1)

    def _end(self) -> None:
        self.ending = True
        if self.process is not None:
            self.process.kill()  # its database goes with it
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)

    def _start(self) -> str:
        database = Path(self.folder.name) / "prefect.db"
        template = user_cache() / f"prefect-{importlib.metadata.version('prefect')}.db"
        if template.exists():
            shutil.copyfile(template, database)  # spares the migrations, a third of the start
        self.bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{self.bound.getsockname()[1]}/api"
        self.process = self._serve(database.name)
        try:
            self._await(url, self.process)
        except RuntimeError:
            if (self.process.poll() or 0) > 0:  # it ended by itself, not by the end of the run
                template.unlink(missing_ok=True)  # were it damaged, every later start would fail as well
            raise
        if not template.exists():
            _copy_database(database, template)
        threading.Thread(target=self._keep_up, args=[database.name], daemon=True).start()
        os.environ["PREFECT_API_URL"] = url  # for workers in other processes
        return url

    def _serve(self, database: str) -> subprocess.Popen[bytes]:
        """A server's process. Prefect's own SubprocessASGIServer would first import the whole server here for seconds."""
        # By its name alone: in an address a folder's name may mean something else, such as a question mark.
        own = {"PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}"}
        with open(self._told, "ab") as told:
            return subprocess.Popen(
                [sys.executable, "-P", SERVER, str(self.bound.fileno())],
                cwd=self.folder.name,
                env=os.environ | own,
                stdin=subprocess.PIPE,
                stderr=told,
                pass_fds=[self.bound.fileno()],
                start_new_session=True,
            )

    def _keep_up(self, database: str) -> None:
        """Another server takes the place of one that ends before the run, on its socket, where requests wait meanwhile."""
        for _ in range(RESTARTS):
            assert self.process is not None
            self.process.wait()
            if self.ending:
                return
            self.process = self._serve(database)
            if self.ending:  # the end came while it was being started
                self.process.kill()
                return

    @property
    def _told(self) -> Path:
        return Path(self.folder.name) / "server.log"

    def _await(self, url: str, process: subprocess.Popen[bytes], patience: float = 90.0) -> None:
        """Until the server answers; it refuses connections before.

        Raises:
            RuntimeError: with its last words, when it ends or does not answer in time.
        """
        until = time.monotonic() + patience
        while process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=10):
                return
            time.sleep(0.05)
        told = self._told.read_text(errors="replace", encoding="utf-8")
        reasons = re.findall(r"^[\w.]+(?:Error|Exception): .+", told, re.MULTILINE) or ["it left no reason"]
        raise RuntimeError(f"Prefect's temporary server did not start (exit code {process.poll()}): {reasons[-1]}")


def _held(folder: Path) -> IO[str]:
    """A file in the folder that is locked until it is closed or the process dies; it appears locked."""
    fresh = folder / f"{ALIVE}.new"
    file = fresh.open("w", encoding="utf-8")
    fcntl.flock(file, fcntl.LOCK_EX)
    fresh.rename(folder / ALIVE)
    return file


def remove_left_over() -> None:
    """Removes the temporary folders of this user's runs that were killed."""
    for path in Path(tempfile.gettempdir()).glob(f"featcx-*/{ALIVE}"):
        with contextlib.suppress(OSError):
            folder = path.parent
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with path.open(encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)


def save_trainings() -> None:
    """Has the trainings of this process save themselves before it ends; a second or two at most."""
    if (module := sys.modules.get("featcx_core.training.checkpoint")) is not None:
        module.SAVING.all_done()


def told_all(patience: float = 5.0) -> None:
    """Has Prefect send what it has still to tell: with the server gone it would try for a minute at the process's end."""
    for module, worker in (("prefect.logging.handlers", "APILogWorker"), ("prefect.events.worker", "EventsWorker")):
        if module in sys.modules:
            getattr(sys.modules[module], worker).drain_all(timeout=patience)


def answering(url: str, patience: float = 0.0) -> str:
    """The address of a Prefect API that answers, waited for `patience` seconds while nothing listens there.

    Raises:
        InputError: when it does not answer, or is no Prefect API.
    """
    until, told = time.monotonic() + patience, False
    while True:
        try:
            with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=10) as answer:
                answer.read()
            return url
        except urllib.error.HTTPError as error:
            raise InputError(
                f"What answers at {url} is no Prefect API ({error.reason}); PREFECT_API_URL ends in /api, such as "
                "http://127.0.0.1:4200/api."
            ) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ConnectionRefusedError) and time.monotonic() < until:
                if not told:
                    print(f"Waiting for the Prefect server at {url} …", file=sys.stderr, flush=True)
                told = True
                time.sleep(0.5)
                continue
            raise InputError(
                f"The Prefect server at {url} does not answer ({reason}); start it with `prefect server start`, or correct "
                "or unset PREFECT_API_URL."
            ) from error


@contextlib.contextmanager
def reporting_to(url: str) -> Iterator[None]:
    """Has flows of this thread report to the API at `url`; Prefect may have been imported before it was known."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: url}):
        yield


def _copy_database(source: Path, copy: Path) -> None:
    with contextlib.suppress(OSError):  # a read-only home only costs the next start a few seconds
        copy.parent.mkdir(parents=True, exist_ok=True)
        fresh = copy.with_suffix(f".{os.getpid()}")
        with contextlib.closing(sqlite3.connect(source)) as a, contextlib.closing(sqlite3.connect(fresh)) as b:
            a.backup(b)
        fresh.rename(copy)
