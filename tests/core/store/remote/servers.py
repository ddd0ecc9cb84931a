"""Real servers for the tests of a remote: S3 (moto's), one between that breaks what passes, and sftp (OpenSSH's)."""

from __future__ import annotations

import contextlib
import getpass
import http.client
import logging
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

import pytest

BUCKET = "team"
Rule = Callable[[str, str], str | None]  # of method and path: what goes wrong, None for nothing
ERRORS = {
    "503": (503, "SlowDown", "Please reduce your request rate."),
    "500": (500, "InternalError", "We encountered an internal error."),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
    "unknown": (403, "InvalidAccessKeyId", "The key ID you provided does not exist."),
    "skewed": (
        403,
        "RequestTimeTooSkewed",
        "The difference between the request time and the current time is too large.",
    ),
    "501": (501, "NotImplemented", "A header you provided implies functionality that is not implemented."),
    "denied": (403, "AccessDenied", "Access Denied"),
    "gone": (404, "NoSuchKey", "The specified key does not exist."),
    "bucket": (404, "NoSuchBucket", "The specified bucket does not exist"),
}
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """moto's S3 server on loopback with one bucket; its address."""
    server_module = pytest.importorskip("moto.server", reason="moto is not installed")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        connection = http.client.HTTPConnection(host, port)
        connection.request("PUT", f"/{BUCKET}")
        assert connection.getresponse().status == 200
        yield f"http://{host}:{port}"
    finally:
        server.stop()


class Breaker:
    """Stands between a client and an S3 server, and breaks what `rule` says; a context. It counts what it broke.

    'cut' closes the connection half-way through the answer, 'cut up' before it has read the request, 'slow' waits longer
    than anybody's patience, 'trickle' sends a byte now and then; others answer as S3 would.
    """

    def __init__(self, server: str, slow: float = 2.0) -> None:
        self.host, self.slow, self.broken = server.removeprefix("http://"), slow, 0
        self.rule: Rule = lambda method, path: None
        breaker = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                """Nobody reads it."""

            def handle_any(self) -> None:
                breaker._handle(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def __enter__(self) -> Breaker:
        Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    def _handle(self, request: BaseHTTPRequestHandler) -> None:
        fault = self.rule(request.command, unquote(request.path))
        self.broken += fault is not None
        if fault == "cut up":
            request.connection.shutdown(socket.SHUT_RDWR)
            request.close_connection = True
            return
        body = _body(request)
        if fault == "slow":
            time.sleep(self.slow)
        if fault in ERRORS:
            self._refuse(request, *ERRORS[fault])
            return
        connection = http.client.HTTPConnection(self.host, timeout=60)
        connection.request(request.command, request.path, body, dict(request.headers))
        answer = connection.getresponse()
        content = answer.read()
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                request.send_header(name, value)
        length = answer.getheader("Content-Length") if request.command == "HEAD" else str(len(content))
        request.send_header("Content-Length", length or "0")
        request.end_headers()
        with contextlib.suppress(OSError):
            if fault == "cut":
                request.wfile.write(content[: len(content) // 2])
                request.wfile.flush()
                request.connection.shutdown(socket.SHUT_RDWR)
                request.close_connection = True
            elif fault == "trickle":
                for i in range(len(content)):
                    request.wfile.write(content[i : i + 1])
                    request.wfile.flush()
                    time.sleep(0.2)
            elif request.command != "HEAD":
                request.wfile.write(content)

    def _refuse(self, request: BaseHTTPRequestHandler, status: int, code: str, words: str) -> None:
        told = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{words}</Message></Error>'.encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/xml")
        request.send_header("Content-Length", str(len(told)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(told)


def _body(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("Expect", "").lower() == "100-continue":
        request.send_response_only(100)
        request.end_headers()
    if request.headers.get("Transfer-Encoding", "").lower() == "chunked":
        parts = []
        while size := int(request.rfile.readline().split(b";")[0], 16):
            parts.append(request.rfile.read(size))
            request.rfile.readline()
        request.rfile.readline()
        del request.headers["Transfer-Encoding"]
        return b"".join(parts)
    return request.rfile.read(int(request.headers.get("Content-Length") or 0))


@contextlib.contextmanager
def sftp_server(folder: Path) -> Iterator[dict[str, Any]]:
    """OpenSSH's server on loopback, for this user and a key of its own: port, private key, known_hosts.

    Skips where it is not installed.
    """
    sshd = shutil.which("sshd") or "/usr/sbin/sshd"
    if not (Path(sshd).exists() and shutil.which("ssh-keygen")):
        pytest.skip("openssh-server is not installed")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shutil.copyfile(folder / "user.pub", folder / "authorized_keys")
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    config = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {folder / 'host'}",
        f"AuthorizedKeysFile {folder / 'authorized_keys'}",
        f"PidFile {folder / 'pid'}",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "PermitRootLogin yes",
        "Subsystem sftp internal-sftp",
    ]
    (folder / "config").write_text("\n".join(config) + "\n")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with subprocess.Popen([sshd, "-D", "-e", "-f", str(folder / "config")], stderr=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 10
            while time.monotonic() < until:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.05)
            yield {"port": port, "key": folder / "user", "known": folder / "known_hosts", "user": getpass.getuser()}
        finally:
            process.terminate()
