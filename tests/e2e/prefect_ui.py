"""A real Prefect server and `featcx serve` in processes of their own, and what a reader does in the UI's form."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple


class Service(NamedTuple):
    """A Prefect server with its flows served.

    Attributes:
        ui: the UI's address.
        reports: where the store's reports are.
        store: the served store.
        process: `featcx serve`.
        log: what it has printed.
    """

    ui: str
    reports: str
    store: Path
    process: subprocess.Popen[bytes]
    log: Path

    def api(self, path: str, body: Any = None) -> Any:
        """What the server's API answers."""
        return asked(f"{self.ui}/api{path}", body)


def asked(url: str, body: Any = None) -> Any:
    """GET, or POST of a JSON body."""
    data, headers = (None, {}) if body is None else (json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as answer:
        return json.load(answer)


def free_port() -> int:
    """A port on loopback that nothing listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def wait_for(ready: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value of `ready`."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            if found := ready():
                return found
        except urllib.error.HTTPError as error:
            if error.code != 503:  # busy
                raise
        except OSError:  # not there yet
            pass
        time.sleep(0.2)
    raise AssertionError(f"{what} was not there within {seconds:.0f} s")


@contextlib.contextmanager
def started(command: list[str], environment: dict[str, str], log: Path, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is told to end with the block, and must."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "FEATCX"))}
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=clean | environment, stdout=out, stderr=subprocess.STDOUT, cwd=cwd)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


@contextlib.contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[Service]:
    """Starts the server and `featcx serve` with a database, a home and a store under `folder`.

    Progress comes after half a second and as often, so that a fast machine's short stages show it, too.
    """
    (folder / "often").mkdir()
    (folder / "often" / "sitecustomize.py").write_text("import tasks.ui\ntasks.ui.QUICK = tasks.ui.PERIOD = 0.5\n")
    port, store = free_port(), folder / "store"
    ui = f"http://127.0.0.1:{port}"
    quiet = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(folder),  # device leases of its own
    }
    server = [sys.executable, "-m", "prefect", "server", "start"]
    serve = [sys.executable, "-m", "flows.cli", "serve", "--store", str(store), "--device", "cpu", "--report-port", "0"]
    own = {
        "PREFECT_HOME": str(folder / "server"),
        "PREFECT_SERVER_API_PORT": str(port),  # --port would mislead the UI
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",  # instead of a minute
    }
    with started(server, quiet | own, folder / "server.log", folder):
        wait_for(lambda: asked(f"{ui}/api/health"), 120, "the server")
        there = {
            "PREFECT_HOME": str(folder / "home"),
            "PREFECT_API_URL": f"{ui}/api",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(folder / "often"), os.environ.get("PYTHONPATH")])),
        }
        log = folder / "serve.log"
        with started([*serve, *arguments], quiet | there, log, folder) as process:
            wait_for(lambda: "Ctrl-C" in log.read_text(), 120, f"featcx serve ({log.read_text()})")
            reports = log.read_text().partition("Reports:")[2].split()[0]
            yield Service(ui, reports, store, process, log)
        assert process.returncode == 0, log.read_text()


class Form:
    """The form of a deployment in the browser."""

    def __init__(self, page: Any) -> None:
        self.page = page

    @classmethod
    def opened(cls, page: Any, service: Service, deployment: str) -> Form:
        """Goes there by the links, as a reader does."""
        page.goto(service.ui)
        page.get_by_role("link", name="Deployments").click()
        page.get_by_role("link", name=deployment, exact=True).first.click()
        page.get_by_role("button", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Custom run").click()
        page.get_by_role("button", name="Submit").wait_for()
        return cls(page)

    def write(self, field: str, value: str) -> None:
        """Fills in a number or a text."""
        self.page.get_by_label(f"{field} (Optional)", exact=True).first.fill(value)

    def choose(self, field: str, value: str) -> None:
        """Takes one of a list."""
        self.page.get_by_role("button", name=f"Select {field}", exact=True).click()
        self.page.get_by_role("option", name=value, exact=True).click()
        self.page.get_by_role("option").first.wait_for(state="detached")

    def leave_out_variants(self) -> None:
        """Has the target analysed alone."""
        for tab in self.page.get_by_role("tab", name="leave out").all():
            tab.click()

    def press(self) -> None:
        """Presses the button, whatever comes of it."""
        self.page.get_by_role("button", name="Submit").click()

    def submit(self) -> None:
        """Presses the button until the server takes the run."""
        until_taken(self.page, "create_flow_run", self.press)


def until_taken(page: Any, path: str, act: Callable[[], None]) -> None:
    """Does it again as long as the server says 503, as its SQLite does when a busy machine keeps it waiting."""
    for _ in range(5):
        with page.expect_response(lambda answer: path in answer.url and answer.request.method != "GET") as answer:
            act()
        if answer.value.status < 300:
            return
        assert answer.value.status == 503, answer.value.text()
    raise AssertionError(f"the server was busy five times: {path}")
