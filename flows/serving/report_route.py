"""A read-only HTTP route to the reports of a store: what a report's folder lists, and nothing else."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from featcx_core.errors import InputError

if TYPE_CHECKING:
    from starlette.applications import Starlette

STAGES = ("report", "sweep_report", "complexity_report", "comparison")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".csv": "text/csv; charset=utf-8",
    ".parquet": "application/vnd.apache.parquet",
}
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # A report is one file that holds its styles, scripts and pictures; nothing it links may run or load.
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src 'self' data:"
    ),
}


def listed_file(store: Path, stage: str, key: str, name: str) -> Path | None:
    """A file of a report, if the manifest of its artifact lists it and it lies where it says.

    Names are looked up, not joined to a path, so `..` and hidden files lead nowhere; a link that leaves the artifact's
    folder is not followed.
    """
    if stage not in STAGES or not key.isalnum() or Path(name).suffix not in TYPES:
        return None
    folder = store.resolve() / stage / key
    try:
        files = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError):
        return None
    path = folder / name
    whole = name in files and path.resolve().is_relative_to(folder) and path.is_file()
    return path if whole else None


def application(store: Path, hosts: list[str]) -> Starlette:
    """The route as an ASGI application: GET and HEAD of /<stage>/<key>/<file>; `hosts` are the names it answers to."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import FileResponse, PlainTextResponse, Response
    from starlette.routing import Route

    def file(request: Request) -> Response:
        words = request.path_params
        path = listed_file(store, words["stage"], words["key"], words["name"])
        if path is None:
            return PlainTextResponse("There is no such report in this store.\n", 404, HEADERS)
        return FileResponse(path, headers=HEADERS, media_type=TYPES[path.suffix])

    # A page elsewhere could point a name of its own at this machine; it would be asked for by that name.
    own_names = Middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    served = Starlette(routes=[Route("/{stage}/{key}/{name:path}", file, methods=["GET"])], middleware=[own_names])
    served.router.redirect_slashes = False
    return served


@contextlib.contextmanager
def reports_served(store: Path, host: str, port: int) -> Iterator[str]:
    """Serves the store's reports until the block ends; its address.

    Raises:
        InputError: when it cannot listen there.
    """
    import uvicorn

    listener = _listen(host, port)
    name = socket.getfqdn() if host in ("0.0.0.0", "::") else host
    hosts = ["*"] if host in ("0.0.0.0", "::") else [url_name(host), "localhost", "127.0.0.1"]
    config = uvicorn.Config(application(store, hosts), log_level="warning", lifespan="off", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True, name="featcx-reports")
    thread.start()
    try:
        yield f"http://{url_name(name)}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(5)
        listener.close()


def url_name(host: str) -> str:
    """A host as addresses and requests name it: IPv6 stands in brackets, in its short form."""
    return f"[{ipaddress.ip_address(host).compressed}]" if ":" in host else host


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # so that the first request finds it, even before the thread does
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"Reports cannot be served at {host}:{port} ({reason}); choose --report-host and --report-port."
        ) from None
    return listener
