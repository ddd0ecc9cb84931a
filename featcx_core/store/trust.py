"""What may be believed of a store that may come from a stranger: nothing but what lies where it says, within bounds."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from featcx_core.errors import InputError

MANIFEST = "manifest.json"
LARGEST = 64 << 20  # bytes of a small file; a manifest of thousands of files has a few hundred kB
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,127}$")]  # a folder's, of a stage or a key
Digest = Annotated[str, Field(max_length=128)]


class Entry(BaseModel):
    """A file of an artifact as its manifest tells of it."""

    bytes: int = Field(ge=0)
    sha256: Digest


class Manifest(BaseModel):
    """What every manifest has; what else it says is of no consequence to the store."""

    model_config = ConfigDict(extra="allow", strict=True)

    stage: Name
    key: Name
    digest: Digest
    files: dict[str, Entry]
    volatile: list[str] = []
    lineage: Any = {}
    label: str = ""
    started: str = ""
    device: str = ""
    seconds: float = Field(0.0, ge=0, allow_inf_nan=False)


def inside(root: Path, *names: str) -> Path:
    """The path of `names` below `root`, which neither a name nor a symbolic link leads out of.

    Every path that a file of a store names, and every path that is removed, goes through here.

    Raises:
        InputError: when one would.
    """
    path = root
    for part in (part for name in names for part in name.split("/")):
        path = path / part
        if part in ("", ".", "..") or "\\" in part or not part.isprintable() or path.is_symlink():
            raise InputError(
                f"{path} leads out of {root}, by its name or as a symbolic link; remove it from the store."
            )
    return path


def below(folder: Path) -> Iterator[Path]:
    """All that lies below a folder, links not followed; what a run at work takes away meanwhile is passed over."""
    for place, folders, files in os.walk(folder):
        yield from (Path(place, name) for name in (*folders, *files))


def read_json(path: Path) -> Any:
    """The JSON in a small file.

    Raises:
        ValueError, OSError: when there is none, or none within bounds.
    """
    with open(path, "rb") as file:
        return parsed(file.read(LARGEST + 1))


def parsed(text: bytes) -> Any:
    """The JSON in a small file's bytes.

    Raises:
        ValueError: when there is none, or none within bounds.
    """
    if len(text) > LARGEST:
        raise ValueError("it is larger than any of featcx's own")
    try:
        return json.loads(text.decode("utf-8"), parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def read_manifest(root: Path, stage: str, key: str) -> dict[str, Any]:
    """The manifest of root/stage/key. It counts only where it lies.

    Raises:
        ValueError, OSError: when it cannot be read, lacks what every manifest has, or tells of another place.
    """
    folder = inside(root, stage, key)
    return believed(read_json(inside(folder, MANIFEST)), stage, key, folder)


def believed(value: Any, stage: str, key: str, folder: Path) -> dict[str, Any]:
    """A manifest of this stage and key, whose files lie in `folder`.

    Raises:
        ValueError: when it lacks what every manifest has, tells of another place, or names a file outside.
    """
    try:
        manifest = Manifest.model_validate(value).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"its {'.'.join(map(str, first['loc'])) or 'content'}: {first['msg'].lower()}") from error
    if (told := manifest.get("seal")) is not None and told != seal(value):
        raise ValueError("it is not as it was written")
    if (manifest["stage"], manifest["key"]) != (stage, key):
        raise ValueError(f"it tells of {manifest['stage']}/{manifest['key']}, which is another place")
    for name in manifest["files"]:
        inside(folder, name)
    return manifest


def seal(manifest: dict[str, Any]) -> str:
    """The SHA-256 of what a manifest says, `seal` apart: against bits that flip, not against people. Older ones have none."""
    said = {name: value for name, value in manifest.items() if name != "seal"}
    try:
        text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def as_written(what: str) -> Iterator[None]:
    """Reads what a store holds as featcx writes it.

    Raises:
        InputError: where it is not so, whatever library stumbles over it: for a field that is not there, a table, weights.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = (str(error).strip() or "nothing more is known").splitlines()[0][:200]
        raise InputError(
            f"{what} is not as featcx writes it ({type(error).__name__}: {reason}); `featcx artifacts verify` names what is "
            "damaged, and the command that made it makes it anew."
        ) from error
