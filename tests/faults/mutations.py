"""What a stranger, or a broken disk, may make of a small file: a value, a name, a piece or some bits of it are others."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PRECIOUS = b"precious"  # in ../../outside/thesis.txt, which nothing may touch
STRANGE: list[Any] = [
    *("..", ".", "/", "", "/etc", "../outside", "../../outside", "target/../..", "report", "\0", "x" * 200, "é", "0"),
    *(None, True, -1, 10**30, 1.5, [], {}, [[]], {"stage": "..", "key": "outside", "digest": "0"}),
    {"stage": "report", "key": "3" * 64, "digest": "0"},
    {"../../outside/thesis.txt": {"bytes": len(PRECIOUS), "sha256": hashlib.sha256(PRECIOUS).hexdigest()}},
    {"type": "pickle", "picklelib": "cloudpickle"},
]
PIECES = [b"", b"{", b"null", b"[" * 100_000, b"NaN", b"\xff\xfe"]


def small_files(store: Path) -> list[Path]:
    """Manifests, notes of checks and runs, locks and Prefect's records."""
    found = [*store.rglob("*.json"), *store.glob(".locks/*"), *store.glob(".prefect/results/*")]
    return sorted({path for path in found if path.is_file()})


def values(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values in nested JSON, the containers too."""
    yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, entry in entries:
        yield from values(entry, (*path, name))


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Bytes of JSON with one value or name replaced; or of anything with a bit flipped, cut short or put in their place."""
    kind = chance.random()
    try:
        value = json.loads(data)
    except ValueError:
        kind = kind / 5
    if kind < 0.15 and data:
        flipped = bytearray(data)
        flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        return bytes(flipped)
    if kind < 0.2:
        return chance.choice([*PIECES, data[: len(data) // 2]])
    if isinstance(value, dict):
        value.pop("seal", None)  # a stranger writes a new one
    path = chance.choice(list(values(value)))
    if not path:
        return json.dumps(chance.choice(STRANGE)).encode()
    parent = value
    for name in path[:-1]:
        parent = parent[name]
    strange = copy.deepcopy(chance.choice(STRANGE))
    if isinstance(parent, dict) and kind > 0.8:
        parent[strange if isinstance(strange, str) else f"{path[-1]}x"] = parent.pop(path[-1])
    else:
        parent[path[-1]] = strange
    return json.dumps(value).encode()
