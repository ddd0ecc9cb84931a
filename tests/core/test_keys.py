"""Keys are pure functions of what an artifact is made from; code versions move with the code that a stage uses."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from featcx_core import keys
from featcx_core.keys import artifact_key, digest

ROOT = Path(keys.__file__).parents[1]
PARTS = {
    "stage": "target",
    "spec": {"net": "resnet8", "samples": 200, "schedule": {"lr": 1e-3}, "layer": None, "sizes": [1, 2]},
    "inputs": {"data": "ab" * 32},
    "code": "cd" * 32,
}


def test_a_key_is_64_hex_digits():
    key = artifact_key(**PARTS)
    assert len(key) == 64
    int(key, 16)


def test_the_order_of_fields_does_not_matter():
    spec = dict(reversed(PARTS["spec"].items()))
    assert artifact_key(**PARTS | {"spec": spec}) == artifact_key(**PARTS)
    spec = PARTS["spec"] | {"sizes": (1, 2)}  # JSON knows lists alone
    assert artifact_key(**PARTS | {"spec": spec}) == artifact_key(**PARTS)


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "disentangler"},
        {"spec": PARTS["spec"] | {"samples": 201}},
        {"spec": PARTS["spec"] | {"schedule": {"lr": 1.0000000001e-3}}},
        {"spec": PARTS["spec"] | {"layer": ""}},
        {"spec": PARTS["spec"] | {"sizes": [2, 1]}},
        {"spec": PARTS["spec"] | {"more": None}},
        {"inputs": {"data": "ab" * 31 + "ac"}},
        {"inputs": {"other": "ab" * 32}},
        {"inputs": {}},
        {"code": "cd" * 31 + "ce"},
        {"spec": PARTS["inputs"], "inputs": PARTS["spec"]},
    ],
)
def test_a_key_moves_with_each_of_its_parts(change):
    assert artifact_key(**PARTS | change) != artifact_key(**PARTS)


def test_what_json_cannot_hold_is_refused():
    for value in (float("nan"), float("inf"), {1, 2}, Path("x")):
        with pytest.raises((ValueError, TypeError)):
            digest({"value": value})


def test_the_key_is_the_same_in_every_process():
    """A constant: whoever changes how keys are made sees here that every stored artifact becomes a miss."""
    text = '{"code":"0","inputs":{},"spec":{"name":"Φ","source":"digits"},"stage":"data"}'
    key = artifact_key("data", {"source": "digits", "name": "Φ"}, {}, "0")
    assert key == hashlib.sha256(text.encode()).hexdigest()
    assert key == "ed49078fba24dd8c8eb1916d1fa24029970c930e6a17e5226b7ce0928d43cb98"


DRIVER = """
import ast, importlib, json, pkgutil, sys
from pathlib import Path
import tasks
from featcx_core import keys
for module in pkgutil.iter_modules(tasks.__path__):
    importlib.import_module(f"tasks.{module.name}")
from tasks.engine import STAGES
assert Path(keys.__file__).parent == Path.cwd() / "featcx_core"

def versions():
    for cached in vars(keys).values():
        if hasattr(cached, "cache_clear"):
            cached.cache_clear()
    return {name: keys.code_version(stage.body) for name, stage in STAGES.items()}

def edited(text, kind, name):
    # the text after an edit of one kind
    if kind == "append":
        return text + "\\n\\n" + name + "\\n"
    tree = ast.parse(text)  # which drops comments and formatting
    for node in ast.walk(tree):
        documented = isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)) and ast.get_docstring(node) is not None
        if kind == "docstrings" and documented:
            node.body[0].value.value = "Other words."
        if kind == "body" and getattr(node, "name", "") == name:
            node.body.append(ast.parse("1 + 1").body[0])
        if kind == "constant" and isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            node.value = ast.List([node.value])
    changed = ast.unparse(ast.fix_missing_locations(tree))
    assert kind == "docstrings" or changed != ast.unparse(ast.parse(text)), (kind, name)
    return changed

print(json.dumps(versions()))
for edits in json.loads(sys.argv[1]):
    kept = {}
    for file, kind, name in edits:
        text = Path(file).read_text()
        kept.setdefault(file, text)
        Path(file).write_text(edited(text, kind, name))
    print(json.dumps(versions()))
    for file, text in kept.items():
        Path(file).write_text(text)
"""

# Each a list of (file, kind of edit, name of a definition or text).
EDITS = {
    "cosmetic": [
        *((f"featcx_core/{name}.py", "docstrings", "") for name in ("shapley", "fit", "data", "targets")),
        *((f"tasks/{name}.py", "docstrings", "") for name in ("train", "analyse")),
        ("featcx_core/significance.py", "append", "# a comment"),
        ("tasks/engine.py", "append", "UNUSED = 1"),  # how stages are run
        ("featcx_core/store.py", "append", "UNUSED = 1"),  # where results lie
        ("featcx_core/specs.py", "append", "UNUSED = 1"),  # what can be chosen; what was is in the keys themselves
    ],
    "shapley": [("featcx_core/shapley.py", "body", "coalition_losses")],
    "kernel": [("featcx_core/coalitions.cpp", "append", "int x;")],
    "fit": [("featcx_core/fit.py", "body", "fit")],
    "seeds": [("featcx_core/seeds.py", "body", "derive_seed")],
    "data body": [("tasks/train.py", "body", "data")],
    "components body": [("tasks/analyse.py", "body", "components")],
    "constant": [("tasks/analyse.py", "constant", "SPLITS")],
    "unused": [("tasks/analyse.py", "append", "def helper():\n    return 1")],
}


@pytest.fixture(scope="module")
def code_versions(tmp_path_factory):
    """Code versions of all stages before any edit and after each, and those of a process of its own."""
    folder = tmp_path_factory.mktemp("code")
    for package in ("featcx_core", "tasks"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "driver.py").write_text(textwrap.dedent(DRIVER))

    def run(edits, hash_seed):
        environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONHASHSEED": str(hash_seed)}
        done = subprocess.run(
            [sys.executable, "driver.py", json.dumps(edits)],
            cwd=folder, env=environment, check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    first, *after = run(list(EDITS.values()), hash_seed=1)
    (again,) = run([], hash_seed=2)
    return {"before": first, "again": again} | dict(zip(EDITS, after, strict=True))


def changed(code_versions, edit):
    return {stage for stage, version in code_versions["before"].items() if code_versions[edit][stage] != version}


TRAINING = {"target", "disentangler"}
ANALYSES = {"components", "significance", "shapley", "effectiveness", "substitution"}


def test_code_versions_are_the_same_in_every_process(code_versions):
    assert code_versions["again"] == code_versions["before"]
    assert set(code_versions["before"]) >= {"data"} | TRAINING | ANALYSES
    assert len(set(code_versions["before"].values())) == len(code_versions["before"])


def test_comments_docstrings_and_formatting_rebuild_nothing(code_versions):
    assert changed(code_versions, "cosmetic") == set()


def test_a_function_that_no_stage_uses_rebuilds_nothing(code_versions):
    assert changed(code_versions, "unused") == set()


def test_an_edit_of_shapley_rebuilds_what_uses_it(code_versions):
    stale = changed(code_versions, "shapley")
    assert stale >= {"shapley", "effectiveness"}
    assert not stale & ({"data", "components", "significance", "substitution"} | TRAINING)


def test_an_edit_of_a_kernel_rebuilds_what_runs_it(code_versions):
    assert changed(code_versions, "kernel") == {"shapley", "effectiveness"}


def test_an_edit_of_the_training_loop_rebuilds_the_trainings(code_versions):
    stale = changed(code_versions, "fit")
    assert stale >= TRAINING
    assert not stale & {"data", "significance", "effectiveness"}


def test_an_edit_deep_down_rebuilds_all_that_stands_on_it(code_versions):
    assert changed(code_versions, "seeds") >= {"data"} | TRAINING | ANALYSES


def test_an_edit_of_a_body_rebuilds_its_stage_alone(code_versions):
    """Though other stages have arguments that are named as it is."""
    assert changed(code_versions, "data body") == {"data"}
    assert changed(code_versions, "components body") == {"components"}


def test_a_constant_of_the_stages_own_file_counts(code_versions):
    stale = changed(code_versions, "constant")
    assert stale >= {"components", "significance"}
    assert not stale & ({"data", "shapley", "substitution"} | TRAINING)


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))


def version(folder, function="body", module="stages"):
    for cached in vars(keys).values():
        if hasattr(cached, "cache_clear"):
            cached.cache_clear()
    return keys._code_version(function, folder / f"{module}.py")


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A package `steps` of stages beside a package of modules."""
    for package in ("steps", "featcx_core"):
        (tmp_path / package).mkdir()
    monkeypatch.setattr(keys, "ROOT", tmp_path / "featcx_core")
    write(tmp_path / "featcx_core", one="import featcx_core.two\nA = 1\n", two="B = 1\n", three="C = 1\n")
    write(
        tmp_path / "steps",
        stages="""
            from steps.helpers import read as look
            from steps.engine import Work
            LIMIT: int = 3

            def body(work: Work, *, other):
                from featcx_core.one import A
                return [look(other) for _ in range(LIMIT)] + [A]

            def other():
                return 1
        """,
        helpers="TABLE = {}\n\ndef read(x):\n    return TABLE[x]\n\ndef write(x):\n    pass\n",
        engine="class Work: pass\n",
    )
    return tmp_path


@pytest.mark.parametrize(
    ("file", "old", "new", "moves"),
    [
        ("steps/stages.py", "LIMIT: int = 3", "LIMIT: int = 4", True),
        ("steps/stages.py", "+ [A]", "+ [A, A]", True),
        ("steps/stages.py", "return 1", "return 2", False),
        ("steps/helpers.py", "TABLE[x]", "TABLE.get(x)", True),
        ("steps/helpers.py", "TABLE = {}", "TABLE = {1: 2}", True),
        ("steps/helpers.py", "pass", "return 3", False),
        ("steps/stages.py", "import read as look", "import read as look, write", False),
        ("steps/engine.py", "pass", "x = 1", False),
        ("featcx_core/one.py", "A = 1", "A = 2", True),
        ("featcx_core/two.py", "B = 1", "B = 2", True),
        ("featcx_core/three.py", "C = 1", "C = 2", False),
        ("featcx_core/two.py", "B = 1", "B = 1  # more", False),
    ],
)
def test_which_edits_move_a_version(own, file, old, new, moves):
    before = version(own / "steps")
    text = (own / file).read_text()
    assert old in text
    (own / file).write_text(text.replace(old, new))
    assert (version(own / "steps") != before) == moves
