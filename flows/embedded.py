"""Prefect without a server to start: one temporary server for a run and all its workers, with a database of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def prepare_environment(store: Path, debug: bool) -> None:
    """Sets what Prefect reads on import; what the user has set stays. Call before importing prefect."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if debug:
        os.environ["PREFECT_LOGGING_LEVEL"] = "INFO"
    if "PREFECT_API_URL" not in os.environ:
        os.environ.setdefault("PREFECT_HOME", str(store / ".prefect" / "home"))


@contextlib.contextmanager
def prefect_server(store: Path) -> Iterator[str]:
    """The API to report to: the user's own server where PREFECT_API_URL names one, else a temporary one."""
    if url := os.environ.get("PREFECT_API_URL"):
        yield url
        return
    from prefect import __version__
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_API_URL, temporary_settings

    template = store / ".prefect" / f"empty-{__version__}.db"
    with tempfile.TemporaryDirectory(prefix="featcx-") as folder:
        database = Path(folder) / "prefect.db"
        if template.exists():
            shutil.copyfile(template, database)  # spares the migrations, a third of the start
        os.environ["PREFECT_API_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{database}"
        server = SubprocessASGIServer()
        try:
            server.start(timeout=90)
            if not template.exists():
                _copy_database(database, template)
            os.environ["PREFECT_API_URL"] = server.api_url
            with temporary_settings({PREFECT_API_URL: server.api_url}):
                yield server.api_url
        finally:
            os.environ.pop("PREFECT_API_URL", None)
            os.environ.pop("PREFECT_API_DATABASE_CONNECTION_URL", None)
            server.stop()


def _copy_database(source: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    fresh = copy.with_suffix(f".{os.getpid()}")
    with contextlib.closing(sqlite3.connect(source)) as a, contextlib.closing(sqlite3.connect(fresh)) as b:
        a.backup(b)
    fresh.rename(copy)
