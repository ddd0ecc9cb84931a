"""What is timed, and whether it may be: other programs must not count as our own slowness."""

import builtins
import os
import subprocess
import sys
import time

import pytest

from flows.planning.timing import busy_cores

SPIN = "while True: pass"


def test_a_program_that_computes_is_seen_at_once():
    before = min(busy_cores(0.2) for _ in range(3))
    busy = subprocess.Popen([sys.executable, "-c", SPIN])
    try:
        time.sleep(0.3)
        beside = max(busy_cores(0.2) for _ in range(3))
    finally:
        busy.kill()
        busy.wait()
    cores = os.cpu_count() or 1
    assert beside >= min(before + 0.5, 0.8 * cores)


def test_where_the_system_does_not_tell_its_load_does(monkeypatch):
    opened = builtins.open

    def without(path, *args, **kwargs):
        if path == "/proc/stat":
            raise FileNotFoundError(path)
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", without)
    assert busy_cores(0.01) == pytest.approx(os.getloadavg()[0], abs=0.5)
