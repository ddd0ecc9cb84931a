"""Stores as of several machines, with a remote behind each, and small artifacts for them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from featcx_core.store.artifacts import ArtifactRef, Store
from featcx_core.store.remote.address import Patience
from featcx_core.store.remote.cache import Remote
from featcx_core.store.remote.journal import Journal
from featcx_core.store.remote.shared import SharedStore

SHORT = Patience(tries=3, wait=0.02, connect=0.5, answer=0.7, slowest=300_000.0)
CALM = Patience(tries=3, wait=0.05)  # with a server that is well, on a machine that may be busy
KEYS = {stage: hashlib.sha256(stage.encode()).hexdigest() for stage in ("data", "net", "report")}


def home(root: Path, url: str, patience: Patience = CALM, secret: str = "", **more: Any) -> SharedStore:
    """A machine's store."""
    return SharedStore(
        root, Remote(url, secret=secret, patience=patience, **more), Journal(root / ".runs/r/remote.log")
    )


def publish(
    store: Store, stage: str, salt: bytes = b"", started: str = "2026-11-27T10:00:00", **lineage: Any
) -> ArtifactRef:
    """An artifact of three files, one of them in a folder and one empty."""

    def fill(folder: Path) -> dict[str, Any]:
        (folder / "part").mkdir()
        (folder / "part" / "payload.bin").write_bytes((stage.encode() + salt) * 20_000)
        (folder / "numbers.json").write_text(f'{{"stage": "{stage}"}}')
        (folder / "empty").touch()
        refs = {name: ref.model_dump() for name, ref in lineage.items()}
        about = {"spec": {}, "inputs": {}, "code": "c", "metrics": {}, "device": "CPU"}
        return about | {"started": started, "label": stage, "lineage": refs}

    return store.publish(stage, KEYS[stage], fill)


def chain(store: Store) -> dict[str, ArtifactRef]:
    """A report of a net of a data set."""
    data = publish(store, "data")
    net = publish(store, "net", data=data)
    return {"data": data, "net": net, "report": publish(store, "report", net=net)}


def sent(store: SharedStore) -> dict[str, ArtifactRef]:
    """The chain, at the remote."""
    refs = chain(store)
    for ref in refs.values():
        found = store.send(ref.stage, ref.key)
        assert found is not None
        assert found.outcome == "sent"
    return refs


def content(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
