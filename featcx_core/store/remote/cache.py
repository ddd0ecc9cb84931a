"""The cache at an address: an envelope an artifact, visible last, and beside it the files, under a digest of them all."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from featcx_core.errors import InputError
from featcx_core.store.artifacts import ArtifactRef
from featcx_core.store.keys import digest
from featcx_core.store.remote.address import PATIENCE, Address, Entry, Forbidden, Patience, Unreachable
from featcx_core.store.remote.envelope import (
    Offer,
    Refused,
    envelope_name,
    folder_of,
    is_packed,
    opened,
    place_of,
    sealed,
    unpacked,
)
from featcx_core.store.trust import LARGEST, MANIFEST, Name, believed, inside, parsed

CHUNK = 8 << 20  # bytes of one request
REST, LONGEST = 60.0, 1800.0  # seconds for which a remote that did not answer is left alone; twice as long each time
TRANSFERS = int(os.environ.get("FEATCX_REMOTE_TRANSFERS") or 4)
NAMES = TypeAdapter(Name)


class Sent(NamedTuple):
    """What came of sending an artifact: 'sent', 'there' already, or 'differs' from what is there, of this origin."""

    outcome: str
    bytes: int = 0
    seconds: float = 0.0
    whence: str = ""


class Remote:
    """A team's cache.

    Args:
        url: see `Address`.
        read_only: never write there.
        secret: the team's key: only what it has signed counts, and what is sent is signed. Empty: nobody signs.
    """

    def __init__(self, url: str, read_only: bool = False, secret: str = "", patience: Patience = PATIENCE) -> None:
        self.address, self.read_only, self.secret = Address(url, patience), read_only, secret
        self.url, self.id = self.address.url, digest(self.address.url)[:12]
        self.incoming = ThreadPoolExecutor(TRANSFERS, "featcx-fetch")
        self._out, self._rest = (0.0, ""), REST

    def look(self, stage: str, key: str) -> Offer | None:
        """What the remote offers for a key, None if nothing.

        Raises:
            Refused, Unreachable: when what is there does not count; when it cannot be asked.
        """
        with self._asked():
            try:
                content = self.address.read(envelope_name(stage, key), 0, LARGEST + 1)
            except (FileNotFoundError, Forbidden):  # a bucket that forbids listing answers so for what is not there
                return None
        return opened(content, stage, key, Path("/") / stage / key, self.secret)

    def fetch(self, offer: Offer, names: Sequence[str], folder: Path) -> int:
        """Writes files of an offer into a folder, each checked as it streams; how many bytes came.

        Raises:
            Refused, Unreachable: when one is not what the manifest says, is missing, or does not come.
        """
        jobs = [self.incoming.submit(self._fetch, offer, name, inside(folder, name)) for name in names]
        errors = [error for job in jobs if (error := job.exception()) is not None]
        if errors:
            raise errors[0]
        return sum(job.result() for job in jobs)

    def _fetch(self, offer: Offer, name: str, path: Path) -> int:
        path.parent.mkdir(parents=True, exist_ok=True)
        moved = list[int]()
        with open(path, "wb") as file:
            for part in self.parts(offer, name, moved):
                file.write(part)
        return sum(moved)

    def parts(self, offer: Offer, name: str, moved: list[int] | None = None) -> Iterator[bytes]:
        """A file of an offer in pieces. Only after the last is it known to be what the manifest says.

        Args:
            moved: is told how many bytes came at a time.

        Raises:
            Refused, Unreachable: when it is not, is missing, or does not come.
        """
        size, found, length = offer.manifest["files"][name]["bytes"], hashlib.sha256(), 0
        place, packed = place_of(offer.manifest, name), is_packed(offer.manifest, name)
        pieces = self._pieces(place, name, None if packed else size, [] if moved is None else moved)
        for part in unpacked(pieces, size) if packed else pieces:
            found.update(part)
            length += len(part)
            yield part
        if length < size:
            raise Refused(f"{name} ends too soon")
        if found.hexdigest() != offer.manifest["files"][name]["sha256"]:
            raise Refused(f"{name} is not what its manifest says")

    def _pieces(self, place: str, name: str, size: int | None, moved: list[int]) -> Iterator[bytes]:
        """A file as it lies there, up to `size` bytes or to its end."""
        start = 0
        while size is None or start < size:
            try:
                with self._asked():
                    part = self.address.read(place, start, start + CHUNK if size is None else min(start + CHUNK, size))
            except FileNotFoundError:
                raise Refused(f"{name} is missing") from None
            moved.append(len(part))
            yield part
            start += len(part)
            if len(part) < CHUNK:
                return

    def send(self, folder: Path, stage: str, key: str, mend: bool = False) -> Sent:
        """Sends an artifact of a store: its files first, the envelope last. What is there with another digest stays.

        Args:
            mend: what is there was refused, so send all the same.

        Raises:
            Unreachable: when the remote does not take it.
            FileNotFoundError, ValueError: when the store no longer has it whole.
        """
        if self.read_only:
            raise Unreachable(f"{self.url} is only read here (--remote-read-only)")
        text = (folder / MANIFEST).read_text(encoding="utf-8")
        manifest, began = believed(parsed(text.encode()), stage, key, folder), time.monotonic()
        there = None if mend else self._there(stage, key)
        if there is None:
            sizes = {name: entry["bytes"] for name, entry in manifest["files"].items()}
            moved = 0
            with self._asked():
                known = {} if mend or sum(sizes.values()) < CHUNK else self._known(folder_of(manifest))
                for name, size in sizes.items():  # what an upload that was cut has left is not sent again
                    if is_packed(manifest, name) or known.get(place_of(manifest, name)) != size:
                        moved += self._put(manifest, name, inside(folder, name))
                made = self.address.create(sealed(text, self.secret), envelope_name(stage, key), over=mend)
            if made:
                return Sent("sent", moved, time.monotonic() - began)
            there = self._there(stage, key)
        if there is None or there.manifest["digest"] == manifest["digest"]:
            return Sent("there")
        return Sent("differs", whence=there.whence())

    def _put(self, manifest: dict[str, Any], name: str, path: Path) -> int:
        place = place_of(manifest, name)
        if not is_packed(manifest, name):
            self.address.put(path, place)
            return int(manifest["files"][name]["bytes"])
        packed = gzip.compress(path.read_bytes(), compresslevel=6, mtime=0)
        self.address.create(packed, place, over=True)
        return len(packed)

    def _there(self, stage: str, key: str) -> Offer | None:
        """What is there and counts; what does not count is written over."""
        try:
            return self.look(stage, key)
        except Refused:
            return None

    def _known(self, folder: str) -> dict[str, int]:
        try:
            return {entry.name: entry.bytes for entry in self.address.list(folder)}
        except Forbidden:
            return {}

    def offers(self, stage: str = "") -> list[tuple[ArtifactRef, Entry]]:
        """Stage and key of all envelopes, by their names alone, so without digests; of one stage if named.

        Raises:
            InputError: where the remote forbids listing.
        """
        found = []
        for entry in self.listed(f"artifacts/{stage}" if stage else "artifacts"):
            parts = entry.name.split("/")
            if len(parts) == 3 and parts[2].endswith(".json"):
                with contextlib.suppress(ValidationError):  # a stranger's names
                    found.append((ArtifactRef(stage=parts[1], key=parts[2][:-5], digest=""), entry))
        return found

    def newest(self, stage: str, count: int = 12) -> list[dict[str, Any]]:
        """Manifests of a stage's newest artifacts, oldest first; none where the remote does not tell."""
        found = []
        with contextlib.suppress(InputError, Unreachable):
            for ref, _ in sorted(self.offers(stage), key=lambda pair: pair[1].written)[-count:]:
                with contextlib.suppress(Refused):
                    found += [offer.manifest for offer in [self.look(ref.stage, ref.key)] if offer]
        return found

    def listed(self, folder: str) -> list[Entry]:
        """The files below a folder.

        Raises:
            InputError: where the remote forbids listing, or does not answer.
        """
        try:
            with self._asked():
                return self.address.list(folder)
        except Forbidden as error:
            raise InputError(
                f"{self.url} does not allow listing, which this needs; runs do without. Ask for the right to list."
            ) from error
        except Unreachable as error:
            raise InputError(f"{error}.") from error

    def note_use(self, day: str, client: str, paths: Sequence[str]) -> None:
        """Leaves what this client has used on a day, one small file, for the collection of garbage."""
        if paths and not self.read_only:
            with self._asked():
                text = "".join(f"{path}\n" for path in sorted(paths))
                self.address.create(text.encode(), f"used/{day}-{client}.txt", over=True)

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        """A remote that did not answer is left alone for a while, so that a run goes on without it.

        Raises:
            Unreachable: while it is.
        """
        until, reason = self._out
        if time.monotonic() < until:
            raise Unreachable(reason)
        try:
            yield
            self._rest = REST
        except Forbidden:
            raise
        except Unreachable as error:
            self._out, self._rest = (time.monotonic() + self._rest, str(error)), min(2 * self._rest, LONGEST)
            raise
