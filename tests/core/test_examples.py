"""Every public function shows how it is called, and what it shows is so."""

from __future__ import annotations

import doctest
import importlib
import inspect

import pytest
import torch

import featcx_core

PUBLIC = [name for name in featcx_core.__all__ if inspect.isfunction(getattr(featcx_core, name))]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_function_has_an_example_that_runs(name: str) -> None:
    function = getattr(featcx_core, name)
    home = importlib.import_module(function.__module__)
    torch.manual_seed(0)
    (found,) = doctest.DocTestFinder(recurse=False).find(function, name, home, globs=vars(home) | {"torch": torch})
    assert found.examples, f"{name} has no example"
    said = list[str]()
    ran = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(found, out=said.append)
    assert ran.failed == 0, "".join(said)


def test_the_examples_of_tables_run() -> None:
    home = importlib.import_module("featcx_core.analysis.components")
    (found,) = doctest.DocTestFinder().find(
        home.ComponentTable.from_tensors, "from_tensors", home, globs=vars(home).copy()
    )
    assert doctest.DocTestRunner().run(found) == (0, 2)
