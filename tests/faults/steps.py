"""What goes wrong inside a run: at a named step of it a signal, damage, an answer of the kernel.

Python tells an audit hook of every file that is opened, moved or removed, so that nothing of featcx knows of this module. The
harness installs it in a run's process after forking; `site/sitecustomize.py` does in the processes that a run starts.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import random
import re
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from tests.faults.mutations import mutated, small_files

SETTINGS = "FAULTS"  # the environment variable that tells a run's processes what is to happen
ARTIFACT = r"[^./][^/]*/[0-9a-f]{64}"
STEPS = {  # of the publishing of an artifact in their order, each the event that Python tells and its path in the store
    "noted": ("os.rename", r"\.runs/[^/]+/[^/]+\.json"),
    "record written": ("os.rename", r"\.prefect/results/[^/]+"),
    "key locked": ("open", r"\.locks/[^r][^/]+"),
    "folder made": ("os.mkdir", r"\.partial/[^/]+"),
    "checkpoint saved": ("os.rename", r"\.checkpoints/[^/]+/checkpoint\.safetensors"),
    "payload hashed": ("open", r"\.partial/[^/]+/(?!manifest).+"),
    "manifest written": ("os.rename", r"\.partial/[^/]+/manifest\.json"),
    "payload opened to others": ("os.chmod", r"\.partial/[^/]+/.+"),
    "moved into place": ("os.rename", ARTIFACT),
    "place synced": ("open", r"[^./][^/]*"),
    "remains removed": ("shutil.rmtree", r"\.partial/[^/]+"),
    "check noted": ("os.rename", r"\.checks/[^/]+"),
    "checkpoint removed": ("shutil.rmtree", r"\.checkpoints/[^/]+"),
}
FOLDERS = (".partial", ".checks", ".runs", ".locks", ".prefect", ".checkpoints")  # beside the artifacts


class Injector:
    """Watches a process of a run, keeps account of what it publishes, and does the one thing that is to go wrong.

    Args:
        settings: store, account and once: paths; main: the run's process; step, nth, action, seed: what happens when.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings, self.inside, self.seen = settings, threading.local(), 0
        self.store = f"{settings['store']}/"
        event, path = STEPS.get(settings.get("step") or "", ("", ""))
        self.event, self.path = event, re.compile(path)
        self.account = os.open(settings["account"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.artifact = re.compile(ARTIFACT)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename", "os.mkdir", "os.chmod", "shutil.rmtree"):
            return
        path = arguments[1] if event == "os.rename" else arguments[0]
        if not isinstance(path, str | os.PathLike) or getattr(self.inside, "busy", False):
            return
        place = os.fspath(path)
        if not isinstance(place, str) or not place.startswith(self.store):
            return
        self.inside.busy = True
        try:
            self._told(event, place.removeprefix(self.store))
        finally:
            self.inside.busy = False

    def _told(self, event: str, path: str) -> None:
        if event == "os.rename" and self.artifact.fullmatch(path):
            self.inside.moved = path
        elif event == "open" and (moved := getattr(self.inside, "moved", None)) and path == moved.partition("/")[0]:
            self.note("published", moved)  # the next step: it has been moved
            self.inside.moved = None
        if event == self.event and self.path.fullmatch(path):
            self.seen += 1
            if self.seen > self.settings["nth"] and self._first():
                act(self.settings, self.note, path)

    def _first(self) -> bool:
        """Whether no other process of the run has done it."""
        try:
            os.close(os.open(self.settings["once"], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    def note(self, what: str, artifact: str) -> None:
        """Adds a line to the account."""
        os.write(self.account, f"{what} {artifact}\n".encode())


def install(settings: dict[str, Any]) -> None:
    """From here on this process is watched."""
    sys.addaudithook(Injector(settings))


def install_from_environment() -> None:
    """For processes that a run starts."""
    if SETTINGS in os.environ:
        install(json.loads(os.environ[SETTINGS]))


def act(settings: dict[str, Any], note: Any, path: str = "") -> None:
    """Does what goes wrong, in the process that it goes wrong in."""
    store, action, chance = Path(settings["store"]), settings["action"], random.Random(settings["seed"])
    if action in ("SIGKILL", "SIGTERM"):
        os.kill(settings["main"], getattr(signal, action))
        if action == "SIGKILL" and settings["main"] != os.getpid():
            os.kill(os.getpid(), signal.SIGSTOP)  # gets no further before it learns of the end
    elif action == "worker killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "full disk":
        kernel().arm(os.fsencode(store), chance.randrange(3), errno.ENOSPC, 1)
    elif action == "I/O error":
        kernel().arm(os.fsencode(store), chance.randrange(3), errno.EIO, 0)
    elif action == "clock jump":
        kernel().jump(ctypes.c_long(chance.choice((-1, 1)) * int(10 ** chance.uniform(0, 7.5))))
    elif action == "wait":
        Path(f"{settings['once']}.reached").touch()
    else:
        damage(store, action, chance, note)


def kernel() -> Any:
    """The preloaded library."""
    return ctypes.CDLL(os.environ["LD_PRELOAD"])


def artifacts(store: Path) -> list[Path]:
    """The folders of the artifacts that are there."""
    return sorted(path.parent for path in store.glob("[!.]*/*/manifest.json"))


def damage(store: Path, action: str, chance: random.Random, note: Any) -> str:
    """Damages something of what is stored, and says what; of an artifact the account is told."""
    if action == "vanished folder":
        found = [*artifacts(store), *filter(Path.is_dir, (store / name for name in FOLDERS))]
        found += sorted({path.parent for path in artifacts(store)})  # a whole stage
    elif action == "mutation":
        found = small_files(store)
    elif action == "deleted payload":
        found = [p for a in artifacts(store) for p in sorted(a.rglob("*")) if p.is_file()]
    else:
        found = [p for p in sorted(store.rglob("*")) if p.is_file() and p.stat().st_size and ".partial" not in p.parts]
    if not found:
        return "nothing"
    chosen = chance.choice(found)
    for folder in artifacts(store):
        if folder == chosen or folder in chosen.parents or chosen == folder.parent:
            note("damaged", str(folder.relative_to(store)))
    with contextlib.suppress(FileNotFoundError):
        _damaged(chosen, action, chance)
    return str(chosen.relative_to(store))


def _damaged(chosen: Path, action: str, chance: random.Random) -> None:
    if action == "vanished folder":
        shutil.rmtree(chosen, ignore_errors=True)
    elif action == "deleted payload":
        chosen.unlink()
    elif action == "mutation":
        chosen.write_bytes(mutated(chosen.read_bytes(), chance))
    elif action == "truncation":
        os.truncate(chosen, chance.randrange(chosen.stat().st_size))
    else:
        stat, data = chosen.stat(), bytearray(chosen.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        with open(chosen, "r+b") as file:
            file.write(data)
        if action == "bit flip, times kept":
            os.utime(chosen, ns=(stat.st_atime_ns, stat.st_mtime_ns))
