"""`python -m tests.oldest`: what pyproject.toml requires, a line each, for an installer that takes the lowest versions.

Without torch and torchvision, which come in builds of their own and are installed before; of the extra `test` only what the
tests in CORE need. `make oldest` installs these and runs them.
"""

import re
import tomllib
from pathlib import Path

ALONE = ("torch", "torchvision")
TESTED_WITH = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "timm", "shapiq")


def main() -> None:
    """Prints them."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [(re.split(r"[<>=\[!~ ]", line)[0], line) for line in project["dependencies"]]
    tested = [(re.split(r"[<>=\[!~ ]", line)[0], line) for line in project["optional-dependencies"]["test"]]
    lines = [line for name, line in named if name not in ALONE] + [line for name, line in tested if name in TESTED_WITH]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
