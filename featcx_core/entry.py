"""The command `featcx`: finds its own packages, whatever else bears their names, and speaks to any terminal."""

from __future__ import annotations

import codecs
import sys
import unicodedata
from importlib import import_module
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("flows", "tasks")  # names that a user's own folder may well have, too
SPELLED = {
    "−": "-", "–": "-", "—": "-", "…": "...", "×": "x", "·": "*", "→": "->", "≤": "<=", "≥": ">=", "√": "sqrt ", "²": "^2",
    "Φ": "Phi", "φ": "phi", "ψ": "psi", "ρ": "rho", "Δ": "D", "Σ": "Sum", "α": "alpha", "κ": "kappa", "µ": "u", "█": "#",
    "‘": "'", "’": "'", "“": '"', "”": '"', "•": "*", "│": "|", "─": "-", "━": "-", "┃": "|", "✓": "ok",
}  # fmt: skip


def main() -> None:
    """Runs the command line."""
    own_packages_first()
    write_anything()
    import_module("flows.cli").main()


def beside(module: str) -> ModuleType:
    """A module of the packages that stand beside this one, whatever else bears their names on the path.

    Raises:
        ImportError: where another package of such a name has been imported already.
    """
    sys.path.insert(0, str(ROOT))
    try:
        for name in PACKAGES:
            found = getattr(import_module(name), "__file__", None)
            if found is None or not Path(found).resolve().is_relative_to(ROOT):
                raise ImportError(
                    f"{found or name} bears the name of a package of featcx; rename it or import featcx first."
                )
        return import_module(module)
    finally:
        sys.path.remove(str(ROOT))


def own_packages_first() -> None:
    """Puts folders that hold other packages of our names behind the one that holds ours, on the path of imports."""

    def strange(entry: str) -> bool:
        place = Path(entry or ".").resolve()
        return place != ROOT and any((place / name).exists() for p in PACKAGES for name in (p, f"{p}.py"))

    sys.path.sort(key=strange)  # stable: the others keep their order


def write_anything() -> None:
    """Has standard output and errors spell what they cannot show, rather than end in an error."""
    codecs.register_error("featcx.spelled", _spelled)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="featcx.spelled")


def _spelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_spell, error.object[error.start : error.end])), error.end


def _spell(letter: str) -> str:
    plain = SPELLED.get(letter) or unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return plain or "?"
