"""`featcx artifacts`, `featcx status`, `featcx open`: look at and look after the store, what runs in it, its reports."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.options import STORE, Debug, Json, Store, errors_as_sentences, show_page, wide_console, write_json
from flows.cli.terminal import print_table

artifacts = typer.Typer(no_args_is_help=True, help="Look at and look after the artifact store.")


@artifacts.command("list")
def list_artifacts(store: Store = STORE, json: Json = None, debug: Debug = False) -> None:
    """One line an artifact, oldest first."""
    with errors_as_sentences(debug):
        from rich.table import Table

        from featcx_core.store.artifacts import Store as ArtifactStore

        manifests = ArtifactStore(store).manifests()
        table, rows, console = Table("stage"), [], wide_console()
        for heading in ("key", "size", "computed in", "started"):
            table.add_column(heading, no_wrap=True)
        for m in manifests:
            fields = ("stage", "key", "digest", "label", "started", "seconds", "device")
            size = sum(entry["bytes"] for entry in m["files"].values())
            rows.append({name: m[name] for name in fields} | {"bytes": size, "path": f"{m['stage']}/{m['key']}"})
            cells = (m["key"][:12], f"{size / 1e6:.1f} MB", f"{m['seconds']:.1f} s", m["started"][:16])
            table.add_row(m["label"], *cells)
        if rows:
            print_table(console, table)
        else:
            console.print(f"No artifacts in {store.absolute()}.")
        console.print(f"{len(rows)} artifacts, {sum(row['bytes'] for row in rows) / 1e6:.1f} MB", highlight=False)
        write_json(json, {"store": str(store.absolute()), "artifacts": rows})


@artifacts.command("show")
def show_artifact(key: str, store: Store = STORE, debug: Debug = False) -> None:
    """What an artifact was made from; KEY is the start of its key, or stage/key."""
    with errors_as_sentences(debug):
        from rich import print_json

        from featcx_core.store.artifacts import Store as ArtifactStore

        print_json(data=ArtifactStore(store).resolve(key))


@artifacts.command("verify")
def verify_artifacts(store: Store = STORE, json: Json = None, debug: Debug = False) -> None:
    """Hashes every file again; exit code 1 and the names when some are damaged."""
    with errors_as_sentences(debug):
        from featcx_core.errors import InputError
        from featcx_core.store.artifacts import Store as ArtifactStore

        place = ArtifactStore(store)
        if not place.root.is_dir():
            raise InputError(f"There is no store at {place.root}; say where it is with --store.")
        damaged, count = place.verify(), len(place.manifests())
        for damage in damaged:
            print(f"{damage.artifact}: {damage.file} {damage.reason}")
        print(f"{count} artifacts, {len(damaged)} damaged files" if damaged else f"{count} artifacts, all whole")
        write_json(json, {"artifacts": count, "damaged": [damage._asdict() for damage in damaged]})
        if damaged:
            raise typer.Exit(1)


@artifacts.command("prune")
def prune_artifacts(
    store: Store = STORE,
    keep_last: Annotated[int | None, typer.Option(help="Keep the newest reports and what they were made from.")] = None,
    max_size: Annotated[
        float | None,
        typer.Option(
            help="Keep the newest artifacts up to so many megabytes; with --keep-last of whole reports, at least one."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Only say what would go.")] = False,
    debug: Debug = False,
) -> None:
    """Removes artifacts that no kept report was made from, and left-overs of runs that were killed."""
    with errors_as_sentences(debug):
        from featcx_core.errors import InputError
        from featcx_core.store.artifacts import Store as ArtifactStore
        from featcx_core.store.pruning import left_over, remove, superfluous

        if keep_last is None and max_size is None:
            raise InputError("Say what to keep: --keep-last N reports, or --max-size MEGABYTES.")
        place = ArtifactStore(store)
        if not place.can_be_written:
            raise InputError(f"The store {place.root} cannot be written, so nothing can be removed from it.")
        going, scraps = superfluous(place, keep_last, max_size), left_over(place)
        if not dry_run:
            going, scraps = remove(place, going, scraps)
        size = sum(entry["bytes"] for m in going for entry in m["files"].values())
        for m in going:
            print(f"{m['stage']}/{m['key'][:12]}  {m['label']}")
        verb = "would go" if dry_run else "removed"
        print(f"{len(going)} artifacts ({size / 1e6:.1f} MB) and {len(scraps)} left-overs {verb}")


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
