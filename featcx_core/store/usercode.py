"""What a user's own module is made of: the files that it imports, found without running them, and versions of packages."""

from __future__ import annotations

import ast
import hashlib
import site
import sys
import sysconfig
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import packages_distributions, version
from pathlib import Path

from featcx_core.errors import InputError


def own_code(module: str) -> dict[str, str]:
    """The start of the SHA-256 of each file that `module` is made of, by module name, and the version of each package.

    Imports are read off the syntax trees, those inside functions too; of installed packages the version counts, of the
    standard library nothing does.

    Raises:
        InputError: for a file of the user's that is no Python.
    """
    found, waiting = dict[str, str](), [module]
    while waiting:
        name = waiting.pop()
        for part in _with_packages(name):
            spec = None if part in found else _spec(part)
            if spec is None or spec.origin is None or part.partition(".")[0] in sys.stdlib_module_names:
                continue
            if _is_installed(Path(spec.origin)):
                top = part.partition(".")[0]
                found |= {dist: version(dist) for dist in packages_distributions().get(top, [])}
            elif spec.origin.endswith(".py"):
                text = Path(spec.origin).read_bytes()
                found[part] = hashlib.sha256(text).hexdigest()[:16]
                waiting += _imports(text, part, spec)
    return dict(sorted(found.items()))


def _with_packages(name: str) -> list[str]:
    """a.b.c → a, a.b, a.b.c: importing a module runs the packages that it lies in."""
    parts = name.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def _spec(name: str) -> ModuleSpec | None:
    """Where a module lies. Python's own `find_spec` would run the packages above it."""
    path: list[str] | None = None
    spec: ModuleSpec | None = None
    for part in _with_packages(name):
        spec = PathFinder.find_spec(part, path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or [])
    return spec


def _imports(text: bytes, name: str, spec: ModuleSpec) -> Iterator[str]:
    """Modules that a file imports; a name taken from a package may be a module or not, which `_spec` will say."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{spec.origin} is no Python that can be read ({error}); mend it.") from error
    package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


def _is_installed(file: Path) -> bool:
    """Whether a file belongs to an installed package, rather than to the user."""
    places = {
        *site.getsitepackages(),
        site.getusersitepackages(),
        *map(sysconfig.get_path, ("purelib", "platlib", "stdlib")),
    }
    return any(file.is_relative_to(place) for place in places)
