"""The temporary Prefect server ends with its run, however that ends."""

from __future__ import annotations

import importlib.metadata
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from flows.running import embedded
from tests.e2e.conftest import clean_environment

RUN = """
import sys, time
from flows.running.embedded import PrefectServer, prepare_environment
prepare_environment(debug=False)
with PrefectServer() as server:
    print(server.url(), flush=True)
    sys.stdin.read() if sys.argv[1] == "end" else time.sleep(600)
"""


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.parametrize("how", ["end", signal.SIGTERM, signal.SIGKILL])
def test_the_server_ends_with_its_run(how: str | signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUN, str(how)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().strip()
        assert answers(url)
        if isinstance(how, signal.Signals):
            process.send_signal(how)
        process.stdin.close()
        process.wait(timeout=30)
        told = process.stderr.read()
    ends = time.monotonic() + 10
    while answers(url) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not answers(url)
    assert "Traceback" not in told


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    """With a damaged template of its database, which is thrown away: the next start makes a new one."""
    cache = tmp_path / "featcx"
    cache.mkdir()
    template = cache / f"prefect-{importlib.metadata.version('prefect')}.db"
    template.write_bytes(b"no database" * 1000)
    own = clean_environment() | {"XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", RUN, "end"]
    done = subprocess.run(command, input="", capture_output=True, text=True, env=own, check=False)
    assert done.returncode != 0
    assert "RuntimeError: Prefect's temporary server did not start (exit code 3): " in done.stderr
    assert "file is not a database" in done.stderr
    assert not template.exists()
    again = subprocess.run(command, input="", capture_output=True, text=True, env=own, check=False)
    assert again.returncode == 0, again.stderr


def test_bad_input_leaves_the_template(tmp_path: Path) -> None:
    """A run that ends while its server starts: the server ends of that, not of its database."""
    (tmp_path / "featcx").mkdir()
    template = tmp_path / "featcx" / f"prefect-{importlib.metadata.version('prefect')}.db"
    template.write_bytes(b"")
    script = "from flows.running.embedded import PrefectServer\nwith PrefectServer() as server: server.process"
    own = clean_environment() | {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=own, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert template.exists()


def test_prefect_tells_all_while_its_server_is_there(monkeypatch):
    """Afterwards it would try to reach it for a minute."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    drained = []
    for worker in (APILogWorker, EventsWorker):
        monkeypatch.setattr(worker, "drain_all", lambda *, name=worker.__name__, timeout: drained.append(name))
    server = embedded.PrefectServer()
    monkeypatch.setattr(server, "_end", lambda: drained.append("end"))
    server.process = subprocess.Popen(["true"])
    server.__exit__()
    server.process.wait()
    assert sorted(drained[:2]) == ["APILogWorker", "EventsWorker"]
    assert drained[2:] == ["end"]


def test_a_run_s_own_server_knows_none_of_the_user_s_settings(tmp_path: Path) -> None:
    """A login, a base path, a profile, files of settings, a proxy, and a folder whose name means something in addresses."""
    place = tmp_path / "what? #1 %41 'é'"
    place.mkdir()
    (tmp_path / "prefect.toml").write_text('[server.api]\nauth_string = "a:b"\n')
    (tmp_path / ".env").write_text("PREFECT_SERVER_API_AUTH_STRING=a:b\n")
    own = clean_environment() | {
        "TMPDIR": str(place),
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }
    own = {name: value for name, value in own.items() if name.lower() != "no_proxy"}
    own |= {"PREFECT_SERVER_API_AUTH_STRING": "a:b", "PREFECT_SERVER_API_BASE_PATH": "/x", "PREFECT_PROFILE": "none"}
    asked = RUN.replace("print(server.url(), flush=True)", ASKED)
    command = [sys.executable, "-c", asked, "end"]
    done = subprocess.run(command, input="", capture_output=True, text=True, env=own, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".toml"] in (
        [".env", place.name],
        [place.name, ".env"],
    )
    assert [path.name for path in place.iterdir()] == []


ASKED = """
    from prefect.client.orchestration import get_client
    from flows.running.embedded import reporting_to
    with reporting_to(server.url()), get_client(sync_client=True) as client:
        print(client.read_flows(), flush=True)
"""


def test_what_a_killed_run_left_the_next_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folders = {name: tmp_path / f"featcx-{name}" for name in ("dead", "alive", "foreign")}
    for folder in folders.values():
        folder.mkdir()
    embedded._held(folders["dead"]).close()
    with embedded._held(folders["alive"]):
        embedded.remove_left_over()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["featcx-alive", "featcx-foreign"]
