"""The key of an artifact: one pure function of what the artifact is made from, and the version of the code that makes it."""

from __future__ import annotations

import ast
import hashlib
import json
import symtable
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = "featcx_core"
ROOT = Path(__file__).parent
# Modules whose edits change no result: declarations (their values are in the keys), storage, messages.
PLUMBING = frozenset({"specs", "errors", "store", "prune", "keys", "__init__"})
# Modules beside a stage's own that run it and change no result either.
RUNNING = frozenset({"engine", "progress", "devices", "__init__"})
DATA = {
    "report": "templates",
    "coalitions": "coalitions.cpp",
    "normed": "normed.cpp",
}  # module → file, or folder of files, that it reads
_PARSER = threading.Lock()


def artifact_key(stage: str, spec: Mapping[str, Any], inputs: Mapping[str, str], code: str) -> str:
    """SHA-256 (64 hex digits) of a stage's name, its settings, the content digests of its inputs and its code version.

    Args:
        spec: JSON-able settings; the order of its fields does not matter.
        inputs: name → content digest.
    """
    return digest({"stage": stage, "spec": spec, "inputs": inputs, "code": code})


def digest(value: Any) -> str:
    """SHA-256 of a JSON-able value in canonical form: sorted names, no spaces, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def code_version(function: Callable[..., Any]) -> str:
    """The version of the code behind a stage: the function, what it uses of its own file and of the files beside it, and
    the modules of the package that these import in their bodies, with all that those import.

    Comments, docstrings and formatting of Python do not count.
    """
    with _PARSER:  # CPython 3.11 miscounts the parser's recursion when two threads parse at once
        return _code_version(function.__name__, Path(function.__code__.co_filename))


def _code_version(function: str, path: Path) -> str:
    used: dict[tuple[str, Path], ast.stmt] = {}
    wanted = [(function, path)]
    while wanted:
        name, file = wanted.pop()
        node = _definitions(file).get(name)
        if node is None or (name, file) in used:
            continue
        used[name, file] = node
        if isinstance(node, ast.ImportFrom):
            wanted += [
                (alias.name, _beside(node, file)) for alias in node.names if (alias.asname or alias.name) == name
            ]
        else:
            wanted += [(other, file) for other in _globals(node)]
    imported = sorted(_closure([m for node in used.values() for m in _imports(node)]))
    modules = {module: _module_version(ROOT / f"{module}.py") for module in imported}
    modules |= {part: _data_version(ROOT / part) for module, part in DATA.items() if module in imported}
    own = {f"{file.stem}.{name}": _text(n) for (name, file), n in used.items() if not isinstance(n, ast.ImportFrom)}
    return digest({"own": own, "modules": modules})


def _definitions(file: Path) -> dict[str, ast.stmt]:
    """What the names of a stage's file stand for: functions, classes, constants, and imports from the files beside it."""
    found: dict[str, ast.stmt] = {}
    for node in _tree(file).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {n.id: node for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
        elif isinstance(node, ast.ImportFrom):
            beside = _beside(node, file)
            if beside.is_file() and beside.stem not in RUNNING:
                found |= {alias.asname or alias.name: node for alias in node.names}
    return found


def _beside(node: ast.ImportFrom, file: Path) -> Path:
    """The file that an import of another module of the same package reads."""
    package, _, module = (node.module or "").partition(".")
    return file.with_name(f"{module}.py" if package == file.parent.name else "?")


def _globals(node: ast.stmt) -> set[str]:
    """The names that a definition takes from its module: not its parameters, which may be called as another stage is."""

    def visit(table: symtable.SymbolTable) -> Iterator[str]:
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (symbol.is_global() or table.get_type() == "module"):
                yield symbol.get_name()
        for child in table.get_children():
            yield from visit(child)

    return set(visit(symtable.symtable(ast.unparse(node), "stage", "exec")))


def _closure(modules: list[str]) -> set[str]:
    found: set[str] = set()
    while modules:
        module = modules.pop()
        if module not in found and module not in PLUMBING:
            found.add(module)
            modules += _module_imports(ROOT / f"{module}.py")
    return found


@cache
def _module_imports(path: Path) -> tuple[str, ...]:
    return tuple(_imports(_tree(path)))


def _imports(tree: ast.AST) -> Iterator[str]:
    """Names of the package's modules that a piece of code imports."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            package, _, module = name.partition(".")
            if package == PACKAGE and module and (ROOT / f"{module}.py").exists():
                yield module


@cache
def _module_version(path: Path) -> str:
    return digest(_text(_tree(path)))


@cache
def _data_version(place: Path) -> str:
    files = [place] if place.is_file() else place.iterdir()
    return digest({path.name: path.read_text() for path in files if path.is_file()})


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _text(node: ast.AST) -> str:
    """The code in canonical form, without docstrings and decorators."""
    fresh = ast.parse(ast.unparse(node))
    for part in ast.walk(fresh):
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            first = part.body[0] if part.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                part.body = part.body[1:] or [ast.Pass()]
    top = fresh.body[0] if fresh.body else None
    if isinstance(node, ast.FunctionDef) and isinstance(top, ast.FunctionDef):
        top.decorator_list = []
    return ast.unparse(fresh)
