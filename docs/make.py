"""The manual's figures and worked examples, from a finished run: `python docs/make.py STORE [KEY]`."""

from __future__ import annotations

import sys
from pathlib import Path

import featcx_core as fx
from featcx_core.report.run import run_sections

EXAMPLE = Path(__file__).parent / "example"
PAGES = (
    "significance",
    "residuals",
    "reliability",
    "effectiveness",
    "overfitting",
    "substitution",
    "images",
    "image_strip",
)
SHOWN = {
    "order": "order",
    "cross_seed": "significance",
    "resolved": "resolved",
    "residual": "residual",
    "decodability": "decodability",
    "effectiveness": "effectiveness",
    "overfitting": "over-fitting",
    "substituted_accuracy": "accuracy on Φ",
}


def main(store: str, key: str | None = None) -> None:
    """Writes a table, and of each section its figure and what the report reads off it."""
    run = fx.open_run(store, key)
    EXAMPLE.mkdir(exist_ok=True)
    rows = run.orders[list(SHOWN)].rename(columns=SHOWN)
    lines = [f"{run.title}:", "", f"| {' | '.join(rows)} |", f"|{' --- |' * len(rows.columns)}"]
    lines += [f"| {' | '.join(map(_told, row))} |" for row in rows.itertuples(index=False)]
    (EXAMPLE / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for section in run_sections(run.chosen_order, run.pictures):
        if section.name in PAGES:
            run.figure(section.name).savefig(EXAMPLE / f"{section.name}.png", dpi=110)
            told = [f"> {section.reading(run.frames)}", *(f">\n> *{flag}*" for flag in section.flags(run.frames))]
            (EXAMPLE / f"{section.name}.md").write_text("\n".join(told) + "\n", encoding="utf-8")


def _told(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main(*sys.argv[1:])
