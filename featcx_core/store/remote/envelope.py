"""What lies at a remote for an artifact: its manifest in an envelope that says from where, signed if the team has a key."""

from __future__ import annotations

import getpass
import hashlib
import hmac
import json
import os
import platform
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from featcx_core.store.artifacts import ArtifactRef, content_digest
from featcx_core.store.keys import digest
from featcx_core.store.trust import believed, parsed

FORM = 1
PACKED = (".html", ".svg", ".json")  # lie there packed: some sixth of their size
WORTH = (1 << 10, 64 << 20)  # bytes before; what is smaller or larger goes as it is
SLACK = 1 << 16  # bytes by which packed may be larger than unpacked
KEY = "FEATCX_REMOTE_KEY"


class Refused(ValueError):
    """What lies at the remote does not count; the words say why."""


class Offer(NamedTuple):
    """An artifact that a remote has.

    Attributes:
        text: of its manifest, byte by byte.
        origin: who made it and where, as the envelope says.
    """

    manifest: dict[str, Any]
    text: str
    origin: dict[str, str]

    @property
    def ref(self) -> ArtifactRef:
        """What travels in its place."""
        return ArtifactRef(stage=self.manifest["stage"], key=self.manifest["key"], digest=self.manifest["digest"])

    @property
    def bytes(self) -> int:
        """The size of its payload."""
        return sum(entry["bytes"] for entry in self.manifest["files"].values())

    def whence(self) -> str:
        """'ada at gpu3 (NVIDIA H100, 2026-11-26T20:11)'."""
        told = (
            *(str(self.origin.get(name, "unknown"))[:60] for name in ("user", "host")),
            self.manifest["device"][:60],
        )
        return f"{told[0]} at {told[1]} ({told[2]}, {self.manifest['started'][:16]})"


def envelope_name(stage: str, key: str) -> str:
    """Where the envelope of an artifact lies."""
    return f"artifacts/{stage}/{key}.json"


def folder_of(manifest: dict[str, Any]) -> str:
    """Where an artifact's files lie."""
    return f"artifacts/{manifest['stage']}/{manifest['key']}/{digest(manifest['files'])[:16]}"


def place_of(manifest: dict[str, Any], name: str) -> str:
    """Where a file of an artifact lies: under a digest of all its files, so that two uploads never mix; `.gz` if packed."""
    return f"{folder_of(manifest)}/{name}{'.gz' if is_packed(manifest, name) else ''}"


def is_packed(manifest: dict[str, Any], name: str) -> bool:
    """Whether a file lies there packed."""
    return name.endswith(PACKED) and WORTH[0] <= manifest["files"][name]["bytes"] <= WORTH[1]


def unpacked(parts: Iterable[bytes], size: int) -> Iterator[bytes]:
    """What gzip has packed, of `size` bytes; never more than one byte beyond them, whatever was packed.

    Raises:
        Refused: for what gzip has not packed.
    """
    stream, left, read = zlib.decompressobj(wbits=31), size + 1, 0
    for part in parts:
        read += len(part)
        while part and left:
            try:
                found = stream.decompress(part, left)
            except zlib.error as error:
                raise Refused(f"it does not unpack ({error})") from None
            part, left = stream.unconsumed_tail, left - len(found)
            yield found
        if not left or read > size + SLACK:
            return


def sealed(text: str, secret: str) -> bytes:
    """An envelope around a manifest, signed with the team's key if there is one."""
    origin = {"user": _user(), "host": platform.node()}
    signature = _signature(text, origin, secret) if secret else None
    whole = {"featcx": FORM, "origin": origin, "signature": signature, "manifest": text}
    return json.dumps(whole, indent=1, ensure_ascii=False).encode()


def opened(content: bytes, stage: str, key: str, folder: Path, secret: str) -> Offer:
    """What an envelope offers for this stage and key; `folder` is where its files would lie.

    Raises:
        Refused: for what is no envelope, tells of another artifact, names files outside, does not fit its own digest, or
            lacks the team's signature where there is a key.
    """
    try:
        whole = parsed(content)
        text, origin = whole["manifest"], whole["origin"]
        if whole["featcx"] != FORM or not isinstance(text, str) or not isinstance(origin, dict):
            raise ValueError("it is of another form")
        signed = isinstance(whole.get("signature"), str)
        if secret and not (signed and hmac.compare_digest(_signature(text, origin, secret), whole["signature"])):
            raise ValueError("it is not signed with the team's key" if signed else "it is not signed")
        manifest = believed(parsed(text.encode()), stage, key, folder)
        if content_digest(manifest["files"], manifest["volatile"]) != manifest["digest"]:
            raise ValueError("its digest does not fit its files")
    except (ValueError, KeyError, TypeError, AttributeError, UnicodeError) as error:
        raise Refused(str(error) or type(error).__name__) from error
    return Offer(manifest, text, {str(name): str(value) for name, value in origin.items()})


def secret_here() -> str:
    """The team's key, if this process was given one."""
    return os.environ.get(KEY, "")


def _signature(text: str, origin: dict[str, Any], secret: str) -> str:
    told = digest({"form": FORM, "manifest": text, "origin": origin}).encode()
    return hmac.new(secret.encode(), told, hashlib.sha256).hexdigest()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "nobody"
