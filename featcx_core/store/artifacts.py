"""The artifact store: folders under content-addressed keys, each with a manifest that explains it.

`<root>/<stage>/<key>/` holds the payload and `manifest.json`. Folders appear by a rename, whole or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from featcx_core.errors import InputError
from featcx_core.store.keys import digest
from featcx_core.store.trust import MANIFEST, Digest, Name, below, inside, read_json, read_manifest, seal


class ArtifactRef(BaseModel):
    """What travels between tasks: which artifact, and the digest of its content. Its path is relative to the store."""

    model_config = ConfigDict(frozen=True)

    stage: Name
    key: Name
    digest: Digest

    @property
    def path(self) -> str:
        """The folder, relative to the store's root."""
        return f"{self.stage}/{self.key}"


class FileRef(BaseModel):
    """A user's files: the digest of their bytes counts in a key, the path does not."""

    model_config = ConfigDict(frozen=True)

    path: str
    digest: str

    @staticmethod
    def of(path: str | Path, files: Sequence[Path]) -> FileRef:
        """A reference to `files` in or at `path`: their bytes and their names below it count."""
        root = Path(path).expanduser()
        named = [[str(file.relative_to(root)) if file != root else "", _known_sha256(file)] for file in files]
        return FileRef(path=str(path), digest=digest(named))


class Away(NamedTuple):
    """What of an artifact is still to be fetched.

    Attributes:
        seconds: by the pace of what came before; None where nothing did.
    """

    where: str
    bytes: int
    seconds: float | None


class Damage(NamedTuple):
    """A file of an artifact that is missing or changed."""

    artifact: str
    file: str
    reason: str


class Store:
    """A folder of artifacts.

    Args:
        root: made when the first artifact is written.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()

    @property
    def can_be_written(self) -> bool:
        """Whether artifacts can be added, in a folder that may have to be made."""
        existing = self.root
        while not existing.exists():
            existing = existing.parent
        return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)

    def path(self, ref: ArtifactRef) -> Path:
        """The artifact's folder.

        Raises:
            InputError: when a symbolic link stands in its place.
        """
        return inside(self.root, ref.stage, ref.key)

    def place(self, ref: ArtifactRef) -> Path:
        """Where the artifact's folder is, or would be."""
        return inside(self.root, ref.stage, ref.key)

    def tables(self, ref: ArtifactRef) -> Path:
        """A folder with the artifact's tables and numbers; of what lies elsewhere no more than these is fetched."""
        return self.path(ref)

    def away(self, ref: ArtifactRef) -> Away | None:
        """What is to be fetched of an artifact that was found; None of one that is here."""
        return None

    def elsewhere(self, stage: str) -> list[dict[str, Any]]:
        """Manifests of a stage's newest artifacts that may not be here, oldest first."""
        return []

    def manifest(self, ref: ArtifactRef) -> dict[str, Any]:
        """The artifact's manifest."""
        return read_manifest(self.root, ref.stage, ref.key)

    def find(self, stage: str, key: str, remember: bool = True) -> ArtifactRef | None:
        """The artifact when it is there and whole, else None.

        Each file's size, time and inode are held against the last full check; it is hashed anew when they changed, and
        that check is noted in the store if `remember`.
        """
        folder = self.root / stage / key
        try:
            manifest = read_manifest(self.root, stage, key)
            stamps = {name: _stamp(folder / name) for name in (*manifest["files"], MANIFEST)}
        except (OSError, ValueError):
            return None
        memo = self._memo(stage, key)
        try:
            fresh = read_json(memo) == stamps
        except (OSError, ValueError):
            fresh = False
        if not fresh:
            if self._damage(folder, manifest):
                return None
            if remember:
                with contextlib.suppress(OSError):  # a store that cannot be written is read all the same
                    _write(memo, json.dumps(stamps))
        return ArtifactRef(stage=stage, key=key, digest=manifest["digest"])

    @contextlib.contextmanager
    def lock(self, stage: str, key: str) -> Iterator[None]:
        """Holds the key for this thread; the kernel lets go of it when the holder dies."""
        with self._hold(f"{stage}-{key}", fcntl.LOCK_EX):
            yield

    @contextlib.contextmanager
    def alone(self, stage: str, key: str) -> Iterator[None]:
        """As `lock`, without waiting.

        Raises:
            BlockingIOError: when somebody holds the key.
        """
        with self._hold(f"{stage}-{key}", fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield

    def lease(self, run: str) -> IO[str]:
        """A run is alive until this is closed or its process ends: what it has found or made is not pruned."""
        return self._hold(f"run-{run}", fcntl.LOCK_SH)

    def live_runs(self) -> list[str]:
        """The runs whose lease is held."""
        found = []
        for path in self.root.glob(".locks/run-*"):
            run = path.name.removeprefix("run-")
            try:
                with self.alone("run", run):
                    pass
            except BlockingIOError:
                found.append(run)
        return found

    def _hold(self, name: str, how: int) -> IO[str]:
        path = inside(self.root, ".locks", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w", encoding="utf-8")  # noqa: SIM115 (whoever asked closes it)
        try:
            fcntl.flock(file, how)
        except OSError:
            file.close()
            raise
        return file

    def publish(self, stage: str, key: str, fill: Callable[[Path], dict[str, Any]]) -> ArtifactRef:
        """Has `fill` write a payload into a fresh folder, then moves it into place with the manifest it returns.

        `fill`'s manifest may name files under 'volatile': they are checked like the others but are no part of the
        artifact's digest, since they tell times and places.
        """
        folder = self._fresh(stage, key)
        try:
            manifest = fill(folder)
            names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
            files = {
                name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in names
            }
            content = content_digest(files, manifest.get("volatile", ()))
            manifest = {"stage": stage, "key": key, "digest": content} | manifest | {"files": files}
            manifest["seal"] = seal(json.loads(json.dumps(manifest)))
            self._move_in(folder, stage, key, json.dumps(manifest, indent=1, ensure_ascii=False), names)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return ArtifactRef(stage=stage, key=key, digest=content)

    def _fresh(self, stage: str, key: str) -> Path:
        """An empty folder on the store's file system."""
        folder = self.root / ".partial" / f"{stage}-{key[:12]}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(parents=True)
        return folder

    def _move_in(self, folder: Path, stage: str, key: str, manifest: str, names: Collection[str]) -> None:
        """Makes of a folder of files that were hashed, and of the text of their manifest, the artifact of this key."""
        final, aside = inside(self.root, stage, key), folder.with_name(f"{folder.name}-damaged")
        _write(folder / MANIFEST, manifest)
        for name in names:
            (folder / name).chmod(folder.stat().st_mode & 0o666)  # some libraries' files are closed to the group
            _sync(folder / name)
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            if final.exists():  # damaged, or find() would have served it
                final.rename(aside)
            folder.rename(final)
            _sync(final.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        stamps = {name: _stamp(final / name) for name in (*names, MANIFEST)}
        _write(self._memo(stage, key), json.dumps(stamps))

    def manifests(self) -> list[dict[str, Any]]:
        """All manifests that lie where they say, oldest first."""
        found = []
        for stage, key in self._folders():
            with contextlib.suppress(OSError, ValueError):
                found.append(read_manifest(self.root, stage, key))
        return sorted(found, key=lambda m: (m["started"], m["stage"], m["key"]))

    def _folders(self) -> list[tuple[str, str]]:
        """Stage and key of every folder that may be an artifact, links among them."""
        return sorted((p.parent.name, p.name) for p in self.root.glob("[!.]*/*") if p.is_dir() or p.is_symlink())

    def resolve(self, key: str) -> dict[str, Any]:
        """The manifest of the one artifact whose key, or stage/key, starts with `key`.

        Raises:
            InputError: when none or several do.
        """
        stage, _, prefix = key.rpartition("/")
        found = [m for m in self.manifests() if m["key"].startswith(prefix) and stage in ("", m["stage"])]
        paths = [f"{m['stage']}/{m['key']}" for m in found]
        one_alone(paths, key, f"No artifact in {self.root}", "featcx artifacts list")
        return found[0]

    def lineage(self, refs: Iterable[ArtifactRef]) -> list[dict[str, Any]]:
        """The manifests of these artifacts and of all that they were made from and is still there, inputs first."""
        found: dict[str, dict[str, Any]] = {}
        opened: dict[str, dict[str, Any]] = {}
        waiting = [*reversed(list(refs))]
        while waiting:
            path = waiting[-1].path
            if path in opened:  # all that it was made from has been told, or is told in a circle
                ref = waiting.pop()
                found.setdefault(ref.path, opened[path])
                continue
            try:
                opened[path] = self.manifest(waiting[-1])
            except (OSError, ValueError):
                waiting.pop()
                continue
            waiting += reversed(references(opened[path]["lineage"]))
        return list(found.values())

    def verify(self) -> list[Damage]:
        """Hashes every file of every artifact; the damaged ones, empty when all is well.

        What is damaged is found no longer, though its sizes and times may be as they were.
        """
        damaged = []
        for stage, key in self._folders():
            folder, name = self.root / stage / key, f"{stage}/{key}"
            try:
                manifest = read_manifest(self.root, stage, key)
                if found := self._damage(folder, manifest):
                    damaged += [Damage(name, *entry) for entry in found]
                    with contextlib.suppress(OSError):
                        self._memo(stage, key).unlink(missing_ok=True)
            except FileNotFoundError:
                damaged.append(Damage(name, MANIFEST, "is missing"))
            except (OSError, ValueError) as error:
                damaged.append(Damage(name, MANIFEST, f"cannot be read ({error})"))
        return damaged + self._damaged_notes()

    def _damaged_notes(self) -> list[Damage]:
        """What lies beside the artifacts and is not as featcx writes it; a run takes none of it on trust."""
        beside = sorted(below(self.root))
        damaged = [
            Damage(str(path.parent.relative_to(self.root)), path.name, "is a symbolic link, which no store holds")
            for path in beside
            if path.is_symlink() and path.parent.name not in (".", "..") and len(path.relative_to(self.root).parts) != 2
        ]
        for pattern in (".checks/*.json", ".runs/*/*.json", ".prefect/results/*"):
            for path in (p for p in beside if p.relative_to(self.root).match(pattern) and p.is_file()):
                try:
                    value = read_json(path)
                    if pattern.startswith(".prefect") and value["metadata"]["serializer"]["type"] != "json":
                        raise ValueError("it names a serializer that featcx does not use")
                except FileNotFoundError:
                    continue  # of a run at work
                except (OSError, ValueError, KeyError, TypeError) as error:
                    damaged.append(
                        Damage(str(path.parent.relative_to(self.root)), path.name, f"is not as written ({error})")
                    )
        return damaged

    def _damage(self, folder: Path, manifest: dict[str, Any]) -> list[tuple[str, str]]:
        found = []
        for name, entry in manifest["files"].items():
            path = inside(folder, name)
            if not path.is_file():
                found.append((name, "is missing"))
            elif path.stat().st_size != entry["bytes"] or sha256_of(path) != entry["sha256"]:
                found.append((name, "has changed since it was written"))
        if content_digest(manifest["files"], manifest.get("volatile", ())) != manifest["digest"]:
            found.append((MANIFEST, "does not fit its files"))
        return found

    def _memo(self, stage: str, key: str) -> Path:
        return self.root / ".checks" / f"{stage}-{key}.json"


def one_alone(paths: Sequence[str], key: str, none: str, listing: str) -> None:
    """Makes sure that of these artifacts, whose keys start with `key`, there is one alone.

    Raises:
        InputError: when there are none or several; `none` begins the sentence, and a command lists what there is.
    """
    if len(paths) > 1:
        many = "; ".join(stage + "/" + own[:12] for stage, own in (path.split("/") for path in paths[:5]))
        raise InputError(f"Several artifacts start with '{key}': {many}. Give more of the key.")
    if not paths:
        raise InputError(f"{none} has a key that starts with '{key}'; see `{listing}`.")


def references(value: Any) -> list[ArtifactRef]:
    """The references in nested lists and dicts, in order; what only looks like one is passed over."""
    found, waiting = [], [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict) and set(value) == {"stage", "key", "digest"}:
            with contextlib.suppress(ValidationError):
                found.append(ArtifactRef(**value))
        elif isinstance(value, dict):
            waiting += reversed(value.values())
        elif isinstance(value, list):
            waiting += reversed(value)
    return found


def content_digest(files: dict[str, Any], volatile: Collection[str]) -> str:
    """The digest of an artifact's content: names and hashes of the files that are not volatile."""
    return digest({name: entry["sha256"] for name, entry in files.items() if name not in volatile})


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _known_sha256(path: Path) -> str:
    """The hash of a user's file, read once by a process while the file stays as it is."""
    stat = path.stat()
    return _stamped_sha256(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@functools.cache
def _stamped_sha256(path: Path, size: int, changed: int, inode: int) -> str:
    return sha256_of(path)


def sha256_of(path: Path) -> str:
    """The hash of a file, as manifests have it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, text: str) -> None:
    """Writes a small file so that a reader sees the old text or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
    with open(fresh, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
