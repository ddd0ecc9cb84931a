"""The flow `analyze`: one target, end to end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from featcx_core.specs import RunSpec
from featcx_core.store.artifacts import ArtifactRef, Store
from flows.grid import run_name
from flows.job import Job
from flows.recipes import Node, Recipe, Submit, notes, whole_run
from flows.results import network_results
from flows.running.preflight import check, numerics_for
from flows.running.submitting import finished, has_computed, is_there, settled, submitter
from flows.showing import show_analysis
from tasks.env import Env, opened
from tasks.progress import tell_early

Refs = dict[str, dict[str, ArtifactRef | None]]


def stages(submit: Submit, spec: RunSpec) -> Recipe:
    """The DAG: trains, disentangles, extracts, fans out the analyses, reports."""
    return whole_run(submit, spec, numerics_for(spec))


def run_analysis(spec: RunSpec, env: Env) -> dict[str, Any]:
    """The body of the flow; whatever the store holds is not computed again."""
    began, submit, place = time.monotonic(), submitter(env), opened(env)
    recipe = whole_run(submit, spec, numerics_for(spec), glanced=is_glanced(spec, place))

    def found(of: Recipe) -> dict[str, Any]:
        refs = {name: results_of(nodes) for name, nodes in of.networks.items()}
        return analysed(spec, place, refs, of.report.result(), {"stages": submit.counts()})

    def tell(name: str, nodes: list[Node], results: Callable[[], dict[str, Any]]) -> None:
        """Of what is Cached as a whole the end is there at once, and nothing is told early."""
        finished(nodes)
        done = place.can_be_written and all(node.state.is_completed() for node in nodes)
        if done and has_computed(submit, recipe.report):
            tell_early(env, name, results() | {"seconds": round(time.monotonic() - began, 2)})

    if recipe.glance:
        tell(
            "glance",
            [*recipe.glance.values()],
            lambda: glanced(spec, place, results_of(recipe.glance), submit.counts()),
        )
    if (first := recipe.first) is not None:
        tell("first", [first.report], lambda: found(first))
    settled(submit.futures)
    return found(recipe)


def is_glanced(spec: RunSpec, place: Store) -> bool:
    """Whether a run begins with a glance: not where all but that is there, as of a sweep's point, or none can be written."""
    numerics = numerics_for(spec)

    def there(glanced: bool) -> bool:
        return is_there(lambda find: whole_run(find, spec, numerics, glanced), place.root)

    return there(glanced=True) or (place.can_be_written and not there(glanced=False))


def results_of(nodes: Mapping[str, Node | None]) -> dict[str, ArtifactRef | None]:
    """The references behind finished nodes."""
    return {stage: None if node is None else node.result() for stage, node in nodes.items()}


def glanced(spec: RunSpec, place: Store, refs: dict[str, ArtifactRef | None], counts: dict[str, int]) -> dict[str, Any]:
    """What is known before nets are trained on and null targets taken apart, in the form of `--json`, with no report yet."""
    return {"spec": spec.model_dump(mode="json"), "report": None, "stages": counts, **network_results(place, refs)}


def analysed(spec: RunSpec, place: Store, refs: Refs, report: ArtifactRef, effort: dict[str, Any]) -> dict[str, Any]:
    """One analysed target and its variants in the form of `--json`; `effort` holds what it took."""
    networks = {name: network_results(place, nodes) for name, nodes in refs.items()}
    main, page = networks.pop("target"), place.path(report)
    artifacts = {stage: str(place.place(ref)) for stage, ref in refs["target"].items() if ref is not None}
    return {
        "spec": spec.model_dump(mode="json"),
        "report": str(page / "report.html"),
        "store": str(place.root),
        **effort,
        **main,
        "variants": {name: networks.get(name) for name in ("distilled", "pruned", "quantised")},
        "notes": notes(spec),
        "artifacts": artifacts | {"report": str(page)},
    }


analyze: Job[RunSpec] = Job("analyze", run_name, check, stages, run_analysis, show_analysis)
