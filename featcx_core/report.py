"""The HTML report: one self-contained page, figure files and tidy tables, from stored tables alone."""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd

from featcx_core import readings
from featcx_core.figure_files import Picture, save
from featcx_core.pictures import Pictures
from featcx_core.report_pictures import picture_sections
from featcx_core.report_sections import COMPARED, SECTIONS, Section
from featcx_core.report_tables import Table, compare, table_of
from featcx_core.wording import Frames, best_order, one_sentence, percent, reached, with_interval

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


def write_report(
    folder: Path,
    analyses: dict[str, dict[str, pd.DataFrame]],
    *,
    title: str,
    spec: dict[str, Any],
    provenance: list[dict[str, Any]],
    scores: dict[str, float],
    notes: dict[str, str],
    chosen_order: int | None,
    pictures: Mapping[str, Path] | None = None,
) -> Path:
    """Writes `report.html`, `figures/` and `tables/`; apart from provenance the same input gives the same bytes.

    Args:
        analyses: network → frame → table; 'target' is the main net, others ('distilled', …) have the same frames.
        spec: the run's settings, nested.
        provenance: manifests of the artifacts.
        scores: accuracies and losses of the target on its own samples and on all test images.
        notes: why a frame or section is missing: by its name, or `<network>.<name>` for one network. Other names are
            told at the end.
        chosen_order: of the target's substitution; None: the best on validation. Other networks use that rule.
        pictures: network → folder of its stored pictures; a network without has no section of them.

    Returns:
        The path of the page.
    """
    coverage = spec.get("analysis", {}).get("confidence")
    target = analyses["target"]
    chosen = {name: best_order(frames) for name, frames in analyses.items()}
    if chosen_order is not None:
        chosen["target"] = chosen_order
    limits = spec.get("pictures", {}).get("limits", "robust")
    stored = {name: Pictures.load(path) for name, path in (pictures or {}).items()}
    networks = {
        name: [
            view(folder, name, frames, section, notes, coverage)
            for section in [*picture_sections(stored.get(name), limits), *_sections(chosen[name])]
            if not section.optional or set(section.tables) <= set(frames)
        ]
        for name, frames in analyses.items()
    }
    write_tables(folder / "tables", analyses)
    return write_page(
        folder,
        title=title,
        summary=readings.summary(target, chosen["target"], notes),
        tiles=_tiles(target, scores, chosen["target"]),
        coverage=readings.coverage_words(target, spec),
        networks=networks,
        comparison=compare(analyses, COMPARED),
        left_out=_left_out(analyses, notes),
        spec=spec,
        provenance=provenance,
    )


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
            spec=list(_flat(spec)),
            provenance=[_origin(entry) for entry in provenance],
        )
    )
    path = folder / "report.html"
    path.write_text(html, encoding="utf-8")
    return path


def _environment() -> jinja2.Environment:
    """Templates come from the package's data, wherever it is installed, zip files included."""
    folder = files("featcx_core") / "templates"
    loader = jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8"))
    return jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )


def _sections(chosen: int | None) -> list[Section]:
    """The sections, substitution with the chosen order."""
    if chosen is None:
        return list(SECTIONS)
    figure = {section.name: section.figure for section in SECTIONS}["substitution"]
    bound = {
        "figure": functools.partial(figure, chosen=chosen),
        "reading": functools.partial(readings.substitution, chosen_order=chosen),
    }
    return [replace(section, **bound) if section.name == "substitution" else section for section in SECTIONS]  # type: ignore[arg-type]


def view(
    folder: Path, network: str, frames: Frames, section: Section, notes: Mapping[str, str], coverage: float | None
) -> View:
    """One section: its figure drawn and saved, its reading, flags and tables; notes for frames that are not there."""
    anchor = section.name if network == "target" else f"{network}-{section.name}"
    names = [f"{network}.{section.name}", section.name]
    absent = [
        next((notes[key] for key in (f"{network}.{frame}", frame, *names) if key in notes), MISSING)
        for frame in section.tables
        if frame not in frames
    ]
    shell = View(anchor, section.title, section.about, list(dict.fromkeys(absent)))
    if not section.needs([frame in frames for frame in section.tables]):
        return shell
    shown = section.reading(frames)
    return replace(
        shell,
        reading=(shown, section.paper or readings.PAPER[section.name]),
        flags=tuple(section.flags(frames)),
        picture=_picture(save(section.figure, frames, folder / "figures", anchor, coverage), section, shown),
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
        r'width="([\d.]+)pt" height="([\d.]+)pt"|height="([\d.]+)pt".*?width="([\d.]+)pt"', saved.light.read_text()
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


def _tiles(frames: Frames, scores: Mapping[str, float], chosen: int | None) -> list[Tile]:
    """The run in four figures; a dash stands for what is unknown."""
    explained = ("–", "")
    if "significance" in frames:
        last = reached(frames["significance"]).to_dict("records")[-1]
        interval = with_interval(last, "reached").partition(" ")[2]
        explained = (percent(last["reached"]), f"{interval} by the disentangler of order {last['order']}")
    shown = {key: percent(scores[key]) if key in scores else "–" for key in ("test_accuracy", "train_accuracy")}
    return [
        Tile(shown["test_accuracy"], "test accuracy", "of the target"),
        Tile(shown["train_accuracy"], "train accuracy", "of the target, on its own samples"),
        Tile(explained[0], "feature variance explained", explained[1]),
        Tile("–" if chosen is None else str(chosen), "chosen order", "for substitution, on validation images"),
    ]


def _left_out(analyses: Mapping[str, Frames], notes: Mapping[str, str]) -> list[str]:
    """Notes on what has no section here."""
    told = {section.name for section in SECTIONS} | {frame for section in SECTIONS for frame in section.tables}
    return [
        one_sentence(f"{name}: {text}")
        for name, text in notes.items()
        if name not in told and name.rpartition(".")[2] not in told
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted paths and values of nested settings."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            yield prefix + name, ", ".join(map(str, value)) or "–"
        else:
            yield prefix + name, "–" if value is None or value == {} else str(value)


def _origin(entry: Mapping[str, Any]) -> list[str]:
    """One artifact's row of provenance."""
    versions = ", ".join(f"{name} {version}" for name, version in entry.get("versions", {}).items())
    words = [entry.get("stage", "–"), entry.get("label", ""), entry.get("key", "")[:12], entry.get("digest", "")[:12]]
    return [*words, f"{entry.get('seconds', 0):.1f}", entry.get("device", ""), entry.get("started", ""), versions]
