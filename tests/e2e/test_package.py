"""What a newcomer gets: the wheel outside the checkout, the README's example, quick help."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from featcx_core.store.artifacts import Store
from tests.e2e.conftest import LEAN, TINY, UNJUDGED, clean_environment, cpu_seconds, featcx

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_wheel_outside_the_checkout_gives_the_same_digests(tmp_path: Path) -> None:
    """In a fresh store and with other hashes than the checkout's run."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=False, system_site_packages=False)
    python = tmp_path / "venv" / "bin" / "python"
    # The dependencies are borrowed from this environment; the checkout itself must not be importable.
    site = next(Path(p) for p in sys.path if p.endswith("site-packages"))
    target = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", target, wheel], check=True)
    (target / "dependencies.pth").write_text(f"import sys; sys.path.append({str(site)!r})\n")
    own = {name: value for name, value in clean_environment().items() if name != "PYTHONPATH"} | {"PYTHONHASHSEED": "7"}

    def installed(*arguments: str | Path) -> str:
        done = subprocess.run([python, *arguments], capture_output=True, text=True, cwd=tmp_path, env=own, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    found = installed("-c", "import featcx_core, flows, tasks; print(featcx_core.__file__, flows.__file__)")
    assert str(target) in found
    assert f"{ROOT}/" not in found
    assert not (target / "tests").exists()
    run = ("run", "digits", *TINY, *LEAN, *UNJUDGED, "--store")
    installed("-m", "flows.cli", *run, tmp_path / "installed")
    assert featcx(*run, tmp_path / "checkout", PYTHONHASHSEED="1").code == 0
    a, b = (
        {(m["stage"], m["key"]): m["digest"] for m in Store(tmp_path / name).manifests()}
        for name in ("installed", "checkout")
    )
    assert len({stage for stage, _ in a}) > 10
    assert a == b


def test_the_readme_names_every_file_that_there_is() -> None:
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"\b(\w+\.py)\b", readme))
    there = {path.name for room in ("featcx_core", "tasks", "flows") for path in (ROOT / room).glob("*.py")}
    assert named <= there


def test_help_is_quick() -> None:
    """Held against the import of torch on the same machine, which it does without."""
    before = cpu_seconds()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    torch = cpu_seconds() - before
    assert min(featcx("--help").cpu_seconds for _ in range(3)) < torch / 2
    loaded = "import sys, flows.cli; print([m for m in ('torch', 'prefect', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout == "[]\n"
