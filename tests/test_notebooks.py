"""The notebooks run from top to bottom, show what they promise, and are kept without outputs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="the extra test is not installed")
NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def test_there_are_notebooks_and_they_are_valid() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["first-look", "own-network"]
    for path in NOTEBOOKS:
        nbformat.validate(read(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_outputs_and_no_paths_of_a_machine_are_kept(path: Path) -> None:
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    assert not re.search(r"[\"'](/|[A-Z]:\\)", path.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbclient import NotebookClient

    monkeypatch.delenv("FEATCX_IMAGES", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(path.parents[2]))
    found = read(path)
    NotebookClient(found, timeout=850, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in found.cells for output in cell.get("outputs", []) if "data" in output]
    assert any("In this run" in output["data"].get("text/html", "") for output in shown)
    assert any("image/png" in output["data"] for output in shown)
    assert not [output for cell in found.cells for output in cell.get("outputs", []) if output.get("name") == "stderr"]
    nbformat.write(found, tmp_path / path.name)  # to be looked at
