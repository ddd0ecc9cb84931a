"""Looks after a remote: what lies there, what of it is damaged, what may go; artifacts with what they were made from."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from featcx_core.errors import InputError
from featcx_core.store.artifacts import ArtifactRef, Store, one_alone, references
from featcx_core.store.remote.address import Entry, Unreachable
from featcx_core.store.remote.cache import TRANSFERS, Remote, Sent
from featcx_core.store.remote.envelope import Offer, Refused
from featcx_core.store.remote.outbox import due
from featcx_core.store.remote.shared import SharedStore

DAY = 86_400.0  # seconds
T = TypeVar("T")
R = TypeVar("R")


class Held(NamedTuple):
    """What a remote holds of an artifact.

    Attributes:
        envelope: what makes it visible; None for what an upload has left that was cut.
        files: its payload.
    """

    ref: ArtifactRef
    envelope: Entry | None
    files: list[Entry]

    @property
    def bytes(self) -> int:
        """Size of its payload."""
        return sum(file.bytes for file in self.files)

    @property
    def written(self) -> float:
        """When the last of it was written, by the server's clock."""
        return max(entry.written for entry in (*self.files, *([self.envelope] if self.envelope else [])))


class Fault(NamedTuple):
    """A file at a remote that does not count."""

    artifact: str
    reason: str


def inventory(remote: Remote) -> dict[str, Held]:
    """All that lies at a remote, by stage/key; names that are no artifact's are passed over.

    Raises:
        InputError: where listing is forbidden.
    """
    found = dict[str, Held]()
    for entry in remote.listed("artifacts"):
        _, stage, rest, *more = [*entry.name.split("/"), "", ""][: 3 + entry.name.count("/")]
        is_envelope = rest.endswith(".json") and not any(more)
        with contextlib.suppress(ValidationError):
            ref = ArtifactRef(stage=stage, key=rest.removesuffix(".json") if is_envelope else rest, digest="")
            held = found.get(ref.path, Held(ref, None, []))
            found[ref.path] = (
                held._replace(envelope=entry) if is_envelope else held._replace(files=[*held.files, entry])
            )
    return found


def faults(remote: Remote, tell: Callable[[int, int], None] = lambda done, total: None) -> tuple[int, list[Fault]]:
    """Reads every file at a remote: how many artifacts there are, and what of them does not count."""
    refs = [held.ref for held in inventory(remote).values() if held.envelope]

    def check(ref: ArtifactRef) -> Fault | None:
        try:
            offer = remote.look(ref.stage, ref.key)
            for name in offer.manifest["files"] if offer else ():
                for _ in remote.parts(offer, name):  # type: ignore[arg-type]
                    pass
        except Refused as error:
            return Fault(ref.path, str(error))
        return None

    found = []
    for done, fault in enumerate(_side_by_side(check, refs), 1):
        tell(done, len(refs))
        found += [fault] if fault else []
    return len(refs), found


def superfluous(remote: Remote, keep_days: float | None, max_megabytes: float | None) -> list[Held]:
    """What may go: used last before `keep_days`, or beyond the size; never what an artifact that stays was made from.

    What was pushed by its key stays with all that it was made from. Use is told by the server's clock: an artifact was used
    when it was sent, or when a store told that it had it.

    Raises:
        InputError: for negative limits, or where listing is forbidden.
    """
    if (keep_days or 0) < 0 or (max_megabytes or 0) < 0:
        raise InputError("--keep-days and --max-size cannot be negative; give 0 or more.")
    held, now = inventory(remote), _server_time(remote)
    used = _last_uses(remote, held)
    pinned = [path for path in _pinned(remote) if path in held]
    since = float("-inf") if keep_days is None else now - keep_days * DAY
    room = float("inf") if max_megabytes is None else max_megabytes * 1e6
    kept = _with_lineage(remote, held, pinned, set())
    for path in sorted((p for p in held if held[p].envelope), key=lambda p: (-used[p], p)):
        if used[path] >= since and path not in kept:
            whole = _with_lineage(remote, held, [path], kept)
            if sum(held[p].bytes for p in whole) > room:
                break
            kept = whole
    fresh = now - DAY  # an upload may be under way
    return [h for path, h in held.items() if path not in kept and (h.envelope or h.written < fresh)]


def remove(remote: Remote, going: Iterable[Held]) -> int:
    """Removes artifacts, the envelope of each first, so that nobody finds half of one; how many bytes are gone.

    What is cut off half-way is taken up by the next time.
    """

    def drop(held: Held) -> int:
        for entry in (*([held.envelope] if held.envelope else []), *held.files):
            remote.address.remove(entry.name)
        return held.bytes

    return sum(_side_by_side(drop, list(going)))


def push(store: SharedStore, key: str | None, everything: bool = False) -> list[tuple[ArtifactRef, Sent | None]]:
    """Sends an artifact with all that it was made from, which then stays; without a key what is due, or all that is here.

    Raises:
        InputError: for a key that no artifact here has.
    """
    if key is not None:
        root = _ref(Store.resolve(store, key))
        manifests = Store.lineage(store, [root])
    else:
        root, manifests = None, store.manifests() if everything else []
    refs = [_ref(m) for m in manifests] or ([] if key or everything else due(store))
    here = [ref for ref in refs if Store.find(store, ref.stage, ref.key) is not None]
    sent = list(zip(here, _side_by_side(lambda ref: store.send(ref.stage, ref.key), here), strict=True))
    if root is not None and all(result is not None for _, result in sent):
        store.remote.address.create(b"", f"pinned/{root.path}", over=True)
    return sent


def pull(store: SharedStore, key: str, alone: bool = False) -> list[ArtifactRef]:
    """Fetches an artifact, and unless `alone` all that it was made from.

    Raises:
        InputError: for a key that the remote does not have, or of which something did not come.
    """
    root = named(store.remote, key)
    offer = store.offer(root.stage, root.key)
    if offer is None:
        raise InputError(f"What {store.remote.url} has of {root.path} does not count; see `featcx remote verify`.")
    refs = [offer.ref] if alone else [_ref(m) for m in store.lineage([offer.ref])]
    try:
        list(_side_by_side(store.path, refs))
    except FileNotFoundError as error:
        raise InputError(f"{error}.") from error
    return refs


def named(remote: Remote, key: str) -> ArtifactRef:
    """The one artifact at a remote whose key, or stage/key, starts with `key`.

    Raises:
        InputError: when none or several do.
    """
    stage, _, prefix = key.rpartition("/")
    if stage and len(prefix) == 64 and (offer := _looked(remote, stage, prefix)) is not None:  # which needs no listing
        return offer.ref
    found = [ref for ref, _ in remote.offers(stage) if ref.key.startswith(prefix)]
    one_alone([ref.path for ref in found], key, f"No artifact at {remote.url}", "featcx remote status")
    return found[0]


def _with_lineage(remote: Remote, held: dict[str, Held], paths: Iterable[str], known: set[str]) -> set[str]:
    """`known`, these artifacts, and all that they were made from and that is there."""
    found, waiting = set(known), [path for path in paths if path not in known]
    while waiting:
        found.update(waiting)
        offers = _side_by_side(lambda path: _looked(remote, held[path].ref.stage, held[path].ref.key), waiting)
        inputs = {ref.path for offer in offers if offer for ref in references(offer.manifest["lineage"])}
        waiting = sorted(path for path in inputs & held.keys() - found if held[path].envelope)
    return found


def _looked(remote: Remote, stage: str, key: str) -> Offer | None:
    try:
        ArtifactRef(stage=stage, key=key, digest="")
        return remote.look(stage, key)
    except (Refused, ValidationError):
        return None
    except Unreachable as error:
        raise InputError(f"{error}.") from error


def _last_uses(remote: Remote, held: dict[str, Held]) -> dict[str, float]:
    """When each artifact was used last, by the server's clock."""
    used = {path: h.envelope.written if h.envelope else h.written for path, h in held.items()}
    for entry in remote.listed("used"):
        with contextlib.suppress(OSError, UnicodeError):
            for path in remote.address.read(entry.name, 0, 16 << 20).decode().split():
                if path in used:
                    used[path] = max(used[path], entry.written)
    return used


def _pinned(remote: Remote) -> list[str]:
    return [entry.name.removeprefix("pinned/") for entry in remote.listed("pinned")]


def _server_time(remote: Remote) -> float:
    """The remote's own clock: this machine's may be wrong."""
    name = f"clock/{uuid.uuid4().hex}"
    remote.address.create(b"", name, over=True)
    try:
        return max((entry.written for entry in remote.listed("clock")), default=0.0)
    finally:
        remote.address.remove(name)


def _side_by_side(work: Callable[[T], R], things: list[T]) -> Iterator[R]:
    """What `work` makes of each, in order, a few at a time."""
    with ThreadPoolExecutor(TRANSFERS) as pool:
        yield from pool.map(work, things)


def _ref(manifest: dict[str, Any]) -> ArtifactRef:
    return ArtifactRef(stage=manifest["stage"], key=manifest["key"], digest=manifest["digest"])
