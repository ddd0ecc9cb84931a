"""Code versions move with just the code that a stage takes, wherever it lies."""

import ast
import importlib
import json
import os
import pkgutil
import shutil
import subprocess
import sys
import textwrap
from modulefinder import ModuleFinder
from pathlib import Path

import pytest

import tasks
from featcx_core.store import code
from tasks import engine

ROOT = Path(tasks.__file__).parents[1]
for found in pkgutil.iter_modules(tasks.__path__):
    importlib.import_module(f"tasks.{found.name}")
# Other tests register stages of their own, which no copy of the package holds.
STAGES = {name: stage for name, stage in engine.STAGES.items() if stage.body.__module__.startswith("tasks.")}


class Memory(dict):
    """In place of `functools.cache`: can forget what it holds of one file."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def __call__(self, of, **more):
        key = (of, *more.values())
        if key not in self:
            self[key] = self.function(of, **more)
        return self[key]

    def forget(self, file):
        for key in [key for key in self if getattr(key[0], "file", key[0]) == file]:
            del self[key]


@pytest.fixture(autouse=True, scope="module")
def _memories():
    """Those of files; what is made of a text alone stays."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_edges", "_module", "_tree", "_text"):
            patch.setattr(code, name, Memory(getattr(code, name).__wrapped__))
        yield


def forget(*files):
    """Has the next version read these files anew, or all."""
    for cached in (code._edges, code._module, code._tree, code._text):
        for file in files:
            cached.forget(file)
        if not files:
            cached.clear()


def version(folder, function="body", module="steps/stages.py"):
    forget()
    return code.version_of(folder / module, function)


FILES = {
    "steps/__init__.py": "",
    "steps/stages.py": """
        from steps.helpers import read as look
        from steps.engine import Work
        LIMIT: int = 3

        @stage("a")
        def body(work: Work, *, other):
            from featcx_core.one import A
            from featcx_core.room import handed
            from featcx_core.room import tools
            return [look(other) for _ in range(LIMIT)] + [A, handed, tools.sharp()]

        def other():
            return 1
    """,
    "steps/helpers.py": """
        TABLE = {}

        def read(x):
            \"\"\"Words.\"\"\"
            return TABLE[x]

        def write(x):
            pass
    """,
    "steps/engine.py": "class Work: pass",
    "featcx_core/__init__.py": "",
    "featcx_core/one.py": "import featcx_core.two\nA = 1\nUNUSED = 2",
    "featcx_core/two.py": "B = 1",
    "featcx_core/three.py": "C = 1",
    "featcx_core/specs.py": "S = 1",
    "featcx_core/room/__init__.py": "from featcx_core.room.inner import given as handed",
    "featcx_core/room/inner.py": """
        from __future__ import annotations
        from pathlib import Path
        from typing import TYPE_CHECKING
        from ..specs import S
        if TYPE_CHECKING:
            from featcx_core.room.kinds import Kind

        def given(kind: Kind):
            return Path(__file__).with_name("kernel.cpp").read_text() + S
    """,
    "featcx_core/room/kernel.cpp": "int x;",
    "featcx_core/room/kinds.py": """
        class Kind:
            def weigh(self):
                return 1
    """,
    "featcx_core/room/tools.py": """
        from .registry import REGISTRY, register

        def sharp():
            return REGISTRY["x"]()

        def blunt():
            return 2

        @register
        def x():
            return 7
    """,
    "featcx_core/room/registry.py": """
        REGISTRY = {}

        def register(f):
            REGISTRY[f.__name__] = f
            return f
    """,
}


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text).strip() + "\n")


@pytest.fixture
def own(tmp_path):
    """A package `steps` of stages beside a package of rooms."""
    write(tmp_path, FILES)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "old", "new", "moves"),
    [
        ("steps/stages.py", "LIMIT: int = 3", "LIMIT: int = 4", True),
        ("steps/stages.py", "[A,", "[A, A,", True),
        ("steps/stages.py", "return 1", "return 2", False),
        ("steps/stages.py", '@stage("a")', '@stage("b")', False),
        ("steps/helpers.py", "TABLE[x]", "TABLE.get(x)", True),
        ("steps/helpers.py", "TABLE = {}", "TABLE = {1: 2}", True),
        ("steps/helpers.py", "Words.", "Other words.", False),
        ("steps/helpers.py", "pass", "return 3", False),
        ("steps/stages.py", "import read as look", "import read as look, write", False),
        ("featcx_core/one.py", "A = 1", "A = 2", True),
        ("featcx_core/one.py", "A = 1", "A = (1)  # the same", False),
        ("featcx_core/one.py", "UNUSED = 2", "UNUSED = 3", False),
        ("featcx_core/one.py", "UNUSED = 2", "UNUSED = 2\\nprint(A)", True),
        ("featcx_core/two.py", "B = 1", "B = 2", False),
        ("featcx_core/three.py", "C = 1", "C = 2", False),
        ("featcx_core/specs.py", "S = 1", "S = 2", False),
        ("featcx_core/room/inner.py", "+ S", "+ S + S", True),
        ("featcx_core/room/kernel.cpp", "int x", "int y", True),
        ("featcx_core/room/kinds.py", "return 1", "return 2", True),
        ("featcx_core/room/tools.py", 'REGISTRY["x"]()', 'REGISTRY["x"]() + 1', True),
        ("featcx_core/room/tools.py", "return 2", "return 3", False),
        ("featcx_core/room/tools.py", "return 7", "return 8", True),
        ("featcx_core/room/registry.py", "return f", "return [f]", True),
    ],
)
def test_which_edits_move_a_version(own, file, old, new, moves):
    before = version(own)
    text = (own / file).read_text()
    assert old in text
    (own / file).write_text(text.replace(old, new.replace("\\n", "\n")))
    after = version(own)
    assert (after.digest != before.digest) == moves
    told = {name for name in before.modules | after.modules if before.modules.get(name) != after.modules.get(name)}
    assert told == ({file} if moves else set())


def test_where_a_definition_lies_moves_no_version(own):
    """A module moves to another room, a definition to another module: with imports mended, each version stays."""
    before = version(own)
    (own / "featcx_core/cellar").mkdir()
    (own / "featcx_core/cellar/__init__.py").write_text("")
    (own / "featcx_core/room/kinds.py").rename(own / "featcx_core/cellar/sorts.py")
    inner = (
        (own / "featcx_core/room/inner.py").read_text().replace("featcx_core.room.kinds", "featcx_core.cellar.sorts")
    )
    (own / "featcx_core/room/inner.py").write_text(inner)
    stages = (own / "steps/stages.py").read_text().replace("featcx_core.one import A", "featcx_core.two import A")
    (own / "steps/stages.py").write_text(stages)
    (own / "featcx_core/two.py").write_text("B = 1\nA = 1\n")
    after = version(own)
    assert after.digest == before.digest
    assert after.modules != before.modules


def test_which_of_two_is_taken_counts_even_where_both_are(own):
    """Two functions of one name in two modules, both taken: they change places, and no text but the imports does."""
    uses = "from {} import f\n\ndef go():\n    return f()\n"
    write(own, {"featcx_core/f1.py": "def f():\n    return 1", "featcx_core/f2.py": "def f():\n    return 2"})
    write(
        own,
        {"steps/two.py": "from steps.a import go as a\nfrom steps.b import go as b\ndef body():\n    return a(), b(0)"},
    )

    def told(one, two):
        write(own, {"steps/a.py": uses.format(one), "steps/b.py": uses.replace("go()", "go(x)").format(two)})
        return version(own, module="steps/two.py").digest

    assert told("featcx_core.f1", "featcx_core.f2") != told("featcx_core.f2", "featcx_core.f1")


@pytest.mark.parametrize(
    "line",
    [
        "from featcx_core.one import missing",
        "from featcx_core.nowhere import x",
        "from featcx_core.room.tools import *",
    ],
)
def test_an_import_that_cannot_be_followed_is_an_error(own, line):
    """Rather than an edit that is not seen."""
    text = (own / "steps/stages.py").read_text()
    (own / "steps/stages.py").write_text(
        text.replace("LIMIT: int = 3", f"{line}\nLIMIT = 3").replace("[A,", "[missing, x,")
    )
    with pytest.raises(LookupError, match="featcx_core"):
        version(own)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the packages that stages are made of."""
    folder = tmp_path_factory.mktemp("code")
    for package in ("featcx_core", "tasks"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def versions(tree, *changed):
    forget(*changed)
    roots = {name: Path(stage.body.__code__.co_filename).relative_to(ROOT) for name, stage in STAGES.items()}
    return {name: code.version_of(tree / file, STAGES[name].body.__name__) for name, file in roots.items()}


def imported_by(tree, file, function):
    """The files that a function's module and the function itself import, by the standard library's finder."""
    text = (tree / file).read_text()
    body = next(n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name == function)
    finder = ModuleFinder(path=[str(tree)], excludes=["torch", "pandas", "matplotlib", "pyarrow", "prefect"])
    script = tree / "script.py"
    script.write_text(text + "\n" + ast.unparse(body))
    finder.run_script(str(script))
    script.unlink()
    return {str(Path(m.__file__).relative_to(tree)) for m in finder.modules.values() if m.__file__}


def test_one_constant_changed_moves_just_the_stages_that_take_it(tree):
    """In each module of any stage's closure, one by one: a constant of one definition."""
    before, counts = versions(tree), {}
    for file, takers in files_taken(tree).items():
        text, name = file.read_text(), str(file.relative_to(tree))
        users, changed = edited(file, takers)
        file.write_text(changed)
        after = versions(tree, file)
        moved = {stage for stage in before if after[stage].digest != before[stage].digest}
        file.write_text(text)
        forget(file)
        assert moved == users, name
        assert all(name in after[stage].modules for stage in moved)
        counts[name] = len(moved)
    assert len(counts) > 40
    assert min(counts.values()) >= 1
    assert max(counts.values()) < len(STAGES)
    assert versions(tree) == before


def test_comments_and_docstrings_move_no_version(tree):
    """Those of all modules of any stage's closure."""
    before = versions(tree)
    texts = {file: file.read_text() for file in files_taken(tree)}
    for file, text in texts.items():
        file.write_text("# a comment\n" + text.replace('"""', '"""Words. ', 1))
    assert versions(tree) == before
    for file, text in texts.items():
        file.write_text(text)
    forget()


def closure(tree, stage):
    path = Path(stage.body.__code__.co_filename).relative_to(ROOT)
    return code.taken(tree / path, stage.body.__name__)


def files_taken(tree):
    """Of each Python file of any stage's closure the definitions that are taken, each with its stages."""
    found = {}
    for name, stage in STAGES.items():
        for d in closure(tree, stage):
            if d.file.suffix == ".py":
                found.setdefault(d.file, {}).setdefault(d.name, set()).add(name)
    return dict(sorted(found.items()))


def edited(file, takers):
    """The stages that take a definition of the file that holds a constant, and the file's text with that changed."""
    module = ast.parse(file.read_text())
    for node in module.body:
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        taken = takers.keys() & ({node.name} if hasattr(node, "name") else names)
        if not taken:
            continue
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            node.body.append(ast.parse("'changed'[0]").body[0])
        elif isinstance(node, ast.Assign):
            node.value = ast.List([node.value], ast.Load())
        else:
            continue
        return set().union(*(takers[name] for name in taken)), ast.unparse(ast.fix_missing_locations(module))
    raise AssertionError(f"{file} has nothing to change")


def test_what_a_stage_takes_lies_in_what_it_imports(tree):
    """No version holds a module that the standard library's own finder of imports does not reach."""
    for name, stage in STAGES.items():
        file = Path(stage.body.__code__.co_filename).relative_to(ROOT)
        taken = {str(d.file.relative_to(tree)) for d in closure(tree, stage) if d.file.suffix == ".py"}
        assert taken <= imported_by(tree, file, stage.body.__name__) | {str(file)}, name


def test_versions_are_the_same_in_every_process():
    script = """
        import importlib, json, pkgutil, tasks
        for module in pkgutil.iter_modules(tasks.__path__):
            importlib.import_module(f"tasks.{module.name}")
        from featcx_core.store.code import code_version
        from tasks.engine import STAGES
        print(json.dumps({name: code_version(stage.body).digest for name, stage in STAGES.items()}))
    """
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": "7"},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    here = {name: code.code_version(stage.body).digest for name, stage in STAGES.items()}
    assert json.loads(told.stdout) == here
    assert len(set(here.values())) == len(STAGES)


TRAIN = {"target", "disentangler", "trunk", "distilled", "pruned", "quantised", "task_learner"}


def test_only_trainings_hang_on_the_training_loop():
    """Each of the seven stages that train takes `fit`, and no other."""
    using = {
        name
        for name, stage in STAGES.items()
        if any(d.name == "fit" and d.file.stem == "fit" for d in closure(ROOT, stage))
    }
    assert using == TRAIN
