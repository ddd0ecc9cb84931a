"""A store with a remote behind it: the local one is the truth of a run, and what it misses is looked for by key."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from featcx_core.errors import InputError
from featcx_core.store.artifacts import ArtifactRef, Away, Store, sha256_of
from featcx_core.store.remote.address import Unreachable
from featcx_core.store.remote.cache import Remote, Sent
from featcx_core.store.remote.envelope import Offer, Refused
from featcx_core.store.remote.journal import Journal
from featcx_core.store.trust import inside

TELLING = 200_000  # bytes, of which fewer tell of a server's answer rather than of its pace
VIEWS = ".views"  # of artifacts that lie at a remote: the tables and numbers that were looked at


class SharedStore(Store):
    """A local store and a remote.

    What is found at the remote is known by its manifest; its payload comes when a path to it is asked for, and then it is an
    artifact of this store like any other. A payload that does not come, or is not what its manifest says, is refused: the
    artifact is missing from then on, and payloads of others are fetched when they are found, so that a run begins again once.

    Args:
        root: of the local store.
        at_once: send what is published before anybody hears of it, for workers whose store nobody else sees.
    """

    def __init__(self, root: str | Path, remote: Remote, journal: Journal, at_once: bool = False) -> None:
        super().__init__(root)
        self.remote, self.journal, self.at_once = remote, journal, at_once
        self.known = dict[str, Offer]()
        self.burnt = threading.Event()

    def find(self, stage: str, key: str, remember: bool = True) -> ArtifactRef | None:
        """The artifact when it is here and whole, or is offered by the remote."""
        found = super().find(stage, key, remember)
        if found is not None:
            return found
        offer = self.offer(stage, key)
        if offer is None:
            return None
        if remember and self._has_refused():
            try:
                self._fetch(offer.ref)
            except FileNotFoundError:
                return None
        return offer.ref

    def offer(self, stage: str, key: str) -> Offer | None:
        """What the remote offers for a key and this run has not refused."""
        path = f"{stage}/{key}"
        if (known := self.known.get(path)) is not None:
            return known
        if path in self.journal.refused():
            return None
        try:
            found = self.remote.look(stage, key)
        except Refused as error:
            self._refuse(path, f"{path[: len(stage) + 13]} at {self.remote.url} does not count: {error}")
            return None
        except Unreachable as error:
            self.journal.add("out", text=f"{error}; the run goes on without the remote")
            return None
        if found is not None:
            self.known[path] = found
            self.journal.add("found", path)
        return found

    def path(self, ref: ArtifactRef) -> Path:
        """The artifact's folder, fetched if it is not here.

        Raises:
            FileNotFoundError: when it is nowhere, or what the remote has of it does not count.
        """
        place = super().path(ref)
        if super().find(ref.stage, ref.key) is None:
            self._fetch(ref)
        return place

    def tables(self, ref: ArtifactRef) -> Path:
        """A folder with the artifact's tables and numbers: its own, or a view of what the remote has."""
        if super().find(ref.stage, ref.key) is not None:
            return super().path(ref)
        offer = self._asked_for(ref)
        view = inside(self.root, VIEWS, f"{ref.stage}-{ref.key}")
        names = [name for name in offer.manifest["files"] if "/" not in name and _is_table(name)]
        missing = [name for name in names if not self._is_whole(view, name, offer)]
        if missing:
            fresh = self._fresh(ref.stage, ref.key)
            self._got(offer, missing, fresh)
            view.mkdir(parents=True, exist_ok=True)
            for name in missing:
                (fresh / name).replace(inside(view, name))
            shutil.rmtree(fresh, ignore_errors=True)
        return view

    def away(self, ref: ArtifactRef) -> Away | None:
        """What the remote would send of an artifact that is not here."""
        if super().find(ref.stage, ref.key, remember=False) is not None:
            return None
        offer = self._asked_for(ref)
        try:
            pace = float(self._pace.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            pace = 0.0
        return Away(self.remote.url, offer.bytes, offer.bytes / pace if pace > 0 else None)

    def elsewhere(self, stage: str) -> list[dict[str, Any]]:
        """Manifests of what the remote has of a stage, the newest, oldest first."""
        return self.remote.newest(stage)

    @property
    def _pace(self) -> Path:
        """A note of the bytes a second that came from this remote last."""
        return inside(self.root, ".due", f"{self.remote.id}-pace")

    def manifest(self, ref: ArtifactRef) -> dict[str, Any]:
        """The artifact's manifest, from here or from the remote."""
        try:
            return super().manifest(ref)
        except InputError:
            raise
        except (OSError, ValueError):  # not here, or not whole
            return self._asked_for(ref).manifest

    def publish(self, stage: str, key: str, fill: Callable[[Path], dict[str, Any]]) -> ArtifactRef:
        """As a store does; the artifact is then due at the remote."""
        ref = super().publish(stage, key, fill)
        self.known.pop(ref.path, None)
        if not self.remote.read_only:
            due = self.due / f"{stage}-{key}"
            due.parent.mkdir(parents=True, exist_ok=True)
            due.touch()
            if self.at_once:
                self.send(stage, key)
        return ref

    @property
    def due(self) -> Path:
        """The folder of notes of what is still to be sent to this remote."""
        return inside(self.root, ".due", self.remote.id)

    def send(self, stage: str, key: str) -> Sent | None:
        """Sends one artifact; None where that did not work, which is told. It is then no longer due, or still."""
        path = f"{stage}/{key}"
        short = path[: len(stage) + 13]
        if Store.find(self, stage, key) is None:
            (self.due / f"{stage}-{key}").unlink(missing_ok=True)
            return None
        try:
            sent = self.remote.send(
                inside(self.root, stage, key), stage, key, mend=path in self.journal.refused(spoilt=True)
            )
        except (ValueError, OSError) as error:
            told = f"What was computed could not be sent: {error}; `featcx remote push` sends it later"
            self.journal.add("unsent", path, told)
            return None
        (self.due / f"{stage}-{key}").unlink(missing_ok=True)
        if sent.outcome == "differs":
            own = self.manifest(ArtifactRef(stage=stage, key=key, digest=""))
            here = f"here ({own['device']}, {own['started'][:16]})"
            told = (
                f"{short} came out differently {here} and by {sent.whence}: not deterministic. The remote keeps its own"
            )
            self.journal.add("differs", path, told)
        else:
            self.journal.add(sent.outcome, path, bytes=sent.bytes, seconds=round(sent.seconds, 3))
            if sent.outcome == "sent":
                _mark_used(self, path)
        return sent

    def _asked_for(self, ref: ArtifactRef) -> Offer:
        offer = self.offer(ref.stage, ref.key)
        if offer is None or (ref.digest and offer.ref.digest != ref.digest):
            raise FileNotFoundError(f"{ref.path} is neither in {self.root} nor at {self.remote.url}")
        return offer

    def _fetch(self, ref: ArtifactRef) -> None:
        """Makes an offer an artifact of this store; one thread or process does, the others find it."""
        with self._hold(f"fetch-{ref.stage}-{ref.key}", fcntl.LOCK_EX):
            if super().find(ref.stage, ref.key) is not None:
                return
            offer = self._asked_for(ref)
            folder, names = self._fresh(ref.stage, ref.key), list(offer.manifest["files"])
            try:
                self._got(offer, names, folder)
                self._move_in(folder, ref.stage, ref.key, offer.text, names)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(inside(self.root, VIEWS, f"{ref.stage}-{ref.key}"), ignore_errors=True)

    def _got(self, offer: Offer, names: list[str], folder: Path) -> None:
        """Has files of an offer in a folder.

        Raises:
            FileNotFoundError: when one does not come or does not fit; the offer is refused then.
        """
        path, began = offer.ref.path, time.monotonic()
        try:
            if offer.bytes > (free := shutil.disk_usage(folder).free):
                raise Unreachable(f"it has {offer.bytes / 1e6:.0f} MB, and there are {free / 1e6:.0f} MB free here")
            moved = self.remote.fetch(offer, names, folder)
        except (Refused, Unreachable, InputError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            short = path[: len(offer.ref.stage) + 13]
            told = f"{short} at {self.remote.url} is of no use: {error}; it is computed here"
            self._refuse(path, told, spoilt=isinstance(error, Refused))
            raise FileNotFoundError(f"{path} could not be fetched: {error}") from error
        _mark_used(self, path)
        took = time.monotonic() - began
        self.journal.add("fetched", path, bytes=moved, seconds=round(took, 3))
        if moved > TELLING:
            with contextlib.suppress(OSError):
                self._pace.write_text(f"{moved / took:.0f}", encoding="utf-8")

    def _refuse(self, path: str, told: str, spoilt: bool = True) -> None:
        self.known.pop(path, None)
        self.journal.add("refused", path, told, spoilt=spoilt)
        self.burnt.set()

    def _has_refused(self) -> bool:
        if not self.burnt.is_set() and self.journal.refused():
            self.burnt.set()
        return self.burnt.is_set()

    def _is_whole(self, view: Path, name: str, offer: Offer) -> bool:
        with contextlib.suppress(OSError):
            return sha256_of(inside(view, name)) == offer.manifest["files"][name]["sha256"]
        return False


def _is_table(name: str) -> bool:
    return name.endswith(".parquet") or name == "numbers.json"


def uses(store: Store, remote: Remote) -> Path:
    """The file of what this store has had of a remote today, which `Remote.note_use` sends at the end of a run."""
    return inside(store.root, ".due", f"{remote.id}-used-{today()}")


def today() -> str:
    """20261127, by the clock of Greenwich."""
    return time.strftime("%Y%m%d", time.gmtime())


def client_of(store: Store) -> str:
    """A name of this store that tells nothing of it."""
    file = inside(store.root, ".due", "client")
    with contextlib.suppress(OSError):
        if (known := file.read_text(encoding="utf-8").strip()).isalnum():
            return known
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(name := uuid.uuid4().hex[:16], encoding="utf-8")
    return name


def _mark_used(store: SharedStore, path: str) -> None:
    with contextlib.suppress(OSError):
        file = uses(store, store.remote)
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "a", encoding="utf-8") as out:
            out.write(f"{path}\n")
