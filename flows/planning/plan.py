"""Looks at a recipe without running it: which stages the store has, why others are missing, what they would take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from featcx_core.specs import RunSpec, SweepSpec
from featcx_core.store.artifacts import ArtifactRef, Away, Store
from flows.analyze import analyze
from flows.job import Job, S
from flows.planning.calibration import Rates
from flows.planning.costs import load_of
from flows.planning.differences import nearest_difference
from flows.planning.loads import Load, Work
from flows.planning.schedule import side_by_side
from flows.running.submitting import Placed
from flows.sweep import sweep
from tasks.engine import Stage, checkpoint_folder, defaults
from tasks.env import Env, opened

State = Literal["hit", "miss", "open"]
STARTING = 9.0  # seconds until the workflow server answers, imports included
HANDLING = 0.04  # seconds a stage in the workflow, also one that is Cached
OPEN = "open:"  # what the digest of something not computed yet begins with


@dataclass
class Planned:
    """A stage of the DAG as the planner sees it.

    Attributes:
        scope: which of the recipe's networks it belongs to.
        state: hit; miss; or open, when its key depends on what is not computed yet.
        why: the difference from the nearest stored artifact, or what it waits for.
        inputs: places in the plan of the stages that it waits for.
        seconds: alone on the device; 0 for a hit.
        away: of a hit that is not here, bytes to fetch where a stage reads it; 0 of one that is here.
    """

    stage: str
    label: str
    scope: str
    state: State
    why: str
    load: Load
    inputs: tuple[int, ...]
    computes: bool
    seconds: float = 0.0
    away: int = 0


@dataclass
class Plan:
    """A recipe's stages and what they take on so many devices.

    Attributes:
        seconds: from start to end, with what can run side by side.
        device_seconds: of all stages, one at a time.
    """

    stages: list[Planned]
    rates: Rates
    places: int
    seconds: float = 0.0
    device_seconds: float = 0.0

    def count(self, state: State) -> int:
        """Stages in this state."""
        return sum(s.state == state for s in self.stages)

    @property
    def to_do(self) -> list[Planned]:
        """Stages that would be computed, unless an open one turns out to be stored."""
        return [s for s in self.stages if s.state != "hit"]

    def as_dict(self) -> dict[str, Any]:
        """In the form of `--json`."""
        todo = self.to_do
        return {
            "stages": [
                {
                    "stage": s.stage,
                    "label": s.label,
                    "state": s.state,
                    "why": s.why,
                    "flops": 0.0 if s.state == "hit" else s.load.flops,
                    "seconds": s.seconds,
                    "bytes": s.load.memory,
                    "away_bytes": s.away,
                }
                for s in self.stages
            ],
            "hit": self.count("hit"),
            "away": sum(s.away > 0 for s in self.stages),
            "away_bytes": sum(s.away for s in self.stages),
            "miss": self.count("miss"),
            "open": self.count("open"),
            "flops": sum(s.load.flops for s in todo),
            "seconds": self.seconds,
            "device_seconds": self.device_seconds,
            "memory_bytes": max((s.load.memory for s in todo), default=0.0),
            "disk_bytes": sum(s.load.disk for s in todo),
            "device": self.rates.device,
            "devices": self.places,
        }


class Planner:
    """A `submit` that only looks: its nodes are references, of which those to something not computed yet say so."""

    def __init__(self, store: Store) -> None:
        self.store, self.stages = store, list[Planned]()
        self.places: dict[str, int] = {}
        self._stored: dict[str, list[dict[str, Any]]] | None = None
        self._elsewhere: dict[str, list[dict[str, Any]]] = {}

    def __call__(self, stage: Stage, scope: str = "", **arguments: Any) -> ArtifactRef:
        arguments = defaults(stage.body) | arguments  # as Prefect hands them on, so that the keys are the same
        key = stage.key(arguments)
        waiting = [name for name, value in arguments.items() if any(is_open(ref) for ref in references(value))]
        found = None if waiting else self.store.find(stage.name, key, remember=False)
        ref = found or ArtifactRef(stage=stage.name, key=key, digest=f"{OPEN}{key}")
        if ref.path in self.places:
            return ref
        state: State = "open" if waiting else "miss" if found is None else "hit"
        away = self.store.away(found) if found else None
        why = (
            f"waits for {', '.join(waiting)}"
            if waiting
            else there(away)
            if found
            else self.reason(stage, key, arguments)
        )
        inputs = {self.places[r.path] for value in arguments.values() for r in references(value)}
        load = load_of(stage.name, {name: self._made(value) for name, value in arguments.items()})
        self.places[ref.path] = len(self.stages)
        label = stage.describe(arguments, scope)
        planned = Planned(stage.name, label, scope, state, why, load, tuple(sorted(inputs)), stage.computes)
        planned.away = away.bytes if away else 0
        self.stages.append(planned)
        return ref

    def reason(self, stage: Stage, key: str, arguments: dict[str, Any]) -> str:
        """Why an artifact whose key is known is not there."""
        resumes = ", resumes from a checkpoint" if checkpoint_folder(self.store, stage.name, key).exists() else ""
        if self._stored is None:
            self._stored = {}
            for manifest in self.store.manifests():
                self._stored.setdefault(manifest["stage"], []).append(manifest)
        if stage.name not in self._elsewhere:
            self._elsewhere[stage.name] = self.store.elsewhere(stage.name)
        known = [*self._elsewhere[stage.name], *self._stored.get(stage.name, [])]
        return nearest_difference(stage.key_parts(arguments), key, known) + resumes

    def _made(self, value: Any) -> Any:
        if isinstance(value, ArtifactRef):
            return self.stages[self.places[value.path]].load.made
        if isinstance(value, Mapping):
            return {name: self._made(entry) for name, entry in value.items()}
        return [self._made(entry) for entry in value] if isinstance(value, list) else value


def there(away: Away | None) -> str:
    """Where a hit is that is not here, and what fetching it takes, where a stage reads it."""
    if away is None:
        return ""
    took = "" if away.seconds is None else f", {away.seconds:.1f} s"
    return f"at {away.where}: {away.bytes / 1e6:.1f} MB{took}"


def is_open(ref: ArtifactRef) -> bool:
    """Whether a node stands for something that is not computed yet."""
    return ref.digest.startswith(OPEN)


def references(value: Any) -> Iterator[ArtifactRef]:
    """The artifacts in an argument."""
    if isinstance(value, ArtifactRef):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for entry in value.values() if isinstance(value, Mapping) else value:
            yield from references(entry)


def looked_at(job: Job[S], spec: S, store: Path) -> list[Planned]:
    """The stages of a flow, in the order in which they are submitted."""
    runtime = spec.runtime
    planner = Planner(opened(Env(store=str(store.absolute()), run="", remote=runtime.remote, read_only=True)))
    job.stages(planner, spec)
    return planner.stages


def job_of(spec: RunSpec | SweepSpec) -> Job[Any]:
    """The flow that a spec is of."""
    return analyze if isinstance(spec, RunSpec) else sweep


def plan(
    spec: RunSpec | SweepSpec,
    store: Path,
    devices: int | None = None,
    teraflops: float | None = None,
    anew: bool = False,
) -> Plan:
    """What a run or sweep would find and compute, and how long that takes.

    Args:
        spec: checked already.
        store: need not exist; nothing is written into it.
        devices: how many devices share the work; None for those that are here.
        teraflops: what each sustains, for devices that are not here; None times a few steps on this one.
        anew: forget what was timed before.
    """
    stages = looked_at(job_of(spec), spec, store)
    if teraflops is not None:
        return estimated(stages, Rates.taken_for_granted(teraflops), devices or 1)
    rates, here = rates_here(spec)
    count = count_of(here)
    if anew:
        rates = Rates(rates.device, rates.kind, rates.threads, path=rates.path)
    todo = [work for s in stages if s.state != "hit" for work in s.load.work]
    rates.calibrate(todo, here[0], count)
    return estimated(stages, rates, devices or count)


def estimate(job: Job[S], spec: S, store: Path) -> float | None:
    """Seconds that a flow takes by what was timed on this device before; None where nothing was."""
    rates, here = rates_here(spec)
    return estimated(looked_at(job, spec, store), rates, count_of(here)).seconds if rates.known else None


def count_of(places: list[str]) -> int:
    """Devices that compute as fast as one alone: each core, but a GPU once, since trainings that share it slow each other."""
    return len(places) if places[0] == "cpu" else len(set(places))


def rates_here(spec: Placed) -> tuple[Rates, list[str]]:
    """What is known of the device that a spec asks for, and the places that there are."""
    from tasks.devices import devices

    runtime = spec.runtime
    here = devices(runtime)
    return Rates.stored(here[0], runtime.threads), here


def estimated(stages: list[Planned], rates: Rates, places: int) -> Plan:
    """The plan on so many devices of these rates."""
    known: dict[Work, float] = {}
    for s in stages:
        if s.state != "hit":
            known |= {work: rates.seconds(work) for work in s.load.work if work not in known}
            s.seconds = s.load.seconds + sum(known[work] for work in s.load.work)
    beside = (rates.beside or 1.25) if rates.kind == "cpu" else 1.0
    fixed = STARTING + HANDLING * len(stages)
    wall = fixed + side_by_side(stages, places, beside)
    return Plan(stages, rates, places, wall, fixed + sum(s.seconds for s in stages))
