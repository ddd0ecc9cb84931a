"""The HTML report: one self-contained page, figure files and tidy tables, from stored tables alone."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from featcx_core.report.figure_files import Picture
from featcx_core.report.gallery import Gallery
from featcx_core.report.section import Section
from featcx_core.report.tables import Table, table_of
from featcx_core.wording import Frames

MISSING = "Not computed in this run."


class Tile(NamedTuple):
    """A key figure: value, what it is, and a word on how it was taken."""

    value: str
    name: str
    detail: str


@dataclass(frozen=True)
class View:
    """A section as the page shows it; without its frames only `notes` are there."""

    anchor: str
    title: str
    about: str
    notes: list[str]
    reading: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    picture: Mapping[str, Any] | None = None
    tables: tuple[Table, ...] = ()
    widget: Mapping[str, Any] | None = None


def write_page(
    folder: Path,
    *,
    title: str,
    summary: Sequence[str],
    tiles: Sequence[Tile],
    coverage: str,
    networks: Mapping[str, Sequence[View]],
    spec: Mapping[str, Any],
    provenance: Sequence[Mapping[str, Any]],
    comparison: Table | None = None,
    left_out: Sequence[str] = (),
    failures: Sequence[str] = (),
) -> Path:
    """Renders `report.html`: failures, sentences, key figures, the sections of 'target' and other networks, provenance."""
    html = (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            summary=summary,
            tiles=tiles,
            coverage=coverage,
            networks=networks,
            comparison=comparison,
            left_out=left_out,
            failures=failures,
            remarks=[f"{entry.get('label', '')} {text}." for entry in provenance for text in _remarks(entry)],
            spec=list(_flat(spec)),
            provenance=[_origin(entry) for entry in provenance],
        )
    )
    path = folder / "report.html"
    path.write_text(html, encoding="utf-8")
    return path


def _environment() -> jinja2.Environment:
    """Templates come from the package's data, wherever it is installed, zip files included."""
    folder = files(__package__) / "templates"
    loader = jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8"))
    return jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )


def view(
    figures: Gallery, network: str, frames: Frames, section: Section, notes: Mapping[str, str], coverage: float | None
) -> View:
    """One section: its figure drawn and saved, its reading, flags and tables; notes for frames that are not there."""
    anchor = section.name if network == "target" else f"{network}-{section.name}"
    names = [f"{network}.{section.name}", section.name]
    absent = [
        next((notes[key] for key in (f"{network}.{frame}", frame, *names) if key in notes), MISSING)
        for frame in section.tables
        if frame not in frames
    ]
    # Though its frames are there, which other sections need too.
    left_out = [notes[key] for key in names if key in notes]
    shell = View(anchor, section.title, section.about, list(dict.fromkeys([*absent, *left_out])))
    if left_out or not section.needs([frame in frames for frame in section.tables]):
        return shell
    shown = section.reading(frames)
    return replace(
        shell,
        reading=(shown, section.paper),
        flags=tuple(section.flags(frames)),
        picture=_picture(figures.draw(section.figure, frames, anchor, coverage), section, shown),
        tables=tuple(
            table_of(_file(network, name), frames[name], columns)
            for name, columns in section.tables.items()
            if name in frames
        ),
        widget=section.widget(frames),
    )


def _picture(saved: Picture, section: Section, alt: str) -> dict[str, Any]:
    """What the page inlines of a figure: SVG as data URIs, so the page needs no other file."""
    sides = re.search(
        r'width="([\d.]+)pt" height="([\d.]+)pt"|height="([\d.]+)pt".*?width="([\d.]+)pt"',
        saved.light.read_text(encoding="utf-8"),
    )
    assert sides is not None
    width, height = (sides[1], sides[2]) if sides[1] else (sides[4], sides[3])
    uris = [
        "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()
        for path in (saved.light, saved.dark)
    ]
    return {
        "light": uris[0],
        "dark": uris[1],
        "alt": alt,
        "wide": section.wide,
        "width": round(float(width)),
        "height": round(float(height)),
        "files": f"figures/{saved.light.name}, {saved.dark.name}, {saved.png.name}",
    }


def _file(network: str, frame: str) -> str:
    return f"tables/{frame}.parquet" if network == "target" else f"tables/{network}-{frame}.parquet"


def write_tables(folder: Path, analyses: Mapping[str, Frames]) -> None:
    """Every frame as a Parquet file in `folder`, named as the page's tables name it."""
    folder.mkdir(parents=True, exist_ok=True)
    for network, frames in analyses.items():
        for name, frame in frames.items():
            frame.to_parquet(folder.parent / _file(network, name), index=False)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted paths and values of nested settings."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            yield prefix + name, ", ".join(map(str, value)) or "–"
        else:
            yield prefix + name, "–" if value is None or value == {} else str(value)


def _remarks(entry: Mapping[str, Any]) -> list[str]:
    """What went wrong while an artifact was made, and was mended, by its manifest."""
    told = entry.get("remarks", [])
    return [text for text in told if isinstance(text, str)] if isinstance(told, list) else []


def _origin(entry: Mapping[str, Any]) -> list[str]:
    """One artifact's row of provenance."""
    versions = ", ".join(f"{name} {version}" for name, version in entry.get("versions", {}).items())
    words = [entry.get("stage", "–"), entry.get("label", ""), entry.get("key", "")[:12], entry.get("digest", "")[:12]]
    return [*words, f"{entry.get('seconds', 0):.1f}", entry.get("device", ""), entry.get("started", ""), versions]
