"""What a run leaves in Prefect's UI: progress that moves, a summary, tables, pictures and a link to the report.

Only for a server of the user's own: a temporary one is gone before anyone could look.
"""

from __future__ import annotations

import base64
import contextlib
import contextvars
import functools
import math
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast
from uuid import UUID

ROUTE = "FEATCX_REPORT_URL"  # where `featcx serve` serves the store's reports
QUICK = 2.0  # seconds; a stage that takes less shows no progress
PERIOD = 1.0  # seconds between two updates

Row = Mapping[str, Any]


class Bar:
    """A Prefect progress artifact of one stage, in percent; made once the stage has run for a while.

    Updates go out from a thread of their own, and a new one waits for the last: a training is never held up by the server.
    Make it within the stage's task, whose server and run it reports to.
    """

    def __init__(self, label: str) -> None:
        self.label, self.began, self.told = label, time.monotonic(), 0.0
        self.run = contextvars.copy_context()  # the sender's thread knows neither the task run nor its server
        self.artifact: UUID | None = None
        self.sending: Future[None] | None = None

    def move(self, done: int, total: int, text: str) -> None:
        """Tells the share done; rarely does anything, and never waits."""
        now = time.monotonic()
        busy = self.sending is not None and not self.sending.done()
        if total and not busy and now - self.began > QUICK and now - self.told > PERIOD:
            self.told = now
            self.sending = _sender().submit(self.run.run, self._send, 100 * done / total, text)

    def end(self, done: bool) -> None:
        """The last word: a finished stage stands at 100."""
        if self.sending is not None:
            self.sending.result()
            if done:
                self.run.run(self._send, 100.0, "done")

    def _send(self, percent: float, text: str) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        told = f"{self.label}: {text}" if text else self.label
        with contextlib.suppress(Exception):  # a server that is away for a moment costs a picture, not a training
            if self.artifact is None:
                self.artifact = cast(UUID, create_progress_artifact(percent, slug("progress", self.label), told))
            else:
                update_progress_artifact(self.artifact, percent, told)


@functools.cache
def _sender() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "featcx-progress")


def show(
    name: str,
    *,
    title: str,
    sentences: Sequence[str],
    tables: Mapping[str, Sequence[Row]],
    report: Path,
    pictures: Iterable[Path],
    overview: Sequence[Row] = (),
) -> None:
    """Leaves the artifacts of a finished flow run; call it in the flow.

    Args:
        name: what ran, such as resnet8-n200-s0; in every key, so that runs of one kind are versions of each other.
        sentences: what was found; in the summary.
        tables: by name, an artifact each.
        report: the page to link, a file in an artifact's folder.
        pictures: PNG files in that folder.
        overview: the summary's own table.
    """
    from prefect import get_run_logger
    from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

    where = address(report)
    more = f"[Open the report]({where})" if where else f"The report: `{report}`"
    text = "\n\n".join([f"# {title}", *sentences, markdown_table(overview), more])
    create_markdown_artifact(text, key=slug("summary", name), description=f"What {name} found")
    if where:
        link = f"[Open the report]({where}) of {name}"
        create_link_artifact(where, "Open the report", key=slug("report", name), description=link)
    get_run_logger().info("Report: %s", where or report)
    for table, entries in tables.items():
        flat = [flattened(row) for row in entries]
        create_table_artifact(flat, key=slug("table", name, table), description=f"{name}: {table}")
    seen = "\n\n".join(f"## {path.stem}\n\n![{path.stem}]({address(path) or data_uri(path)})" for path in pictures)
    if seen:
        create_markdown_artifact(seen, key=slug("pictures", name), description=f"{name}: figures of the report")


def data_uri(path: Path) -> str:
    """A PNG within a text, for where no address leads to it."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def address(path: Path) -> str | None:
    """The HTTP address of a file in an artifact's folder, where reports are served."""
    route = os.environ.get(ROUTE)
    if not route:
        return None
    folder = next(parent for parent in path.parents if (parent / "manifest.json").exists())
    return f"{route}/{folder.parent.name}/{folder.name}/{path.relative_to(folder)}"


def slug(*words: str) -> str:
    """A key for Prefect: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")


def flattened(row: Row) -> dict[str, Any]:
    """A row for a table artifact: an interval as text, unknown as empty."""
    return {name: _cell(value) for name, value in row.items()}


def markdown_table(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table of the columns that hold anything."""
    flat = [flattened(row) for row in rows]
    columns = [name for name in (flat[0] if flat else {}) if any(row[name] not in ("", None) for row in flat)]
    if not columns:
        return ""
    lines = [columns, ["---"] * len(columns), *([str(row[name]) for name in columns] for row in flat)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else ""
    if isinstance(value, list | tuple):
        parts = [_cell(entry) for entry in value]
        return "" if all(part == "" for part in parts) else "[" + ", ".join(map(str, parts)) + "]"
    return "" if value is None else value
