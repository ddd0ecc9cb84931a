"""`featcx export`: the improved network in a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli import options


def export(
    key: Annotated[str, typer.Argument(help="Key of a run's report or substitution artifact.")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    store: options.Store = options.STORE,
    debug: options.Debug = False,
) -> None:
    """Writes the improved network: the disentangler of the chosen order before the target's head."""
    with options.errors_as_sentences(debug):
        from flows.exporting import export_improved

        order, accuracy, missing = export_improved(store, key, out)
        print(f"Order {order} with the target's head: test accuracy {accuracy!r}, in {out.absolute()}.")
        print(
            "Load it with featcx_core.load_network(path); it takes uint8 images, or floats in [0, 1], and normalises itself."
        )
        print(f"No model.pt2: {missing}" if missing else "model.pt2 is the same network for torch.export.load.")
