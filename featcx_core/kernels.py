"""C++ kernels, compiled on the machine that runs them and kept in the user's cache."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import shlex
import subprocess
import tempfile
import threading
from pathlib import Path

FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
_COMPILING = threading.Lock()

log = logging.getLogger(__name__)


def user_cache() -> Path:
    """What featcx keeps for a user besides the store; all of it can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "featcx"


def kernel(source: Path) -> ctypes.CDLL | None:
    """The library made of a C++ file; None, with one warning, where no C++ compiler makes it.

    Compiling takes a second or two, once a machine: what is kept is found by source, compiler and processor.
    """
    with _COMPILING:  # what a second thread waits for it finds
        return _loaded(source)


@functools.cache
def _loaded(source: Path) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(str(_compiled(source)))
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:  # RuntimeError: nobody's home
        reason = getattr(error, "stderr", None) or str(error)
        first = reason.strip().splitlines()[0] if reason.strip() else type(error).__name__
        log.warning(
            "%s could not be compiled or loaded (%s); plain PyTorch takes its place, several times slower.",
            source.name,
            first,
        )
        return None


def _compiled(source: Path) -> Path:
    compiler = [*shlex.split(os.environ.get("CXX") or "c++"), *FLAGS]
    # With -march=native the predefined macros name the processor's instructions, and the compiler's version.
    machine = _output([*compiler, "-dM", "-E", "-x", "c++", os.devnull])
    digest = hashlib.sha256(source.read_bytes() + "\0".join([*compiler, machine]).encode()).hexdigest()
    library = user_cache() / f"{source.stem}-{digest[:16]}.so"
    if not library.exists():
        with contextlib.suppress(OSError):
            library.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(library.parent, os.W_OK):
            library = Path(tempfile.mkdtemp(prefix="featcx-")) / library.name
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:  # several hosts may share the cache
            _output([*compiler, str(source), "-o", f"{folder}/{library.name}"])
            os.replace(f"{folder}/{library.name}", library)
    return library


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, errors="replace").stdout
