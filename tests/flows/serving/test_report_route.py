"""The route serves what a report's manifest lists, and nothing else: not by dots, links, other stages or other names."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from featcx_core.errors import InputError
from featcx_core.store.artifacts import Store
from flows.serving.report_route import reports_served

KEY = "0a1b2c"
FILES = {
    "report.html": (b"<!doctype html><h1>\xc3\x9cber</h1>", "text/html; charset=utf-8"),
    "figures/significance.png": (b"\x89PNG...", "image/png"),
    "figures/significance.svg": (b"<svg/>", "image/svg+xml"),
    "tables/orders.parquet": (b"PAR1...", "application/vnd.apache.parquet"),
    "tables/orders.csv": (b"order\n4\n", "text/csv; charset=utf-8"),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a report, a target and a secret beside it."""
    root = tmp_path_factory.mktemp("route")

    def fill(folder: Path) -> dict[str, object]:
        for name, (content, _) in FILES.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        (folder / "weights.safetensors").write_bytes(b"weights")
        return {}

    place = Store(root / "store")
    for stage in ("report", "target", "sweep_report"):
        place.publish(stage, KEY, fill)
    (root / "secret.html").write_text("secret")
    folder = root / "store" / "report" / KEY
    (folder / "unlisted.html").write_text("unlisted")
    listed = json.loads((folder / "manifest.json").read_text())
    listed["files"]["link.html"] = listed["files"]["../../../secret.html"] = {}  # as if somebody had written it so
    (folder / "manifest.json").write_text(json.dumps(listed))
    (folder / "link.html").symlink_to(root / "secret.html")
    return root / "store"


@pytest.fixture(scope="module")
def address(store: Path) -> Iterator[str]:
    with reports_served(store, "127.0.0.1", 0) as url:
        yield url


def answer(address: str, path: str, method: str = "GET", host: str | None = None) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a request whose path is sent as it is."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)
    connection.putrequest(method, path, skip_host=host is not None)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    response = connection.getresponse()
    found = response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    connection.close()
    return found


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("stage", ["report", "sweep_report"])
def test_files_of_a_report_come_with_their_types(address: str, stage: str, name: str) -> None:
    content, kind = FILES[name]
    status, headers, body = answer(address, f"/{stage}/{KEY}/{name}")
    assert (status, body, headers["content-type"]) == (200, content, kind)
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]
    status, headers, body = answer(address, f"/{stage}/{KEY}/{name}", "HEAD")
    assert (status, body, headers["content-length"]) == (200, b"", str(len(content)))


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/report",
        f"/report/{KEY}",
        f"/report/{KEY}/",
        f"/report/{KEY}/figures",
        f"/report/{KEY}/manifest.json",
        f"/report/{KEY}/weights.safetensors",
        f"/report/{KEY}/unlisted.html",
        f"/report/{KEY}/link.html",
        f"/report/{KEY}/../../../secret.html",
        f"/report/{KEY}/..%2f..%2f..%2fsecret.html",
        f"/report/{KEY}/%2e%2e/%2e%2e/%2e%2e/secret.html",
        f"/report/{KEY}//etc/passwd",
        f"/report/{KEY}/report.html%00.png",
        f"/report/../target/{KEY}/report.html",
        "/report/../../secret.html",
        f"/report/..%2ftarget%2f{KEY}/report.html",
        f"/target/{KEY}/report.html",
        f"/.locks/{KEY}/report.html",
        "/report/ffffff/report.html",
    ],
)
def test_nothing_else_is_served(address: str, path: str) -> None:
    status, _, body = answer(address, path)
    assert status == 404
    assert b"secret" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_it_only_reads(address: str, store: Path, method: str) -> None:
    assert answer(address, f"/report/{KEY}/report.html", method)[0] == 405
    assert (store / "report" / KEY / "report.html").read_bytes() == FILES["report.html"][0]


def test_it_answers_to_its_own_name_alone(address: str) -> None:
    port = urlsplit(address).port
    assert answer(address, f"/report/{KEY}/report.html", host=f"localhost:{port}")[0] == 200
    assert answer(address, f"/report/{KEY}/report.html", host=f"elsewhere.example:{port}")[0] == 400


@pytest.mark.parametrize("host", ["::1", "0:0:0:0:0:0:0:1"])
def test_it_answers_on_ipv6(store: Path, host: str) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    with reports_served(store, host, 0) as url:
        assert url.startswith("http://[::1]:")
        assert answer(url, f"/report/{KEY}/report.html")[0] == 200
        assert answer(url, f"/report/{KEY}/report.html", host="[::2]:80")[0] == 400


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(InputError, match=rf"127\.0\.0\.1:{port}.*--report-port"),
            reports_served(tmp_path, "127.0.0.1", port),
        ):
            pass


def test_it_ends_with_the_block(store: Path) -> None:
    with reports_served(store, "127.0.0.1", 0) as url:
        assert answer(url, f"/report/{KEY}/report.html")[0] == 200
    with pytest.raises(ConnectionRefusedError):
        answer(url, f"/report/{KEY}/report.html")
