"""The flow `sweep`: many targets in one DAG, and what changes from one to the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from featcx_core.errors import InputError
from featcx_core.specs import RunSpec, SweepSpec
from featcx_core.store.artifacts import ArtifactRef, Store
from flows.analyze import Refs, analysed
from flows.grid import further, in_words, points, short
from flows.job import Job
from flows.recipes import Recipe, Submit, told, whole_sweep
from flows.running.preflight import check, numerics_for
from flows.running.submitting import finished, submitter
from flows.showing import show_sweep
from tasks import present
from tasks.env import Env, opened


class Swept(NamedTuple):
    """What a sweep left: the artifacts of each finished point, the reason of each failed one, the report on all.

    Attributes:
        effort: stages computed and found for each point, and under '' for all.
    """

    refs: dict[str, Refs]
    reports: dict[str, ArtifactRef]
    failed: dict[str, str]
    report: ArtifactRef
    effort: dict[str, dict[str, int]]


def stages(submit: Submit, spec: SweepSpec) -> Any:
    """The DAG: every point, and what compares them."""
    grid = points(spec)
    made = recipes(submit, grid)
    targets = {name: found.networks["target"] for name, found in made.items()}
    return comparison(submit, spec, grid, targets, {name: found.report for name, found in made.items()}, {})


def recipes(submit: Submit, grid: dict[str, RunSpec]) -> dict[str, Recipe]:
    """The points' DAGs in one."""
    return whole_sweep(submit, {name: (point, numerics_for(point)) for name, point in grid.items()})


def run_sweep(spec: SweepSpec, env: Env) -> Swept:
    """Submits the points, waits for all, then compares those that finished: a failed one stops no other.

    Raises:
        Exception: what the first point failed of, when none finished.
    """
    submit, grid = submitter(env), points(spec)
    made = recipes(submit, grid)
    finished(submit.futures)
    errors = {name: error for name, recipe in made.items() if (error := submit.failure(recipe.report))}
    if len(errors) == len(grid):
        raise next(iter(errors.values()))
    refs: dict[str, Refs] = {
        point: {
            network: {stage: None if node is None else node.result() for stage, node in nodes.items()}
            for network, nodes in made[point].networks.items()
        }
        for point in grid
        if point not in errors
    }
    reports = {point: made[point].report.result() for point in refs}
    failed = {point: f"{type(error).__name__}: {error}" for point, error in errors.items()}
    report = comparison(submit, spec, grid, {point: nodes["target"] for point, nodes in refs.items()}, reports, failed)
    found = report.result()
    return Swept(
        refs, reports, failed, found, {name: submit.counts(f"{name} " if name else "") for name in ("", *refs)}
    )


def comparison(
    submit: Submit,
    spec: SweepSpec,
    grid: dict[str, RunSpec],
    targets: dict[str, Any],
    reports: dict[str, Any],
    failed: dict[str, str],
) -> Any:
    """The last stage: the tidy table over all points, and the report on it."""
    fields = further(spec)
    columns = {path: column([read(point, path) for point in grid.values()]) for path in fields}
    rest = zip(*columns.values(), strict=True) if columns else ((),) * len(grid)
    about = {
        name: {"arch": point.target.net, "samples": point.target.samples, "seed": point.seed}
        | dict(zip(columns, values, strict=True))
        for (name, point), values in zip(grid.items(), rest, strict=True)
    }
    swept = spec.model_dump(mode="json", include={"sizes", "archs", "seeds"})
    over = {path: list(dict.fromkeys(values)) for path, values in columns.items()}
    return submit(
        present.sweep_report,
        targets=targets,
        reports=reports,
        links={name: f"../../{getattr(ref, 'path', '')}/report.html" for name, ref in reports.items()},
        about={name: about[name] for name in targets},
        fields=list(fields),
        failed=failed,
        spec=told(spec.base, {"complexity"}) | {"sweep": swept | {"over": over}},
    )


def read(spec: RunSpec, path: str) -> Any:
    """The value of a dotted path."""
    value: Any = spec.model_dump(mode="json")
    for name in path.split("."):
        value = value[name]
    return value


def column(values: list[Any]) -> list[Any]:
    """A field's values as the table holds them: numbers where all are, else text without folders."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return values if numbers else [in_words(value) for value in values]


def sweep_name(spec: SweepSpec) -> str:
    """What runs: resnet8+resnet20 n200-500 s0-2 …, and how many points."""
    grid = points(spec)
    if len(grid) == 1:
        return next(iter(grid))
    specs = grid.values()
    nets = dict.fromkeys(point.target.net for point in specs)
    sizes, seeds = sorted({point.target.samples for point in specs}), sorted({point.seed for point in specs})
    words = ["+".join(nets), f"n{'+'.join(map(str, sizes))}", f"s{'+'.join(map(str, seeds))}"]
    fields = further(spec)
    words += [f"{short(path, fields)}={'+'.join(map(in_words, values))}" for path, values in fields.items()]
    return f"{'-'.join(words)} ({len(grid)} targets)".replace(":", ".")


def swept(spec: SweepSpec, env: Env, done: Swept) -> dict[str, Any]:
    """A finished sweep in the form of `--json`."""
    place, grid = opened(env), points(spec)
    folder = place.path(done.report)
    return {
        "spec": spec.model_dump(mode="json"),
        "points": [
            {"name": name}
            | analysed(
                grid[name],
                place,
                refs,
                done.reports[name],
                {"seconds": _seconds(place, refs), "stages": done.effort[name]},
            )
            for name, refs in done.refs.items()
        ],
        "failed": done.failed,
        "table": str(folder / "tables" / "sweep.parquet"),
        "report": str(folder / "report.html"),
        "store": str(place.root),
        "stages": done.effort[""],
    }


def check_sweep(spec: SweepSpec, store: Path) -> None:
    """Whether every point can run here.

    Raises:
        InputError: names the point and what to do.
    """
    for name, point in points(spec).items():
        try:
            check(point, store)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error


def _seconds(place: Store, refs: Refs) -> float:
    """Computing time of a point's own artifacts, when they were made."""
    own = [place.manifest(ref) for nodes in refs.values() for ref in nodes.values() if ref is not None]
    return round(sum(manifest["seconds"] for manifest in own), 2)


sweep: Job[SweepSpec] = Job(
    "sweep", sweep_name, check_sweep, stages, lambda spec, env: swept(spec, env, run_sweep(spec, env)), show_sweep
)
