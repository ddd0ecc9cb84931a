"""The version of the code behind a stage: what its function takes, definition by definition, wherever that lies.

A definition is a function, a class or another statement of a module. From the stage's function the names that each takes are
followed, through imports at the top of a file or inside a function, through an `__init__` that hands names on, and to the
files that a definition names in a string and that lie beside it (kernels, templates). What is hashed is the graph of these
texts, joined by the names under which they are taken: a definition that moves to another module keeps every version, an edit
moves those of just the stages that take it, and comments, docstrings and formatting move none.
"""

from __future__ import annotations

import ast
import hashlib
import symtable
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from featcx_core.store.keys import digest

PACKAGE = "featcx_core"
# What changes no result: declarations (their values are in the keys), messages, storage, and what runs a stage.
PLUMBING = tuple(f"{PACKAGE}.{name}" for name in ("specs", "errors", "store"))
RUNNING = ("tasks.env", "tasks.engine", "tasks.cached", "tasks.progress", "tasks.devices")
ALL, LOOSE = "*", "<loose>"  # a whole module; its statements that define nothing, which run when it is imported
_PARSER = threading.Lock()


class CodeVersion(NamedTuple):
    """A version (64 hex digits), and what it is made of: for each file, a hash of what is taken of it."""

    digest: str
    modules: dict[str, str]


class Definition(NamedTuple):
    """A statement of a file by the name that it defines, or a file of data (no name)."""

    file: Path
    name: str


class Module(NamedTuple):
    """A file's statements by the names that they define, its imports of the same packages, and its loose statements."""

    defined: dict[str, list[ast.stmt]]
    imports: dict[str, Import]
    loose: list[ast.stmt]


class Import(NamedTuple):
    """`from module import name`; no name for `import module`."""

    module: str
    name: str


Edges = dict[str, Definition]  # under the name by which a definition takes another


def code_version(function: Callable[..., Any]) -> CodeVersion:
    """The version of a stage's function with all that it takes of its own package and of featcx_core.

    Raises:
        LookupError: for an import that cannot be followed, which would leave an edit unseen.
    """
    with _PARSER:  # CPython 3.11 miscounts the parser's recursion when two threads parse at once
        return version_of(Path(function.__code__.co_filename), function.__name__)


def version_of(file: Path, name: str) -> CodeVersion:
    """The graph of what is taken, written from the root: each text with the numbers of what its names stand for."""
    number = {node: i for i, node in enumerate(taken(file, name))}
    texts, written = dict[Path, list[str]](), []
    for node, i in number.items():
        text = _text(node, bare=i == 0)
        written.append([text, {label: number[target] for label, target in _edges(node).items()}])
        texts.setdefault(node.file, []).append(text)
    top = _top(file)
    return CodeVersion(
        digest(written), {str(path.relative_to(top)): digest(sorted(texts[path])) for path in sorted(texts)}
    )


def taken(file: Path, name: str) -> list[Definition]:
    """What a function takes, itself first, in an order that only the texts and the names in them decide."""
    found = [Definition(file, name)]
    seen = set(found)
    for node in found:
        edges = _edges(node)
        fresh = dict.fromkeys(edges[label] for label in sorted(edges) if edges[label] not in seen)
        seen.update(fresh)
        found += fresh
    return found


@cache
def _edges(node: Definition) -> Edges:
    """What a definition takes, under the names by which it does."""
    if not node.name:
        return {}
    module, found = _module(node.file), Edges()
    if node.name == ALL:
        found |= {name: Definition(node.file, name) for name in module.defined}
        found |= {name: at for name, each in module.imports.items() if (at := _found(node.file, each))}
    for statement in _statements(node):
        found |= _taken(node.file, module, statement)
    if module.loose:
        found[LOOSE] = Definition(node.file, LOOSE)
    return {label: target for label, target in found.items() if target != node}


def _taken(file: Path, module: Module, statement: ast.stmt) -> Edges:
    """What one statement takes: of its own module, by imports at the top or inside, and data that lie beside the file."""
    inner = {name: each for part in ast.walk(statement) for name, each in _imported(part, file)}
    used = _globals(statement)
    found = {name: Definition(file, name) for name in used & module.defined.keys()}
    for name, each in (module.imports | inner).items():
        if name in used or name in inner:
            found |= _through(file, name, each, statement)
    for part in ast.walk(statement):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            found |= {repr(part.value) + path.name: Definition(path, "") for path in _data(file, part.value)}
    return found


def _through(file: Path, name: str, each: Import, statement: ast.stmt) -> Edges:
    """What an imported name stands for; of a module the attributes that are asked for, or all of it when it is passed on."""
    target = _found(file, each)
    if target is None or target.name != ALL:
        return {name: target} if target else {}
    uses = {id(n) for n in ast.walk(statement) if isinstance(n, ast.Name) and n.id == name}
    asked = [n.attr for n in ast.walk(statement) if isinstance(n, ast.Attribute) and id(n.value) in uses]
    if not each.name or not uses or len(asked) < len(uses):
        return {name: target}
    steps = {f"{name}.{attribute}": _defined(target.file, attribute) for attribute in asked}
    return {label: step for label, step in steps.items() if step}


def _found(file: Path, each: Import) -> Definition | None:
    """What an import brings; None for what changes no result."""
    if each.module.startswith((*PLUMBING, *RUNNING)):
        return None
    place, below = _file(file, each.module), f"{each.module}.{each.name}"
    if each.name and not (place and each.name in _names(place)) and (inside := _file(file, below)):
        return None if below.startswith((*PLUMBING, *RUNNING)) else Definition(inside, ALL)
    if place is None:
        raise LookupError(f"{file} imports {each.module}, which is no file of its packages.")
    return _defined(place, each.name) if each.name else Definition(place, ALL)


def _defined(file: Path, name: str) -> Definition | None:
    """Where a module's name is defined, through modules that hand it on.

    Raises:
        LookupError: when the module's text does not tell.
    """
    module = _module(file)
    if name in module.imports and name not in module.defined:
        return _found(file, module.imports[name])
    if name not in module.defined:
        raise LookupError(f"{file} does not define {name} in its text; import it from where it is defined.")
    return Definition(file, name)


def _names(file: Path) -> set[str]:
    module = _module(file)
    return module.defined.keys() | module.imports.keys()


@cache
def _module(file: Path) -> Module:
    found = Module({}, {}, [])
    for statement in _tree(file).body:
        _sort(statement, found, file)
    return found


def _sort(statement: ast.stmt, module: Module, file: Path) -> None:
    """Puts a statement of a module where it belongs; one that defines nothing, or may register what it defines, is loose."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        module.imports.update(_imported(statement, file))
    elif isinstance(statement, ast.If) and ast.unparse(statement.test).endswith("TYPE_CHECKING"):
        for inner in statement.body:
            _sort(inner, module, file)
    elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        module.defined.setdefault(statement.name, []).append(statement)
        marks = {n.id for each in statement.decorator_list for n in ast.walk(each) if isinstance(n, ast.Name)}
        ours = marks & module.defined.keys() or [
            m for m in marks & module.imports.keys() if _found(file, module.imports[m])
        ]
        module.loose.extend([statement] if ours else [])
    elif not _is_words(statement):
        names = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        for name in names:
            module.defined.setdefault(name, []).append(statement)
        if not names or not isinstance(statement, ast.Assign | ast.AnnAssign):
            module.loose.append(statement)


def _statements(node: Definition) -> list[ast.stmt]:
    module = _module(node.file)
    return module.loose if node.name == LOOSE else module.defined.get(node.name, [])


def _imported(node: ast.AST, file: Path) -> Iterator[tuple[str, Import]]:
    """Names that an import of our packages binds."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if _is_ours(alias.name, file):
                yield alias.asname or alias.name, Import(alias.name, "")
    elif isinstance(node, ast.ImportFrom):
        package = ".".join(file.relative_to(_top(file)).parent.parts[: -node.level + 1 or None])
        module = ".".join(filter(None, (package if node.level else "", node.module)))
        if _is_ours(module, file):
            if any(alias.name == "*" for alias in node.names):
                raise LookupError(f"{file} imports * from {module}, which does not tell what; name what is taken.")
            yield from ((alias.asname or alias.name, Import(module, alias.name)) for alias in node.names)


def _is_ours(module: str, file: Path) -> bool:
    return module.partition(".")[0] in (PACKAGE, file.relative_to(_top(file)).parts[0])


@cache
def _top(file: Path) -> Path:
    """The folder that holds the package of a file."""
    return next(folder for folder in file.parents if not (folder / "__init__.py").exists())


def _file(file: Path, module: str) -> Path | None:
    """The file of a module that lies beside the package of `file`."""
    place = _top(file).joinpath(*module.split("."))
    return next((p for p in (place.with_name(f"{place.name}.py"), place / "__init__.py") if p.is_file()), None)


def _data(file: Path, text: str) -> list[Path]:
    """The files beside a module that a string names, or those in a folder beside it."""
    if not text or len(text) > 80 or not text.replace(".", "").replace("_", "").isalnum():
        return []
    place = file.with_name(text)
    found = sorted(place.iterdir()) if place.is_dir() else [place]
    return [path for path in found if path.is_file()] if not any(p.suffix == ".py" for p in found) else []


@cache
def _globals(statement: ast.stmt) -> set[str]:
    """The names that a statement takes from its module: not its parameters, which may be called as another stage is."""

    def visit(table: symtable.SymbolTable) -> Iterator[str]:
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (symbol.is_global() or table.get_type() == "module"):
                yield symbol.get_name()
        for child in table.get_children():
            yield from visit(child)

    return set(visit(symtable.symtable(ast.unparse(statement), "stage", "exec")))


@cache
def _text(node: Definition, bare: bool) -> str:
    """A definition in canonical form; bare: without its decorators. A file of data is its hash."""
    if not node.name:
        return hashlib.sha256(node.file.read_bytes()).hexdigest()
    return "\n".join(_canonical(statement, node.file, bare) for statement in _statements(node))


@cache
def _canonical(statement: ast.stmt, file: Path, bare: bool) -> str:
    """A statement without docstrings and imports of our packages."""
    fresh = ast.parse(ast.unparse(statement))
    for part in ast.walk(fresh):
        for block in ("body", "orelse", "finalbody"):
            if isinstance(rows := getattr(part, block, None), list):
                kept = [r for r in rows if not _is_words(r) and not any(_imported(r, file))]
                setattr(part, block, kept or ([ast.Pass()] if block == "body" else []))
    top = fresh.body[0]
    if bare and isinstance(top, ast.FunctionDef):
        top.decorator_list = []
    return ast.unparse(fresh)


def _is_words(node: ast.AST) -> bool:
    """Whether a statement is a string alone, as docstrings are."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@cache
def _tree(file: Path) -> ast.Module:
    return _parsed(file.read_text(encoding="utf-8"))


@cache
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)
