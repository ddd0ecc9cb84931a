"""What a stage's body runs is in its key: an edit to a function that ran, and is in no key, would serve stale results."""

from __future__ import annotations

import ast
import contextlib
import inspect
import sys
import threading
from functools import cache
from pathlib import Path

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from torch import nn

import tasks
from featcx_core.notebook.given import as_dataset
from featcx_core.specs import Numerics, SweepSpec
from featcx_core.store import code
from featcx_core.store.held import holding
from flows.complexity import task_complexity
from flows.grid import points
from flows.recipes import whole_run
from flows.settings import load_spec
from flows.sweep import comparison
from tasks import engine
from tasks.env import Env
from tasks.given import analysis, given_data, given_target

DRAWN = b'<svg width="1pt" height="1pt"/>'  # the strokes are matplotlib's own
ROOT = Path(tasks.__file__).parents[1]
FREE = (*code.PLUMBING, *code.RUNNING)
TINY = (
    "disentangler.blocks=1,2",
    "disentangler.wide_control=true",
    "disentangler.schedule.draws=640",
    "target.schedule.draws=640",
    "exemplary.schedule.draws=640",
    "reliability.schedule.draws=640",
    "reliability.cycle_steps=200",
    "components.rows=60",
    "analysis.bootstrap=100",
    "variants.pruned.schedule.draws=320",
    "variants.quantised.schedule.draws=320",
    "complexity.depths=0,3",
    "complexity.seeds=0,1",
    "complexity.blocks=1",
    "complexity.schedule.draws=320",
)


class Recorder:
    """Runs stages one after another, without Prefect, and writes down what each body calls: code objects by stage."""

    def __init__(self, store):
        self.env, self.ran, self.now = Env(store=str(store), run="recorded", device="cpu"), {}, set()

    def __call__(self, stage, scope="", **arguments):
        self.now = self.ran.setdefault(stage.name, set())
        return engine.execute(stage, arguments, self.env)

    def note(self, frame, event, argument):
        self.now.add(frame.f_code)

    @contextlib.contextmanager
    def around_the_body(self):
        """Takes the place of what the engine enters around every body."""
        threading.settrace(self.note)
        sys.settrace(self.note)
        try:
            yield
        finally:
            sys.settrace(None)
            threading.settrace(None)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Every stage of a run with variants and control, of its sweep's report and of the validity check."""
    spec = load_spec("digits", overrides=list(TINY))
    submit = Recorder(tmp_path_factory.mktemp("recorded"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "settled_allocator", submit.around_the_body)
        patch.setattr(FigureCanvasSVG, "print_svg", lambda _, out, **__: out.write(DRAWN))
        patch.setattr(FigureCanvasAgg, "print_png", lambda *_, **__: None)
        run = whole_run(submit, spec, Numerics())
        sweep = SweepSpec(base=spec)
        (name,) = grid = points(sweep)
        comparison(submit, sweep, grid, {name: run.networks["target"]}, {name: run.report}, {})
        task_complexity(submit, spec, Numerics())
        what_is_given(submit)
    return submit.ran


def what_is_given(submit):
    """The stages that take the place of data and target in a notebook."""
    images, labels = torch.randint(256, (150, 1, 8, 8), dtype=torch.uint8), torch.arange(150) % 2
    net = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.Flatten(), nn.Linear(64, 2))
    with holding({"images": as_dataset(images, labels, None, None), "net": net}):
        data = submit(given_data, images="images")
        layer = {"layer": "0", "pre_relu": False, "layout": None, "preprocess": "pool"}
        target = submit(given_target, data=data, images="images", net="net", **layer)
    submit(analysis, network={"target": target}, settings={}, notes={}, title="net", unseen=None)


@cache
def parsed(file):
    return ast.parse(file.read_text()).body


def definition(made_by):
    """The statement of our packages that a code object belongs to; None for others', and for what an import runs."""
    file = Path(made_by.co_filename)
    if not file.is_relative_to(ROOT) or not made_by.co_flags & inspect.CO_OPTIMIZED:  # a module, the body of a class
        return None
    module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    if module.split(".")[0] not in ("featcx_core", "tasks") or module.startswith(FREE):
        return None
    for statement in parsed(file):
        first = min([statement.lineno, *(mark.lineno for mark in getattr(statement, "decorator_list", []))])
        if first <= made_by.co_firstlineno <= statement.end_lineno:
            named = [n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
            return code.Definition(file, getattr(statement, "name", None) or named[0])
    raise AssertionError(f"{made_by} belongs to no statement of its file")


def test_every_stage_has_run(ran):
    assert ran.keys() == {name for name, stage in engine.STAGES.items() if stage.body.__module__.startswith("tasks.")}


def test_what_runs_is_in_the_key(ran):
    missed, seen = {}, set()
    for name, calls in ran.items():
        body = engine.STAGES[name].body
        taken = set(code.taken(Path(body.__code__.co_filename), body.__name__))
        found = {each for each in map(definition, calls) if each}
        assert code.Definition(Path(body.__code__.co_filename), body.__name__) in found
        seen |= found
        missed |= (
            {name: lost} if (lost := sorted(f"{d.file.relative_to(ROOT)} {d.name}" for d in found - taken)) else {}
        )
    assert len(seen) > 200
    assert missed == {}
