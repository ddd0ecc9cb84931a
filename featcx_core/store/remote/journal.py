"""What a run had of its remote: a line an event in a file beside its notes, from threads, processes and workers alike."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from pathlib import Path
from typing import Any

log = logging.getLogger("featcx.remote")
_GUARD = threading.Lock()


class Journal:
    """Events of a run: found, fetched, sent, differs, refused, out.

    Args:
        file: where they are kept; None: in this object alone.
    """

    def __init__(self, file: Path | None) -> None:
        self.file, self.own = file, list[dict[str, Any]]()
        self.told = set[str]()

    def add(self, event: str, artifact: str = "", text: str = "", **more: Any) -> None:
        """Notes an event; a sentence is told once as well."""
        text = "".join(c for c in text if c.isprintable())  # a stranger's words may hold more than letters
        line = {"event": event, "artifact": artifact, "text": text, **more}
        if text and text not in self.told:
            self.told.add(text)
            log.warning("%s", text)
        if self.file is None:
            self.own.append(line)
            return
        with contextlib.suppress(OSError), _GUARD:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with open(self.file, "ab", buffering=0) as file:
                file.write(f"{json.dumps(line, ensure_ascii=False)}\n".encode())

    def read(self) -> list[dict[str, Any]]:
        """All events, also those of other processes."""
        if self.file is None:
            return list(self.own)
        found = []
        with contextlib.suppress(OSError):
            for line in self.file.read_bytes().splitlines():
                with contextlib.suppress(ValueError):
                    found.append(json.loads(line))
        return found

    def refused(self, spoilt: bool = False) -> set[str]:
        """The artifacts that were refused; those alone of which the remote's bytes were at fault, if `spoilt`."""
        lines = (line for line in self.read() if line["event"] == "refused")
        return {line["artifact"] for line in lines if line.get("spoilt") or not spoilt}

    def summary(self) -> dict[str, Any]:
        """Counts and bytes, and the sentences."""
        events, found = self.read(), dict[str, Any]()
        for name in ("found", "fetched", "sent", "differs", "refused"):
            own = {line["artifact"]: line for line in events if line["event"] == name}
            found[name] = len(own)
            if name in ("fetched", "sent"):
                found[f"bytes_{name}"] = sum(line.get("bytes", 0) for line in events if line["event"] == name)
        found["told"] = list(dict.fromkeys(line["text"] for line in events if line["text"]))
        return found
