"""Arrows of import run one way, flows → tasks → featcx_core, and featcx_core works without Prefect."""

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import featcx_core
import tasks

CORE, TASKS = (Path(package.__path__[0]) for package in (featcx_core, tasks))
MODULES = sorted(path.stem for path in CORE.glob("*.py") if path.stem != "__init__")


def imported(path):
    """Top-level names of what a file imports anywhere in it, '.' for a relative import."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." if node.level else node.module.split(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "import_module",
            "importlib.import_module",
            "__import__",
        ):
            names |= {
                a.value.split(".")[0] for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)
            }
    return names


def test_the_core_imports_neither_prefect_nor_what_stands_on_it():
    for path in CORE.rglob("*.py"):
        wrong = imported(path) & {"prefect", "prefect_ray", "ray", "tasks", "flows", "tests"}
        assert not wrong, f"{path.name} imports {wrong}"


def test_tasks_do_not_import_flows():
    for path in TASKS.rglob("*.py"):
        wrong = imported(path) & {"flows", "tests"}
        assert not wrong, f"{path.name} imports {wrong}"


def test_code_versions_can_follow_every_import():
    """They follow absolute imports of modules in one flat folder."""
    assert not [path for package in (CORE, TASKS) for path in package.rglob("*.py") if path.parent != package]
    for path in [*CORE.glob("*.py"), *TASKS.glob("*.py")]:
        assert "." not in imported(path), f"{path.name} has a relative import"


def test_every_core_module_imports_where_prefect_cannot_be():
    script = """
        import importlib, sys
        for name in ("prefect", "prefect_ray", "ray", "tasks", "flows"):
            sys.modules[name] = None
        for name in sys.argv[1:]:
            importlib.import_module(f"featcx_core.{name}")
        try:
            import prefect
        except ImportError:
            print("no prefect,", len(sys.argv) - 1, "modules")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *MODULES], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == f"no prefect, {len(MODULES)} modules\n"
    assert len(MODULES) >= 18


def test_the_vocabulary_and_the_store_are_light():
    """The command line's help, and its list of artifacts, must not wait for torch."""
    script = """
        import sys
        import featcx_core.errors, featcx_core.keys, featcx_core.specs, featcx_core.store
        heavy = {"torch", "torchvision", "pandas", "matplotlib", "scipy", "sklearn"} & set(sys.modules)
        assert not heavy, heavy
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
