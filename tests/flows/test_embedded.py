"""The temporary Prefect server ends with its run, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from tests.e2e.conftest import clean_environment

RUN = """
import sys, time
from flows.embedded import PrefectServer, prepare_environment
prepare_environment(debug=False)
with PrefectServer() as server:
    print(server.url(), server.process.pid, flush=True)
    sys.stdin.read() if sys.argv[1] == "end" else time.sleep(600)
"""


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


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
        url, pid = process.stdout.readline().split()
        assert answers(url)
        if isinstance(how, signal.Signals):
            process.send_signal(how)
        process.stdin.close()
        process.wait(timeout=30)
        told = process.stderr.read()
    ends = time.monotonic() + 10
    while alive(int(pid)) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not alive(int(pid))
    assert not answers(url)
    assert "Traceback" not in told
