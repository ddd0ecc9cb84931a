"""A real S3 server, with and without one between that breaks things."""

from __future__ import annotations

import itertools

import pytest

from tests.core.store.remote.servers import BUCKET, CREDENTIALS, Breaker, s3_server

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def s3():
    """Address of a server."""
    with s3_server() as url:
        yield url


@pytest.fixture
def bucket(s3, monkeypatch):
    """An empty folder of the server's bucket."""
    for name, value in (CREDENTIALS | {"AWS_ENDPOINT_URL": s3}).items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/cache{next(_NUMBERS)}"


@pytest.fixture
def breaker(s3):
    """The server between; a client that is to pass it takes its address as AWS_ENDPOINT_URL."""
    with Breaker(s3) as between:
        yield between
