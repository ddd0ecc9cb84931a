"""50,000 images of 224×224, 7.5 GB of pixels: decoding, training and extraction, and the most memory that they take.

    python -m benchmarks.larger_than_memory WORK [--images 50000] [--distinct 50000] [--keep]

Makes noise photographs in WORK (JPEG, ten classes; beyond the distinct ones their files come again), runs the default preset
on them with tiny budgets in a process of its own, and reads that process's and its children's memory every 50 ms from /proc:
anonymous memory, and pages of files (libraries and mapped images, which the system takes back when it needs room). The time
of each stage is that of its manifest.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np

SIDE, CLASSES = 224, 10
SETTINGS = (
    "target.net=torchvision:shufflenet_v2_x0_5", "target.samples=500", "target.schedule.draws=640",
    "target.schedule.batch=32",
    "exemplary.schedule.draws=640", "exemplary.schedule.batch=32", "disentangler.blocks=1,2", "disentangler.width=8",
    "disentangler.schedule.draws=640", "disentangler.draws=[]", "disentangler.chains=1", "disentangler.continuation=false",
    "reliability.schedule.draws=640", "reliability.draws=[]", "reliability.cycle_steps=100", "components.rows=500",
    "analysis.bootstrap=100", "variants.distilled=false", "variants.pruned=false", "variants.quantised=false",
    "substitution.control=false",
)  # fmt: skip


class Memory(NamedTuple):
    """Bytes: anonymous, of files, both at once."""

    anonymous: int
    files: int
    whole: int


def place(root: Path, number: int) -> Path:
    """Where an image lies: its class by its last digit, every tenth of a class for testing."""
    split = "test" if number // CLASSES % 10 == 9 else "train"
    return root / split / f"class{number % CLASSES}" / f"{number:06d}.jpg"


def make_image(root: Path, number: int) -> None:
    """Smooth noise in the colours of its class, as JPEG."""
    from PIL import Image

    rng, path = np.random.default_rng(number), place(root, number)
    coarse = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) // 2 + np.uint8(12 * (number % CLASSES))
    Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path, quality=90)


def make_folder(root: Path, count: int, distinct: int) -> None:
    """`count` images, a tenth of them for testing, on all cores; after the first `distinct` their files come again."""
    for split in ("train", "test"):
        for label in range(CLASSES):
            (root / split / f"class{label}").mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(make_image, root), range(min(count, distinct)), chunksize=100))
    for number in range(distinct, count):
        place(root, number).hardlink_to(place(root, number % distinct))


def resident(process: int) -> tuple[int, int]:
    """(anonymous, of files) bytes of a process and all below it."""
    found, waiting = [0, 0], [process]
    while waiting:
        place = Path(f"/proc/{waiting.pop()}")
        try:
            lines = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
            found[0] += 1024 * int(lines["RssAnon"].split()[0])
            found[1] += 1024 * int(lines["RssFile"].split()[0])
            for task in (place / "task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except (OSError, KeyError):  # it has just ended
            continue
    return found[0], found[1]


def watched(command: list[str]) -> tuple[dict[datetime, int], Memory, float]:
    """Runs a command; anonymous bytes by time, the most memory of each kind at any time, and seconds."""
    began, most, timeline = time.monotonic(), Memory(0, 0, 0), dict[datetime, int]()
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            anonymous, files = resident(process.pid)
            most = Memory(*map(max, most, (anonymous, files, anonymous + files)))
            timeline[datetime.now(UTC)] = anonymous
            time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return timeline, most, time.monotonic() - began


def reading(data: Path, batches: int = 200) -> float:
    """Images a second of random training batches of 128, read, cropped and normalised, without a net, on one thread."""
    import torch

    from featcx_core.data.images import Augmented, Dataset, ahead

    torch.set_num_threads(1)
    samples = Augmented(loaded := Dataset.load(data), loaded.pool)
    rng = torch.Generator().manual_seed(0)
    began = time.monotonic()
    for fetched in ahead(
        lambda _: samples.fetch(samples.draw(torch.randint(len(samples), (128,), generator=rng), rng)), range(batches)
    ):
        samples.take(*fetched)
    return 128 * batches / (time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument(
        "--distinct", type=int, default=50_000, help="a multiple of 100; further images are links to these"
    )
    parser.add_argument("--keep", action="store_true", help="leave what was made")
    parser.add_argument("--set", action="append", default=[], help="further settings")
    options = parser.parse_args()
    photographs, store = options.work / "photographs", options.work / "store"
    began = time.monotonic()
    if not photographs.exists():
        make_folder(photographs, options.images, options.distinct)
        print(f"made {options.images:,} images in {time.monotonic() - began:.0f} s", flush=True)
    run = "import sys; from featcx_core.entry import main; sys.argv[0] = 'featcx'; main()"
    sets = [f"dataset.source=folder:{photographs}", *SETTINGS, *options.set]
    command = [sys.executable, "-c", run, "run", "mnist", "--store", str(store), "--device", "cpu"]
    timeline, most, seconds = watched([*command, *(part for value in sets for part in ("--set", value))])
    gib = {name: f"{value / 2**30:.2f} GiB" for name, value in most._asdict().items()}
    print(json.dumps({"cores": os.cpu_count(), "seconds": round(seconds), "peak": gib}))
    print("   seconds  GiB at most meanwhile")
    for manifest in sorted(
        (json.loads(path.read_text()) for path in store.glob("*/*/manifest.json")), key=itemgetter("started")
    ):
        at = datetime.fromisoformat(manifest["started"])
        until = at + timedelta(seconds=manifest["seconds"] + 1)
        meanwhile = max((held for moment, held in timeline.items() if at <= moment <= until), default=0) / 2**30
        print(f"{manifest['seconds']:8.1f} s  {meanwhile:5.2f}  {manifest['label']}")
    print(f"{reading(next((store / 'data').iterdir())):.0f} images/s read in random batches of 128, one thread")
    if not options.keep:
        shutil.rmtree(options.work)


if __name__ == "__main__":
    main()
