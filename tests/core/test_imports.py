"""featcx_core works without Prefect, and its vocabulary without torch. Layers and circles: `make lint`."""

import subprocess
import sys
import textwrap
from pathlib import Path

import featcx_core

CORE = Path(featcx_core.__path__[0])
MODULES = sorted(
    ".".join(path.relative_to(CORE).with_suffix("").parts).removesuffix(".__init__") for path in CORE.rglob("*.py")
)


def test_every_core_module_imports_where_prefect_cannot_be():
    script = """
        import importlib, sys
        for name in ("prefect", "prefect_ray", "ray", "tasks", "flows"):
            sys.modules[name] = None
        for name in sys.argv[1:]:
            importlib.import_module(f"featcx_core.{name}".removesuffix(".__init__"))
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
    assert len(MODULES) >= 60


def test_the_vocabulary_and_the_store_are_light():
    """The command line's help, and its list of artifacts, must not wait for torch."""
    script = """
        import sys
        import featcx_core.errors, featcx_core.specs, featcx_core.store.artifacts, featcx_core.store.keys
        heavy = {"torch", "torchvision", "pandas", "matplotlib", "scipy", "sklearn"} & set(sys.modules)
        assert not heavy, heavy
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_no_folder_holds_more_than_fifteen_modules():
    for package in ("featcx_core", "tasks", "flows"):
        for folder in {path.parent for path in (CORE.parent / package).rglob("*.py")}:
            modules = [path for path in folder.glob("*.py") if path.name not in ("__init__.py", "__main__.py")]
            assert len(modules) <= 15, folder


def test_every_public_name_lies_where_the_table_of_contents_says():
    for name in featcx_core.__all__:
        assert getattr(featcx_core, name).__name__ == name
