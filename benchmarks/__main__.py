"""`python -m benchmarks [names]`: prints each row as it is measured and appends it to docs/results/benchmarks.md."""

from __future__ import annotations

import argparse
import importlib
import itertools
from pathlib import Path

from benchmarks.harness import HEADER, RESULTS, machine


def main() -> None:
    files = Path(__file__).parent.glob("*.py")
    there = sorted(file.stem for file in files if "\ndef rows(" in file.read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"out of {', '.join(there)}; all by default")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the Markdown file to append to (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions and rows, where a benchmark has such")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in there]:
        parser.error(f"there is no benchmark {', '.join(unknown)}; choose from {', '.join(there)}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name in options.names or there:
        module = importlib.import_module(f"benchmarks.{name}")
        title = f"\n## {name}, {machine()}\n\n{(module.__doc__ or '').strip()}\n\n{HEADER}"
        with options.out.open("a", encoding="utf-8") as file:
            for line in itertools.chain([title], module.rows(quick=options.quick)):
                print(line, flush=True)
                print(line, file=file, flush=True)


if __name__ == "__main__":
    main()
