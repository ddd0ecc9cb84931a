"""The manual says what there is: it builds without a warning, its commands are understood, its Python runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from typer.main import get_command

from flows.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *(p for p in sorted((ROOT / "docs").rglob("*.md")) if p.name != "log.md")]


def blocks(language: str) -> list[tuple[str, str]]:
    """(page, text) of every fenced block."""
    found = []
    for page in PAGES:
        texts = re.findall(
            rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
        )
        found += [(str(page.relative_to(ROOT)), text) for text in texts]
    return found


def typed() -> list[tuple[str, list[str]]]:
    """(page, words) of every featcx command that a page shows."""
    lines = [(page, line) for page, text in blocks("sh") for line in text.replace("\\\n", " ").splitlines()]
    words = [(page, shlex.split(line, comments=True)) for page, line in lines if "featcx" in line]
    own = [
        (page, [word for word in each if "=" not in word or word.startswith("--") or each.index(word) > 1])
        for page, each in words
    ]
    return [(page, each[each.index("featcx") + 1 :]) for page, each in own if "featcx" in each]


def test_there_are_commands_in_every_part_of_the_manual():
    pages = {page for page, _ in typed()}
    assert {"README.md", "docs/howto/network.md", "docs/howto/sweep.md", "docs/reference/files.md"} <= pages
    assert len(typed()) > 40


@pytest.mark.parametrize(
    ("page", "words"), typed(), ids=lambda value: value if isinstance(value, str) else " ".join(value)[:60]
)
def test_a_command_of_the_manual_is_understood(page: str, words: list[str]) -> None:
    command: click.Command = get_command(app)
    context = click.Context(command, info_name="featcx")
    while isinstance(command, click.Group):
        if words[0].startswith("--"):
            command.make_context("featcx", words, resilient_parsing=True)
            return
        found = command.get_command(context, words[0])
        assert found is not None, f"{page}: featcx has no command {words[0]}"
        command, words = found, words[1:]
    command.make_context(command.name, words)


@pytest.mark.parametrize(("page", "text"), blocks("python"), ids=lambda value: value[:30])
def test_the_python_of_the_manual_runs(page: str, text: str) -> None:
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{page}: {done.stderr}"


@pytest.mark.slow
def test_the_manual_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    start = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "How complex are the features" in start
    significance = (tmp_path / "site" / "concepts" / "significance" / "index.html").read_text(encoding="utf-8")
    assert significance.count("<math") == 3
    assert "\\(" not in significance
    for page in ("reference/commands", "reference/settings", "concepts/significance"):
        assert len((tmp_path / "site" / page / "index.html").read_text(encoding="utf-8")) > 10_000
    assert "target.preprocess" in (tmp_path / "site" / "reference" / "settings" / "index.html").read_text(
        encoding="utf-8"
    )
