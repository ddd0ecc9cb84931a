"""`featcx status`: what runs in a store, where, and how far it is."""

from __future__ import annotations

import typer

from flows.cli.options import STORE, Debug, Json, Store, errors_as_sentences, write_json


def status(store: Store = STORE, json: Json = None, debug: Debug = False) -> None:
    """What runs in this store now, and how far it is."""
    with errors_as_sentences(debug):
        from rich.console import Console

        from featcx_core.store.artifacts import Store as ArtifactStore
        from flows.cli.display import counted, notes_table
        from tasks.progress import read_notes

        console, place = Console(), ArtifactStore(store)
        runs = {run: read_notes(store, run) for run in sorted(place.live_runs())}
        for run, notes in runs.items():
            console.print(f"{run}: {counted(notes)}", highlight=False)
            console.print(notes_table([note for note in notes if note.state in ("running", "failed")]))
        if not runs:
            console.print(f"Nothing runs in {place.root}.", highlight=False, soft_wrap=True)
        write_json(
            json, {"store": str(place.root), "runs": {r: [n._asdict() for n in notes] for r, notes in runs.items()}}
        )


def open_report(
    key: str | None = typer.Argument(None, help="Start of a report's key; the newest report if left out."),
    store: Store = STORE,
    debug: Debug = False,
) -> None:
    """Shows a report in the browser."""
    with errors_as_sentences(debug):
        from featcx_core.errors import InputError
        from featcx_core.store.artifacts import Store as ArtifactStore
        from flows.cli.options import show_page

        place = ArtifactStore(store)
        pages = [m for m in place.manifests() if "report.html" in m["files"]]
        if key is not None:
            found = place.resolve(key)
            pages = [found] if "report.html" in found["files"] else []
        if not pages:
            which = f"The artifact '{key}' is no report" if key else f"There is no report in {place.root}"
            raise InputError(f"{which}; `featcx artifacts list` shows what there is.")
        page = place.root / pages[-1]["stage"] / pages[-1]["key"] / "report.html"
        print(page)
        show_page(page)
