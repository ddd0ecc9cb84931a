"""Text is UTF-8 whatever the locale: no call that reads or writes text leaves its encoding to the environment."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [path for package in ("featcx_core", "tasks", "flows") for path in sorted((ROOT / package).rglob("*.py"))]


def unsaid(source: str) -> list[int]:
    """The lines of calls that leave the encoding open."""

    def leaves_open(call: ast.Call) -> bool:
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        modes = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        if any(keyword.arg == "encoding" for keyword in call.keywords) or any("b" in mode for mode in modes):
            return False
        builtin = isinstance(call.func, ast.Name) and name == "open"
        return builtin or name in ("read_text", "write_text") or (name == "open" and modes in (["w"], ["a"], ["r"]))

    return [n.lineno for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call) and leaves_open(n)]


def test_every_text_says_its_encoding():
    assert FILES
    found = {str(path.relative_to(ROOT)): unsaid(path.read_text(encoding="utf-8")) for path in FILES}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "call", ["open(p)", "open(p, 'w')", "p.read_text()", "p.write_text(t)", "p.open('w')", "open(p, mode='r')"]
)
def test_one_that_does_not_is_seen(call):
    assert unsaid(call) == [1]


@pytest.mark.parametrize("call", ["open(p, 'rb')", "p.read_text(encoding='utf-8')", "Image.open(p)", "Table.open(p)"])
def test_one_that_does_or_has_none_is_not(call):
    assert unsaid(call) == []
