"""Files at an address, by fsspec: every call is bounded in tries and in time, and ends in bytes or in a sentence."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
import re
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from featcx_core.errors import InputError

EXTRAS = {"s3": "remote", "s3a": "remote", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "sftp": "sftp"}
SSH = ("sftp", "ssh")
WHOLE = ("file", "local", *SSH)  # a rename there is one step, a write is not; elsewhere a write is
EXPIRED = {"ExpiredToken", "TokenRefreshRequired", "InvalidToken", "ExpiredTokenException"}
UNKNOWN = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "AuthFailure",
    "NoCredentialsError",
    "AuthenticationException",
}
SKEWED = {"RequestTimeTooSkewed", "RequestExpired"}
THERE = {"PreconditionFailed", "ConditionalRequestConflict"}
NOWHERE = {"NoSuchBucket"}
SHORT = {"InvalidRange"}


class Unreachable(OSError):
    """The remote does not answer in time, or does not let us in at all."""


class Forbidden(Unreachable):
    """The remote does not allow just this."""


class Unsupported(Unreachable):
    """The remote's server does not have what was asked of it."""


class Patience(NamedTuple):
    """How long a server may take, in seconds, and how often it is asked.

    Attributes:
        wait: before the second try; three times as long before each further one.
        answer: without a byte.
        slowest: bytes a second; a transfer that is slower counts as cut.
    """

    tries: int = 4
    wait: float = 0.3
    connect: float = 5.0
    answer: float = 20.0
    slowest: float = 20_000.0


PATIENCE = Patience()


class Entry(NamedTuple):
    """A file that lies at an address: its name below it, its size, and when the server says that it was written."""

    name: str
    bytes: int
    written: float


class Address:
    """Files below a URL.

    Args:
        url: of any fsspec file system, such as s3://bucket/folder, sftp://host/folder or file:///folder.

    Raises:
        InputError: for an address that no driver opens.
    """

    def __init__(self, url: str, patience: Patience = PATIENCE) -> None:
        self.url, self.patience = url.rstrip("/"), patience
        self.protocol = url.partition("://")[0] if "://" in url else ""
        if not self.protocol:
            raise InputError(
                f"--remote {url} is no address; write s3://bucket/folder, sftp://host/folder or file:///folder."
            )
        _quiet()
        self._making = threading.Lock()
        self._shared: Any = None
        self._idle: list[Any] = []
        with self._words():
            self._root = str(self._driver()._strip_protocol(self.url)).rstrip("/")

    def _driver(self) -> Any:
        """The file system's class.

        Raises:
            InputError: where it is not installed.
        """
        from fsspec import get_filesystem_class

        try:
            return get_filesystem_class(self.protocol)
        except ImportError as error:
            extra = EXTRAS.get(self.protocol)
            how = f"pip install 'featcx[{extra}]'" if extra else f"install it ({error})"
            raise InputError(f"The driver of {self.protocol}:// is not installed; {how}.") from error
        except ValueError as error:
            raise InputError(
                f"No driver opens {self.protocol}://; take s3://, gs://, az://, sftp:// or file://."
            ) from error

    @contextlib.contextmanager
    def _system(self) -> Iterator[Any]:
        """The file system, for one call: the one of all calls, or over ssh a connection that no other call has meanwhile.

        paramiko loses an answer that another thread reads than the one that waits for it, which then waits for ever.
        """
        if self.protocol not in SSH:
            with self._making:
                if self._shared is None:
                    self._shared = self._connected()
            yield self._shared
            return
        with self._making:
            system = self._idle.pop() if self._idle else None
        system = system or self._connected()
        try:
            yield system
        except (FileNotFoundError, FileExistsError, PermissionError):
            self._idle.append(system)
            raise
        except BaseException:
            self._idle.clear()  # they may be gone as well
            with contextlib.suppress(Exception):
                system.client.close()
            raise
        self._idle.append(system)

    def _connected(self) -> Any:
        from fsspec.core import url_to_fs

        system, _ = url_to_fs(self.url, skip_instance_cache=True, **_options(self.protocol, self.patience))
        if self.protocol in ("s3", "s3a"):
            system.retries = 1  # tries are counted here
        if self.protocol in SSH:
            system.ftp.get_channel().settimeout(self.patience.answer)
        return system

    def warm(self) -> None:
        """Connects in the background, which takes a second or two of imports; what goes wrong the first call will tell."""

        def connect() -> None:
            with contextlib.suppress(Exception), self._system():
                pass

        threading.Thread(target=connect, daemon=True).start()

    def read(self, name: str, start: int, end: int) -> bytes:
        """Bytes start to end of a file; fewer where it ends before.

        Raises:
            FileNotFoundError, Unreachable: when it is not there, or the server does not give it.
        """
        try:
            found: bytes = self._do("cat_file", name, start=start, end=end, size=end - start)
        except Past:
            return b""
        return found

    def put(self, path: Path, name: str) -> None:
        """Copies a file there; it appears whole or not at all."""
        whole = self.protocol in WHOLE
        place = f"{name}.{uuid.uuid4().hex[:8]}.part" if whole else name
        self._folder(name)
        self._do("put_file", place, before=(str(path),), size=path.stat().st_size)
        if whole:
            self._move(place, name)

    def create(self, text: bytes, name: str, over: bool) -> bool:
        """Writes a small file, whole or not at all; false where there is one already and it is not to be written over."""
        whole = self.protocol in WHOLE
        self._folder(name)
        if whole:
            if not over and self._do("exists", name):
                return False
            place = f"{name}.{uuid.uuid4().hex[:8]}.part"
            self._do("pipe_file", place, text, size=len(text))
            self._move(place, name)
            return True
        try:
            self._do("pipe_file", name, text, mode="overwrite" if over else "create", size=len(text))
        except FileExistsError:
            return False
        except Unsupported:  # a server that cannot write only what is not there; of two writers at once the later wins
            if self._do("exists", name):
                return False
            self._do("pipe_file", name, text, size=len(text))
        return True

    def list(self, folder: str) -> list[Entry]:
        """The files below a folder of the address, none where there is no such folder.

        Raises:
            Unreachable: also where listing is forbidden.
        """
        try:
            found = self._do("find", folder, detail=True)
        except FileNotFoundError:
            return []
        top = self._path("")
        return sorted(
            Entry(path.removeprefix("/").removeprefix(top.strip("/") + "/"), int(about.get("size") or 0), _time(about))
            for path, about in found.items()
            if about.get("type") == "file"
        )

    def remove(self, name: str) -> None:
        """Removes a file that may be gone already."""
        with contextlib.suppress(FileNotFoundError):
            self._do("rm_file", name)

    def _move(self, place: str, name: str) -> None:
        path = self._path(name)
        self._do("mv", place, path)

    def _folder(self, name: str) -> None:
        if self.protocol in SSH:
            self._do("makedirs", name.rpartition("/")[0], exist_ok=True)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _do(self, method: str, name: str, *more: Any, before: tuple[Any, ...] = (), size: int = 0, **named: Any) -> Any:
        """Calls a method of the file system on a file of the address, again where what went wrong may pass."""
        last: Exception | None = None
        for attempt in range(self.patience.tries):
            if attempt:
                time.sleep(self.patience.wait * 3 ** (attempt - 1) * random.uniform(0.7, 1.3))
            try:
                with self._words():
                    return self._once(method, (*before, self._path(name), *more), size, named)
            except (FileNotFoundError, FileExistsError, Unreachable, InputError, Past):
                raise
            except Exception as error:
                last = error
        raise Unreachable(f"{self.url} does not answer ({_first_line(last)})") from last

    def _once(self, method: str, given: tuple[Any, ...], size: int, named: dict[str, Any]) -> Any:
        if self.protocol in ("file", "local") and method == "cat_file" and not os.path.isfile(given[0]):
            raise FileNotFoundError(given[0])  # a pipe would never end
        with self._system() as system:
            if method == "find":
                system.invalidate_cache()
            if not system.async_impl:
                return getattr(system, method)(*given, **named)
            from fsspec.asyn import sync

            limit = self.patience.connect + self.patience.answer + size / self.patience.slowest
            return sync(system.loop, getattr(system, f"_{method}"), *given, timeout=limit, **named)

    @contextlib.contextmanager
    def _words(self) -> Iterator[None]:
        """Errors that no further try mends, as sentences."""
        try:
            yield
        except (InputError, Unreachable):
            raise
        except Exception as error:
            code, where = _code(error), self.url
            if code in SHORT:
                raise Past from error
            if code == "NotImplemented":
                raise Unsupported(f"{where} cannot do what was asked ({_first_line(error)})") from error
            if code in THERE or isinstance(error, FileExistsError):
                raise FileExistsError(where) from error
            if code in EXPIRED:
                raise Unreachable(f"The credentials for {where} have expired; renew them") from error
            if code in UNKNOWN:
                raise Unreachable(f"{where} does not accept these credentials ({_first_line(error)})") from error
            if code in SKEWED:
                raise Unreachable(
                    f"{where} refuses this machine's clock, which differs from its own; set it"
                ) from error
            if code in NOWHERE:
                raise Unreachable(f"There is no bucket at {where}; make it, or correct --remote") from error
            if isinstance(error, PermissionError):
                raise Forbidden(f"{where} does not allow it ({_first_line(error)})") from error
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise Unreachable(f"{where} is full") from error
            raise


class Past(Exception):
    """What was asked for begins behind the end of a file."""


def _options(protocol: str, patience: Patience) -> dict[str, Any]:
    """What a driver is told of patience, and of whom to believe."""
    if protocol in ("s3", "s3a"):
        waits = {"connect_timeout": patience.connect, "read_timeout": patience.answer}
        config = waits | {"retries": {"total_max_attempts": 1}, "max_pool_connections": 32}
        return {"config_kwargs": config, "use_listings_cache": False}
    if protocol in SSH:
        waits = {f"{step}timeout": patience.connect for step in ("", "banner_", "auth_")}
        key = os.environ.get("FEATCX_SSH_KEY")  # else the agent's keys and those of ~/.ssh
        return waits | {"host_key_policy": _known_hosts()} | ({"key_filename": key} if key else {})
    return {"auto_mkdir": True} if protocol in ("file", "local") else {}


def _known_hosts() -> Any:
    """Believes the servers of the user's known_hosts alone, as ssh does; fsspec would believe any."""
    import paramiko

    class Known(paramiko.MissingHostKeyPolicy):
        def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
            file = Path(os.environ.get("FEATCX_KNOWN_HOSTS", "~/.ssh/known_hosts")).expanduser()
            if not (file.is_file() and paramiko.HostKeys(str(file)).check(hostname, key)):
                raise InputError(f"{hostname} is not in {file}; log in once with ssh, or add it with ssh-keyscan.")

    return Known()


def _code(error: BaseException | None) -> str:
    """What an error, or one that it comes from, is called: S3's code, or the name of its class where that tells."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict) and (code := response.get("Error", {}).get("Code")):
            return "InvalidRange" if str(code) == "416" else str(code)
        if type(error).__name__ in UNKNOWN:
            return type(error).__name__
        error = error.__cause__
    return ""


def _first_line(error: BaseException | None) -> str:
    told = str(error).strip() or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
    return re.sub(r"^\[Errno \d+\] ", "", told.splitlines()[0])[:160]


def _time(about: dict[str, Any]) -> float:
    """Seconds of the server's clock, under the name that a driver has for it; 0 where it tells none."""
    for name in ("LastModified", "last_modified", "mtime", "updated"):
        value: Any = about.get(name)
        if hasattr(value, "timestamp"):
            return float(value.timestamp())
        if isinstance(value, int | float):
            return float(value)
    return 0.0


def _quiet() -> None:
    """Drivers tell of every retry, and in tracebacks; what matters is told in sentences."""
    for name in ("s3fs", "aiobotocore", "botocore", "paramiko", "fsspec", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
