"""The DAG as recipes: which stage takes what from which. Read this to know what a run does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import BaseModel

from featcx_core.data.sources import source_files, split_sizes
from featcx_core.seeds import Seeds, derive_seed
from featcx_core.specs import Numerics, RunSpec, drawn, shared_schedule, starts_as_identity
from featcx_core.store.artifacts import FileRef
from featcx_core.store.usercode import own_code
from tasks import analyse, compare, pictures, present, reliability, train, variants
from tasks.engine import Stage

REPLICATED = 1000  # rows a split on which each chain is measured by itself: enough beside the spread of chains
UNTRAINED = 3  # nets whose mean is decodability's floor
Node = Any  # a future of an ArtifactRef, or what else stands for one


class Submit(Protocol):
    """Puts a stage into the DAG; the flow hands it to Prefect, the planner only looks at it."""

    def __call__(self, stage: Stage, scope: str = "", **arguments: Any) -> Node: ...


class Analysed(NamedTuple):
    """The artifacts of one analysed network, by stage; None where a stage does not apply."""

    target: Node
    components: Node
    significance: Node
    spread: Node
    effectiveness: Node
    substitution: Node
    pictures: Node
    images: Node
    reliability: Node | None
    decodability: Node | None
    wide_control: Node | None


def data_set(submit: Submit, spec: RunSpec) -> Node:
    """The data stage. A user's own folder enters the key by the bytes of its files."""
    kind, _, folder = spec.dataset.source.partition(":")
    files = source_files(spec.dataset)
    own = FileRef.of(folder, files) if files else None
    return submit(train.data, settings=spec.dataset.model_copy(update={"source": kind}), files=own)


def target_net(submit: Submit, spec: RunSpec, data: Node, numerics: Numerics) -> Node:
    """The net whose feature is analysed, trained on its own samples."""
    target = spec.target
    return submit(
        train.target,
        data=data,
        net=target.net,
        layer=target.layer,
        pre_relu=target.pre_relu,
        layout=target.layout,
        options=target.options,
        preprocess=target.preprocess,
        allow_chance=target.allow_chance,
        weights=_weights(target.checkpoint),
        code=_custom_code(target.net),
        samples=target.samples,
        subset_seed=Seeds(spec).subset,
        seed=Seeds(spec).target,
        schedule=target.schedule,
        numerics=numerics,
    )


class Chains(NamedTuple):
    """Chains of disentanglers, each a net an order.

    Attributes:
        nets: chain by chain.
        continued: of each chain, beside each order above the first, the net before it trained on as long; or nothing.
    """

    nets: list[list[Node]]
    continued: list[list[Node]]


def disentangle(
    submit: Submit,
    spec: RunSpec,
    data: Node,
    target: Node,
    numerics: Numerics,
    scope: str,
    images: str = "pool",
    continuation: bool = False,
) -> Chains:
    """Chains of disentanglers with seeds of their own, each depth warm-started from the one before.

    A net that is trained on beside a deeper one has its start, its batches and its schedule; only its blocks stay.
    """
    settings, found = spec.disentangler, Chains([], [])

    def trained(k: int, i: int, blocks: int, previous: Node | None, word: str = "") -> Node:
        schedule = shared_schedule(settings, i, settings.chains)
        return submit(
            train.disentangler,
            f"{in_chain(scope, k)} {word}".strip(),
            data=data,
            target=target,
            previous=previous,
            blocks=blocks,
            width=settings.width,
            identity=starts_as_identity(settings, schedule),
            seed=Seeds(spec).disentangler(settings.blocks[i], k),
            schedule=schedule,
            numerics=numerics,
            images=images,
        )

    for k in range(settings.chains):
        chain: list[Node] = []
        for i, blocks in enumerate(settings.blocks):
            chain.append(trained(k, i, blocks, chain[-1] if chain else None))
        found.nets.append(chain)
    for k, chain in enumerate(found.nets):
        before = range(1, len(chain)) if continuation else ()
        found.continued.append([trained(k, i, settings.blocks[i - 1], chain[i - 1], "continued") for i in before])
    return found


def share(
    submit: Submit, spec: RunSpec, data: Node, target: Node, numerics: Numerics, scope: str, judged: bool
) -> tuple[Chains, Node, list[Node]]:
    """(the chains of a feature, what they share, what those of its null targets do).

    A null target is a chain's net of the lowest order: what the same protocol, with seeds of its own, finds beyond that order
    there is what this budget and width call complex of something that is not.

    Args:
        judged: train the shallower nets on, and take null targets apart, so that orders are resolved or not.
    """
    settings = spec.disentangler
    found = disentangle(submit, spec, data, target, numerics, scope, continuation=judged)
    shared = moments_of(submit, spec, data, target, found, scope)
    if not judged or len(settings.blocks) == 1 or settings.chains == 1:
        return found, shared, []
    nulls = []
    for k in range(settings.nulls):
        alone = settings.model_copy(update={"nulls": 0})
        own = spec.model_copy(update={"seed": derive_seed(spec.seed, "null", k), "disentangler": alone})
        named = f"null {k + 1}" if k else "null"
        nulls.append(share(submit, own, data, found.nets[k][0], numerics, named, judged)[1])
    return found, shared, nulls


def moments_of(submit: Submit, spec: RunSpec, data: Node, target: Node, chains: Chains, scope: str) -> Node:
    """Second moments of all that chains made of a feature."""
    return submit(
        analyse.chains,
        scope,
        data=data,
        target=target,
        disentanglers=chains.nets,
        continued=chains.continued,
        rows=spec.components.rows,
        rows_seed=Seeds(spec).rows,
        **bootstrap(spec),
    )


def wide(submit: Submit, spec: RunSpec, data: Node, target: Node, numerics: Numerics, shared: Node) -> Node:
    """The second order at twice the width beside the highest order of the chains, by the same protocol."""
    own = spec.disentangler.model_copy(
        update={"blocks": spec.disentangler.blocks[:2], "width": 2 * spec.disentangler.width}
    )
    _, wider, _ = share(
        submit, spec.model_copy(update={"disentangler": own}), data, target, numerics, "wide", judged=False
    )
    return submit(analyse.wide_control, chains=shared, wide=wider, width=own.width, settings=spec.analysis)


def variant_nets(
    submit: Submit, spec: RunSpec, data: Node, target: Node, exemplary: list[Node] | None, numerics: Numerics
) -> dict[str, Node]:
    """Networks made from the target, by name. The student starts as the target did: only its loss differs."""
    wanted, seeds, nets = spec.variants, Seeds(spec), dict[str, Node]()
    common = {"data": data, "target": target, "numerics": numerics}
    if wanted.distilled is not None and exemplary is not None:
        nets["distilled"] = submit(
            variants.distilled,
            teacher=teacher(submit, spec, data, exemplary, numerics),
            settings=wanted.distilled,
            seed=seeds.target,
            schedule=spec.target.schedule,
            **common,
        )
    for stage, settings, seed in (
        (variants.pruned, wanted.pruned, seeds.pruned),
        (variants.quantised, wanted.quantised, seeds.quantised),
    ):
        if settings is not None:
            nets[stage.name] = submit(stage, settings=settings, seed=seed, **common)
    return nets


def control(submit: Submit, spec: RunSpec, data: Node, target: Node, numerics: Numerics) -> Node:
    """Substitution by disentanglers that saw only the target's own samples, as the target did."""
    chains = disentangle(submit, spec, data, target, numerics, "control", images="seen")
    parts = take_apart(submit, spec, data, target, chains, "control", splits=("validation", "test"))
    return submit(analyse.substitution, "control", components=parts, target=target, **bootstrap(spec))


def bootstrap(spec: RunSpec) -> dict[str, Any]:
    """Settings and seed of every interval: the same for all networks on a data set, so that their draws pair."""
    return {"settings": spec.analysis, "seed": Seeds(spec).bootstrap}


def exemplary_nets(submit: Submit, spec: RunSpec, data: Node, numerics: Numerics) -> list[Node]:
    """A and B; the same for every target and seed."""
    paths = spec.exemplary.checkpoints or (None, None)
    return [
        strong_net(submit, spec, data, numerics, "exemplary", seed, path)
        for seed, path in zip(spec.exemplary.seeds, paths, strict=True)
    ]


def teacher(submit: Submit, spec: RunSpec, data: Node, exemplary: list[Node], numerics: Numerics) -> Node:
    """Who teaches the student: a third net as strong as A and B, since these judge how decodable its features are.

    Where A and B were brought, and no third one, it is A.
    """
    if spec.exemplary.checkpoints:
        return exemplary[0]
    return strong_net(submit, spec, data, numerics, "teacher", Seeds(spec).teacher, None)


def strong_net(
    submit: Submit, spec: RunSpec, data: Node, numerics: Numerics, scope: str, seed: int, path: str | None
) -> Node:
    """A net trained on the whole pool, or brought."""
    from featcx_core.nets.named import fresh_options

    settings, own = spec.exemplary, spec.target
    same = settings.net is None or settings.net == own.net
    return submit(
        train.target,
        scope,
        data=data,
        net=settings.net or own.net,
        layer=own.layer if same else None,
        pre_relu=own.pre_relu if same else None,
        layout=own.layout if same else None,
        options=fresh_options(own.options) if same else {},
        preprocess=own.preprocess if same else "auto",
        allow_chance=own.allow_chance,
        weights=_weights(path),
        code=_custom_code(settings.net or own.net),
        samples=None,
        subset_seed=0,
        seed=seed,
        schedule=settings.schedule,
        numerics=numerics,
    )


def reliable_trunks(
    submit: Submit, spec: RunSpec, data: Node, target: Node, exemplary: list[Node], numerics: Numerics, scope: str
) -> tuple[list[list[Node]], list[list[Node]]]:
    """(trunks, cycles of maps back), chain by chain over the depths, as many chains as of disentanglers."""
    settings, count = spec.reliability, spec.disentangler.chains
    trunks, cycles = [list[Node]() for _ in range(count)], [list[Node]() for _ in range(count)]
    for k in range(count):
        named = in_chain(scope, k)
        for i, blocks in enumerate(spec.disentangler.blocks):
            seed = Seeds(spec).trunk(blocks, k)
            schedule = shared_schedule(settings, i, count)
            trunk = submit(
                reliability.trunk,
                named,
                data=data,
                target=target,
                exemplary=exemplary,
                previous=trunks[k][-1] if i else None,
                blocks=blocks,
                width=spec.disentangler.width,
                identity=starts_as_identity(spec.disentangler, schedule),
                seed=seed,
                schedule=schedule,
                numerics=numerics,
            )
            cycle = submit(
                reliability.cycle,
                named,
                data=data,
                trunk=trunk,
                previous=cycles[k][-1] if i else None,
                blocks=blocks,
                steps=settings.cycle_steps,
                rounds=settings.rounds,
                rows=spec.components.rows,
                rows_seed=Seeds(spec).rows,
                seed=seed,
            )
            trunks[k].append(trunk)
            cycles[k].append(cycle)
    return trunks, cycles


def analyse_target(
    submit: Submit,
    spec: RunSpec,
    data: Node,
    target: Node,
    exemplary: list[Node] | None,
    numerics: Numerics,
    scope: str = "",
    sizes: Mapping[str, int] | None = None,
    floor: list[Node] | None = None,
) -> tuple[Analysed, list[Node]]:
    """The sub-DAG that every network goes through: disentangle, extract, then fan out the analyses; and its floor.

    Args:
        sizes: images of 'seen' and 'test'; None for those of the spec's data set.
        floor: what null targets show, of networks that are held against the target; None for the target itself, which alone
            is asked what depth adds over training: of each network it would cost half of its disentangling again.
    """
    sizes = split_sizes(spec.dataset, spec.target.samples) if sizes is None else sizes
    judged = spec.disentangler.continuation and floor is None
    chains, shared, own = share(submit, spec, data, target, numerics, scope, judged)
    nulls = own if floor is None else floor
    components = take_apart(submit, spec, data, target, chains, scope)
    common = bootstrap(spec)
    significance = significance_of(submit, spec, components, shared, nulls, scope)
    spread = submit(
        analyse.spread,
        scope,
        data=data,
        target=target,
        disentanglers=chains.nets,
        exemplary=exemplary,
        ridges=spec.reliability.ridges,
        rows=REPLICATED if spec.components.rows == "all" else min(REPLICATED, spec.components.rows),
        rows_seed=Seeds(spec).rows,
    )
    shards = {
        split: [
            submit(analyse.shapley, scope, components=components, target=target, split=split, part=part)
            for part in range(parts(spec, sizes[split]))
        ]
        for split in ("seen", "test")
    }
    effectiveness = submit(
        analyse.effectiveness, scope, components=components, significance=significance, **shards, **common
    )
    substitution = submit(analyse.substitution, scope, components=components, target=target, **common)
    shown = submit(pictures.pictures, scope, data=data, components=components, target=target)
    single = submit(
        analyse.images,
        scope,
        data=data,
        components=components,
        significance=significance,
        substitution=substitution,
        **common,
    )
    reliable = decodable = None
    if exemplary is not None:
        trunks, cycles = reliable_trunks(submit, spec, data, target, exemplary, numerics, scope)
        reliable = submit(
            reliability.reliability,
            scope,
            data=data,
            components=components,
            chains=shared,
            trunks=trunks,
            cycles=cycles,
            rounds=spec.reliability.rounds_read,
            **common,
        )
        decodable = submit(
            reliability.decodability,
            scope,
            data=data,
            components=components,
            exemplary=exemplary,
            ridges=spec.reliability.ridges,
            floors=UNTRAINED,
            floor_seed=Seeds(spec).floor,
            **common,
        )
    wider = None
    if spec.disentangler.wide_control and floor is None:
        wider = wide(submit, spec, data, target, numerics, shared)
    found = Analysed(
        target, components, significance, spread, effectiveness, substitution, shown, single, reliable, decodable, wider
    )
    return found, nulls


class Recipe(NamedTuple):
    """Everything one run does: each analysed network's artifacts by stage, and the report on all.

    The target's artifacts also hold `control` and `comparison`, where they apply. `first` is what there is of the target
    alone, with a report of its own, long before variants and control; `glance` what can be told long before that.
    """

    networks: dict[str, dict[str, Node | None]]
    report: Node
    glance: dict[str, Node]
    first: Recipe | None = None


def whole_run(submit: Submit, spec: RunSpec, numerics: Numerics, glanced: bool = True) -> Recipe:
    """The DAG of one run, in the order in which a reader wants it: of stages that wait for a device, the first goes ahead.

    `glanced`: somebody waits for what can be told early.
    """
    submit = once(submit)
    data = data_set(submit, spec)
    target = target_net(submit, spec, data, numerics)
    look = glance(submit, spec, data, target, numerics) if glanced else {}
    exemplary = exemplary_nets(submit, spec, data, numerics) if spec.reliability.enabled else None
    analysed, floor = analyse_target(submit, spec, data, target, exemplary, numerics)
    networks = {"target": analysed._asdict()}
    more = wanted_besides(spec)
    figures = {"target": figures_of(submit, spec, "target", networks["target"])}
    to_come = {"to come": f"To come: {more}."}
    first = Recipe(networks, report(submit, spec, networks, figures, to_come), look) if more else None
    for name, net in variant_nets(submit, spec, data, target, exemplary, numerics).items():
        analysed, _ = analyse_target(submit, spec, data, net, exemplary, numerics, name, floor=floor)
        networks = networks | {name: analysed._asdict()}
        figures = figures | {name: figures_of(submit, spec, name, networks[name])}
    alone = control(submit, spec, data, target, numerics) if spec.substitution.control else None
    comparison = submit(compare.comparison, networks=networks, settings=spec.analysis) if len(networks) > 1 else None
    networks = networks | {"target": networks["target"] | {"comparison": comparison, "control": alone}}
    return Recipe(networks, report(submit, spec, networks, figures), look, first)


def glance(submit: Submit, spec: RunSpec, data: Node, target: Node, numerics: Numerics) -> dict[str, Node]:
    """What is known as soon as the chains are trained: what they share of each order, and what the head makes of Φ.

    Which orders are resolved is not: for that nets are trained on and null targets taken apart.
    """
    scope = "glance" if spec.disentangler.continuation else ""
    chains = disentangle(submit, spec, data, target, numerics, "")
    shared = moments_of(submit, spec, data, target, chains, scope)
    components = take_apart(submit, spec, data, target, chains)
    return {
        "target": target,
        "significance": significance_of(submit, spec, components, shared, [], scope),
        "substitution": submit(analyse.substitution, components=components, target=target, **bootstrap(spec)),
    }


def take_apart(
    submit: Submit,
    spec: RunSpec,
    data: Node,
    target: Node,
    chains: Chains,
    scope: str = "",
    **splits: tuple[Literal["validation", "test"], ...],
) -> Node:
    """The components of a feature, as Parquet."""
    return submit(
        analyse.components,
        scope,
        data=data,
        target=target,
        disentanglers=chains.nets,
        settings=spec.components,
        seed=Seeds(spec).rows,
        **splits,
    )


def significance_of(
    submit: Submit, spec: RunSpec, components: Node, shared: Node, nulls: list[Node], scope: str = ""
) -> Node:
    """The significance of every order by what the chains share of it, held against null targets where there are any."""
    return submit(
        analyse.significance,
        scope,
        components=components,
        chains=shared,
        nulls=nulls,
        draws=drawn(spec.disentangler),
        **bootstrap(spec),
    )


def figures_of(submit: Submit, spec: RunSpec, network: str, nodes: dict[str, Node | None]) -> Node:
    """One network's figures, drawn while others are still computed."""
    shown: dict[str, Any] = {
        "analysis": {"confidence": spec.analysis.confidence},
        "pictures": {"limits": spec.pictures.limits},
    }
    scope = "" if network == "target" else network
    return submit(present.figures, scope, network=network, nodes=nodes, spec=shown, notes=notes(spec))


def report(
    submit: Submit,
    spec: RunSpec,
    networks: dict[str, dict[str, Node | None]],
    figures: dict[str, Node],
    told_too: dict[str, str] | None = None,
) -> Node:
    """The page on these networks."""
    said = notes(spec) | (told_too or {})
    return submit(present.report, networks=networks, figures=figures, spec=told(spec, {"complexity"}), notes=said)


def wanted_besides(spec: RunSpec) -> str:
    """What is analysed besides the target: 'pruned, quantised, control'; empty for nothing."""
    names = ("distilled", "pruned", "quantised")
    there = [name for name in names if getattr(spec.variants, name) is not None]
    if not spec.reliability.enabled and "distilled" in there:
        there.remove("distilled")
    return ", ".join([*there, *(["control"] if spec.substitution.control else [])])


def whole_sweep(submit: Submit, points: Mapping[str, tuple[RunSpec, Numerics]]) -> dict[str, Recipe]:
    """The DAGs of many runs in one: what points share, such as data and exemplary nets, appears once."""
    shared = once(submit)
    for spec, numerics in points.values():  # first, so that no point's name is on them
        data = data_set(shared, spec)
        if spec.reliability.enabled:
            exemplary_nets(shared, spec, data, numerics)
    return {
        name: whole_run(under(name, shared), spec, numerics, glanced=False) for name, (spec, numerics) in points.items()
    }


def once(submit: Submit) -> Submit:
    """Submits a stage only the first time that it is asked for with the same arguments."""
    nodes: dict[str, Node] = {}

    def identity(value: Any) -> str:
        if isinstance(value, Mapping):
            return f"{{{', '.join(f'{name}: {identity(entry)}' for name, entry in value.items())}}}"
        if isinstance(value, list | tuple):
            return f"[{', '.join(map(identity, value))}]"
        plain = value is None or isinstance(value, str | int | float | BaseModel)
        return repr(value) if plain else f"node {id(value)}"

    def submit_once(stage: Stage, scope: str = "", **arguments: Any) -> Node:
        key = f"{stage.name} {identity(arguments)}"
        if key not in nodes:
            nodes[key] = submit(stage, scope, **arguments)
        return nodes[key]

    return submit_once


def under(name: str, submit: Submit) -> Submit:
    """Submits with `name` before each stage's scope."""
    return lambda stage, scope="", **arguments: submit(stage, f"{name} {scope}".strip(), **arguments)


def told(spec: RunSpec, without: set[str]) -> dict[str, Any]:
    """The settings that a report shows, which are in its key: so neither paths nor what changes no result."""
    paths: dict[str, Any] = {"target": {"checkpoint"}, "exemplary": {"checkpoints"}}
    values = spec.model_dump(mode="json", exclude=paths | dict.fromkeys({"runtime", *without}, True))
    values["dataset"]["source"] = spec.dataset.source.partition(":")[0]
    return values


def notes(spec: RunSpec) -> dict[str, str]:
    """Why a run lacks something."""
    if spec.reliability.enabled:
        return {}
    off = "needs exemplary nets, which reliability.enabled = false leaves out."
    missing = {"reliability": f"Reliability {off}", "decodability": f"Decodability {off}"}
    return missing | ({"distilled": f"Distillation {off}"} if spec.variants.distilled else {})


def parts(spec: RunSpec, rows: int) -> int:
    """Parquet parts of a split of so many images, known before anything is computed."""
    if spec.components.rows != "all":
        rows = min(rows, spec.components.rows)
    return math.ceil(rows / spec.components.part_rows)


def in_chain(scope: str, chain: int) -> str:
    """The scope of a chain's stages, for the reader."""
    return f"{scope} chain {chain + 1}".strip() if chain else scope


def _custom_code(net: str) -> dict[str, str] | None:
    """What a module:function net is made of: the text of the user's modules belongs in the key as the package's own does."""
    module, _, function = net.partition(":")
    return own_code(module) if function and module not in ("torchvision", "timm") else None


def _weights(path: str | None) -> FileRef | None:
    from pathlib import Path

    return FileRef.of(path, [Path(path)]) if path else None


def count_stages(recipe: Callable[[Submit], Any]) -> int:
    """How many stages a recipe has."""
    stages = list[str]()

    def submit(stage: Stage, scope: str = "", **arguments: Any) -> str:
        stages.append(stage.name)
        return f"node {len(stages)}"

    recipe(submit)
    return len(stages)
