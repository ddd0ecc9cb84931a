"""`featcx remote`: looks at and looks after a team's cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from featcx_core.errors import InputError
from flows.cli.options import STORE, Debug, Json, Remote, Store, errors_as_sentences, wide_console, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from featcx_core.store.remote.shared import SharedStore

remote = typer.Typer(no_args_is_help=True, help="Look at and look after the team's cache, see the manual's page on it.")
Key = Annotated[str, typer.Argument(metavar="KEY", help="Start of an artifact's key, or stage/key.")]


def _shared(store: Path, url: str | None) -> SharedStore:
    """A store with the remote behind it.

    Raises:
        InputError: without an address.
    """
    from featcx_core.store.remote.cache import Remote as Cache
    from featcx_core.store.remote.envelope import secret_here
    from featcx_core.store.remote.journal import Journal
    from featcx_core.store.remote.shared import SharedStore

    if not url:
        raise InputError("Say where the team's cache is: --remote s3://bucket/folder, or set FEATCX_REMOTE.")
    return SharedStore(store, Cache(url, secret=secret_here()), Journal(None))


@remote.command("status")
def status(store: Store = STORE, remote: Remote = None, json: Json = None, debug: Debug = False) -> None:
    """What lies there, what of it is not here, and what is here and still to be sent."""
    with errors_as_sentences(debug):
        from rich.table import Table

        from featcx_core.store.remote.outbox import due
        from featcx_core.store.remote.upkeep import inventory

        place, console = _shared(store, remote), wide_console()
        there = {path: held for path, held in inventory(place.remote).items() if held.envelope}
        here = {f"{m['stage']}/{m['key']}": sum(e["bytes"] for e in m["files"].values()) for m in place.manifests()}
        table = Table("stage", "there", "size", "not here", "not there")
        for stage in sorted({path.split("/")[0] for path in (*there, *here)}):
            own = [held for path, held in there.items() if held.ref.stage == stage]
            size, away = sum(held.bytes for held in own), [h for h in own if h.ref.path not in here]
            only = [path for path in here if path.startswith(f"{stage}/") and path not in there]
            table.add_row(stage, str(len(own)), f"{size / 1e6:.1f} MB", str(len(away) or ""), str(len(only) or ""))
        console.print(table)
        waiting, total = due(place), sum(held.bytes for held in there.values())
        console.print(
            f"{place.remote.url}: {len(there)} artifacts, {total / 1e6:.1f} MB; {len(waiting)} still to be sent.",
            highlight=False,
            soft_wrap=True,
        )
        rows = [{"path": p, "bytes": h.bytes, "written": h.written, "here": p in here} for p, h in there.items()]
        more = {"only_here": sorted(here.keys() - there.keys()), "due": [ref.path for ref in waiting]}
        write_json(json, {"remote": place.remote.url, "artifacts": rows, **more})


@remote.command("push")
def push(
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="Start of a key; left out: what is due.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that is here.")] = False,
    store: Store = STORE,
    remote: Remote = None,
    debug: Debug = False,
) -> None:
    """Sends an artifact with all that it was made from; `featcx remote gc` then leaves them. Without KEY: what is due."""
    with errors_as_sentences(debug):
        from featcx_core.store.remote.upkeep import push

        place = _shared(store, remote)
        done = [sent for _, sent in push(place, key, everything)]
        sizes, there = (
            [s.bytes for s in done if s and s.outcome == "sent"],
            [s for s in done if s and s.outcome == "there"],
        )
        print(f"{len(sizes)} artifacts sent, {sum(sizes) / 1e6:.1f} MB; {len(there)} were there.")
        if any(sent is None for sent in done):
            raise typer.Exit(1)


@remote.command("pull")
def pull(
    key: Key,
    alone: Annotated[bool, typer.Option("--alone", help="Without what it was made from.")] = False,
    store: Store = STORE,
    remote: Remote = None,
    debug: Debug = False,
) -> None:
    """Fetches an artifact with all that it was made from, such as a run's report for a notebook."""
    with errors_as_sentences(debug):
        from featcx_core.store.remote.upkeep import pull

        place = _shared(store, remote)
        refs = pull(place, key, alone)
        told = place.journal.summary()
        print(f"{len(refs)} artifacts are here; {told['fetched']} fetched, {told['bytes_fetched'] / 1e6:.1f} MB.")


@remote.command("gc")
def gc(
    keep_days: Annotated[float | None, typer.Option(help="Keep what was used in so many days.")] = None,
    max_size: Annotated[float | None, typer.Option(help="Keep what was used last, up to so many megabytes.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Only say what would go.")] = False,
    remote: Remote = None,
    debug: Debug = False,
) -> None:
    """Removes what was not used lately; never what a kept artifact was made from, or one that was pushed by its key."""
    with errors_as_sentences(debug):
        from featcx_core.store.remote.upkeep import remove, superfluous

        if keep_days is None and max_size is None:
            raise InputError("Say what to keep: --keep-days N, or --max-size MEGABYTES.")
        cache = _shared(STORE, remote).remote
        going = superfluous(cache, keep_days, max_size)
        for held in going:
            print(f"{held.ref.stage}/{held.ref.key[:12]}{'' if held.envelope else '  an upload that was cut'}")
        size = sum(held.bytes for held in going) if dry_run else remove(cache, going)
        print(f"{len(going)} artifacts ({size / 1e6:.1f} MB) {'would go' if dry_run else 'removed'}")


@remote.command("verify")
def verify(remote: Remote = None, json: Json = None, debug: Debug = False) -> None:
    """Reads every file there; exit code 1 and the names when some do not count."""
    with errors_as_sentences(debug):
        from featcx_core.store.remote.address import Unreachable
        from featcx_core.store.remote.upkeep import faults

        try:
            count, found = faults(_shared(STORE, remote).remote)
        except Unreachable as error:
            raise InputError(f"{error}.") from error
        for fault in found:
            print(f"{fault.artifact}: {fault.reason}")
        print(f"{count} artifacts, {len(found)} of no use" if found else f"{count} artifacts, all whole")
        write_json(json, {"artifacts": count, "faults": [fault._asdict() for fault in found]})
        if found:
            raise typer.Exit(1)
