"""Which networks split, and how: every classification model of torchvision and forty of timm, one a family.

    python -m benchmarks.networks [torchvision|timm] [NAME …]
    python -m benchmarks.networks tables

Each is built with fresh weights and ten classes at its own image size, cut at its default layer, and checked as every
target is: halves against the whole. Rows are appended to docs/results/networks.csv as they come (a name that stands there is
left out); `tables` prints them for docs/results/networks.md. A process a model: the largest take 12 GB.
"""

from __future__ import annotations

import csv
import multiprocessing
import sys
import time
from collections import Counter
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "docs" / "results"
FIELDS = ("library", "name", "size", "layer", "layout", "shape", "way", "error", "seconds", "reason")
TIMM = (
    "beit_base_patch16_224", "cait_xxs24_224", "coat_tiny", "convit_tiny", "convmixer_768_32", "convnextv2_atto",
    "cspdarknet53", "davit_tiny", "deit3_small_patch16_224", "densenet121", "dla34", "dpn48b", "edgenext_xx_small",
    "efficientformer_l1", "efficientnet_b0", "efficientvit_b0", "eva02_tiny_patch14_224", "fastvit_t8",
    "focalnet_tiny_srf", "gcvit_xxtiny", "ghostnet_100", "hrnet_w18_small", "inception_next_tiny", "levit_128s",
    "maxvit_pico_rw_256", "mixer_s16_224", "mobilenetv3_small_100", "mobilevit_xxs", "nest_tiny", "nfnet_l0", "nf_resnet26",
    "pit_ti_224", "poolformer_s12", "pvt_v2_b0", "regnety_002", "repvgg_a0", "resnetv2_50", "swin_tiny_patch4_window7_224",
    "twins_svt_small", "vgg11", "vit_tiny_patch16_224", "volo_d1_224", "xcit_nano_12_p16_224",
)  # fmt: skip


def image_size(library: str, name: str) -> int:
    """Pixels a side that a model's weights were trained at."""
    if library == "timm":
        import timm

        return timm.get_pretrained_cfg(name, allow_unregistered=False).input_size[-1] if timm.is_model(name) else 224
    return 299 if name == "inception_v3" else 224


def one(library: str, name: str) -> dict[str, object]:
    """The row of one model."""
    import torch

    from featcx_core.errors import InputError
    from featcx_core.nets.named import build_named
    from featcx_core.nets.split import cut

    torch.set_num_threads(1)
    torch.manual_seed(0)
    size, began = image_size(library, name), time.monotonic()
    row: dict[str, object] = {"library": library, "name": name, "size": size}
    try:
        found = cut(build_named(library, name, 3, 10, {}), None, False, (3, size, size))
    except InputError as error:
        return row | {"reason": str(error)}
    shape = "×".join(map(str, found.shape))
    row |= {
        "layer": found.layer,
        "layout": found.layout,
        "shape": shape,
        "way": found.way,
        "error": f"{found.error:.1e}",
    }
    return row | {"seconds": f"{time.monotonic() - began:.1f}"}


def main(arguments: list[str]) -> None:
    """A process a model that has no row yet, each with all libraries imported already."""
    import torch
    from torchvision import models

    import featcx_core.nets.split  # noqa: F401

    torch.set_num_threads(1)  # a process with threads cannot be forked safely
    forked = multiprocessing.get_context("fork")
    if arguments == ["tables"]:
        return print("\n".join(tables()))
    names = {"torchvision": models.list_models(module=models), "timm": [*TIMM]}
    done = {(row["library"], row["name"]) for row in rows()}
    for library, own in names.items():
        if arguments and arguments[0] not in (library, "all"):
            continue
        for name in arguments[1:] or own:
            if (library, name) not in done:
                process = forked.Process(target=add, args=(library, name))
                process.start()
                process.join()
                if code := process.exitcode:
                    write({"library": library, "name": name, "reason": f"the process ended with {code}"})
                print(library, name, flush=True)
    return None


def add(library: str, name: str) -> None:
    """Appends a model's row."""
    write(one(library, name))


def tables() -> list[str]:
    """Lines of Markdown: a table a library, and before it how many were cut, and how."""
    found, lines = rows(), list[str]()
    for library in dict.fromkeys(row["library"] for row in found):
        own = [row for row in found if row["library"] == library]
        cut_by = Counter(row["way"] for row in own if row["way"])
        ways = ", ".join(f"{cut_by[way]} by {way}" for way in ("graph", "export", "hook"))
        lines += [f"**{library}: {cut_by.total()} of {len(own)}** ({ways})", ""]
        lines += ["| model | layer | layout | (C, H, W) | cut by | error |", "| --- " * 6 + "|"]
        for row in sorted(own, key=lambda row: row["name"]):
            cells = [row[name] or "–" for name in ("name", "layer", "layout", "shape", "way", "error")]
            lines.append("| " + " | ".join([*cells[:-1], row["reason"] or cells[-1]]) + " |")
        lines.append("")
    return lines


def rows() -> list[dict[str, str]]:
    """What was found so far."""
    path = RESULTS / "networks.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(row: dict[str, object]) -> None:
    """Appends a row."""
    path = RESULTS / "networks.csv"
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if new:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main(sys.argv[1:])
