"""What each stage of the DAG costs, from its arguments alone: nothing is downloaded, read or computed.

Figures in seconds that stand here were measured on one core of an AMD EPYC (Zen 5); they are small beside the trainings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from featcx_core.data.sources import image_shape, pool_counts, split_sizes
from featcx_core.nets.named import fresh_options
from featcx_core.specs import AnalysisSpec, DatasetSpec, Numerics, ScheduleSpec
from flows.planning.cost import Count, Net, Step, feature_grid, feature_shape, parameters
from flows.planning.loads import (
    DRAWING,
    SETUP,
    Images,
    Load,
    Table,
    Trained,
    Work,
    bootstrapped,
    chosen,
    covariance,
    forward,
    load,
    training,
)


def load_of(stage: str, arguments: dict[str, Any]) -> Load:
    """What a stage takes, given its arguments with each input's `made` in the input's place."""
    function = LOADS.get(stage)
    return Load(seconds=2.0) if function is None else function(**arguments)


def data(settings: DatasetSpec, files: Any) -> Load:
    """Decoding all images; 0.2 ms for one of 32×32 pixels."""
    spec = settings if files is None else settings.model_copy(update={"source": f"{settings.source}:{files.path}"})
    counts = pool_counts(spec)
    sizes = {name: n for name, n in split_sizes(spec, len(counts)).items() if name != "seen"}
    images = Images(image_shape(spec), len(counts), sizes)
    each = 2e-4 * math.prod(images.shape[1:]) / 1024 if files else 2e-5  # decoding, by pixels
    return Load((), 0.3 + each * sum(sizes.values()), 2 * images.bytes, images.bytes, images)


def target(data: Images, net: str, layer: Any, pre_relu: Any, options: Any, layout: Any, **rest: Any) -> Load:
    """A target or exemplary net; `rest` holds its samples, weights, schedule and numerics."""
    config = {"layer": layer, "pre_relu": pre_relu, "options": fresh_options(options), "layout": layout}
    described = Net.of("target", net=net, in_shape=data.shape, classes=data.classes, **config)
    samples, schedule, numerics = rest["samples"], rest["schedule"], rest["numerics"]
    seen = data.sizes["pool"] if samples is None else samples
    return trained_target(data, described, seen, None if rest["weights"] else schedule, numerics, ())


def trained_target(
    data: Images, net: Net, seen: int, schedule: ScheduleSpec | None, numerics: Numerics, teachers: tuple[Net, ...]
) -> Load:
    """A target's training and its scores on the images that it saw and on the test images."""
    made = Trained(net, net.part("feature"), feature_shape(net), seen)
    scores = forward(net, data.shape, seen + data.sizes["test"], 250)
    work = () if schedule is None else (training(net, teachers, data.shape, schedule, numerics),)
    return load((*work, scores), data, made, disk=4.0 * parameters(net))


def distilled(data: Images, target: Trained, teacher: Trained, schedule: ScheduleSpec, numerics: Any, **_: Any) -> Load:
    """A student of the target's net with a teacher."""
    return trained_target(data, target.net, target.seen, schedule, numerics, (teacher.net,))


def compressed(data: Images, target: Trained, settings: Any, numerics: Numerics, **_: Any) -> Load:
    """Fine-tuning of the target, in as many rounds as its settings have."""
    made = trained_target(data, target.net, target.seen, None, numerics, ())
    fine = training(target.net, (), data.shape, settings.schedule, numerics, getattr(settings, "rounds", 1))
    return load((fine, *made.work), data, made.made, disk=made.disk)


def taken_apart(target: Trained | Net) -> Trained:
    """What is disentangled: a target, or a disentangler whose output is the feature."""
    return target if isinstance(target, Trained) else Trained(target, target, tuple(target.settings["out_shape"]), 0)


def disentangler(
    data: Images, target: Trained | Net, blocks: int, width: int, schedule: ScheduleSpec, numerics: Numerics, **_: Any
) -> Load:
    """Training of Φ at one depth."""
    target = taken_apart(target)
    shapes = {"in_shape": data.shape, "out_shape": target.shape, "grid": feature_grid(target.net)}
    net = Net.of("disentangler", blocks=blocks, width=width, **shapes)
    work = training(net, (target.feature,), data.shape, schedule, numerics)
    return load((work,), data, net, disk=4.0 * parameters(net))


def trunk(
    data: Images,
    target: Trained,
    exemplary: list[Trained],
    blocks: int,
    width: int,
    schedule: ScheduleSpec,
    numerics: Numerics,
    **_: Any,
) -> Load:
    """Training of ψ and g_k at one depth."""
    nets = (target, *exemplary)
    shapes = {"out_shapes": [n.shape for n in nets], "grid": feature_grid(target.net)}
    net = Net.of("trunk", blocks=blocks, in_shape=data.shape, width=width, **shapes)
    work = training(net, tuple(n.feature for n in nets), data.shape, schedule, numerics)
    return load((work,), data, net, disk=4.0 * parameters(net))


def cycle(data: Images, trunk: Net, steps: int, rounds: int, rows: Any, **_: Any) -> Load:
    """The second moment of ψ, and the steps of h_k on C×C matrices."""
    shapes = trunk.settings["out_shapes"]
    c, widest, nets = shapes[0][0], max(shape[0] for shape in shapes), len(shapes)
    powers = sum(max(0, r.bit_length() - 1 + r.bit_count() - 1) for r in range(rounds)) / rounds
    flops = 2.0 * c**3 * (powers + 2 + nets) + 2.0 * nets * 2 * c * c * widest
    kernels = 8 + powers / 2  # plain operations without gradients take half of one in a net: 166 µs a step with C = 64
    step = Count(flops, 4.0 * c * c * (powers + 6 + 6 * nets), kernels)
    n = chosen(data.sizes["pool"], rows)
    gram = Count(2 * 2.0 * n * c * c * math.prod(shapes[0][1:]))
    psi = forward(trunk.part("psi"), data.shape, n, 250)
    return load((psi, Work(1, gram, "products"), Work(steps, step, "products")), data)


def components(
    data: Images, target: Trained, disentanglers: list[list[Net]], settings: Any, splits: Any = None, **_: Any
) -> Load:
    """A forward pass of every net over the rows of the splits, and their files."""
    players, every = len(disentanglers[0]), [net for chain in disentanglers for net in chain]
    sizes = data.sizes | {"seen": target.seen}
    rows = {s: chosen(sizes[s], settings.rows) for s in splits or ("pool", "validation", "seen", "test")}
    table, n = Table(players, target.shape, rows), sum(rows.values())
    nets = [forward(net, data.shape, n, 128) for net in (target.feature, *every)]
    values = n * (table.players + 1.0) * table.elements
    size = values * (2 if settings.dtype == "float16" else 4)
    writing = Work(1, Count(0, 40.0 * values, 20.0 * n / 128))  # differences, rounding checked in float64, the files
    held = 128 * 24.0 * (table.players + 2) * table.elements + 4.0 * sum(parameters(net) for net in every)
    return load((*nets, writing), data, table, memory=held, disk=size)


def chains(
    data: Images,
    target: Any,
    disentanglers: list[list[Net]],
    continued: list[list[Net]],
    rows: Any,
    settings: Any,
    **_: Any,
) -> Load:
    """A forward pass of all chains' nets over the pool's rows, and the moments of what they give with bootstrap draws."""
    nets, target = [net for chain in (*disentanglers, *continued) for net in chain], taken_apart(target)
    n, k, d = chosen(data.sizes["pool"], rows), len(nets) + 1, math.prod(target.shape)
    passes = tuple(forward(net, data.shape, n, 128) for net in (target.feature, *nets))
    return bootstrapped((*passes, *covariance(n, k, d, settings.bootstrap)), n, k, d, settings.bootstrap)


def significance(components: Table, settings: Any, **_: Any) -> Load:
    """Covariances within each split, the pool's with bootstrap draws."""
    k, d, rows = components.players + 1, components.elements, components.rows
    others = [covariance(n, k, d, 0) for split, n in rows.items() if split != "pool"]
    pool = covariance(rows["pool"], k, d, settings.bootstrap)
    return bootstrapped((*pool, *sum(others, ())), rows["pool"], k, d, settings.bootstrap)


def spread(
    data: Images, target: Trained, disentanglers: list[list[Net]], exemplary: Any, rows: int, ridges: Any, **_: Any
) -> Load:
    """Of each chain by itself: components, coalitions and decodability, over a few rows and without draws."""
    sizes = data.sizes | {"seen": target.seen}
    table = Table(len(disentanglers[0]), target.shape, {s: chosen(sizes[s], rows) for s in ("pool", "seen", "test")})
    n, works = sum(table.rows.values()), list[Work]()
    for chain in disentanglers:
        works += [forward(net, data.shape, n, 128) for net in (target.feature, *chain)]
        for split in ("seen", "test"):
            works += shapley(table, target, split, 0).work
        if exemplary is not None:
            few = AnalysisSpec(bootstrap=100)
            works += decodability(data, table, exemplary, few, ridges).work
    return load(tuple(works), data, memory=8.0 * n * (table.players + 1) * table.elements)


def shapley(components: Table, target: Trained, split: str, part: int, **_: Any) -> Load:
    """The head on every coalition of one part's rows, or on the way of every sampled permutation."""
    n, players = min(1024, components.rows[split]), components.players
    head = Step(target.net.part("head"), (), components.shape, 64)
    size = 64 * 4.0 * 2 * (players + 1) * components.elements
    if permutations := sampled(players):
        passes, traffic = permutations * (players - 1.0) + 2, 12.0  # gathered, added, put together: three writings
        disk = n * (16.0 * players + 8)
    else:
        passes, traffic, disk = 2.0**players, 4.0, 4.0 * n * 2.0**players
    walk = Count(0, traffic * 64 * components.elements, 8)
    return load((Work(n / 64 * passes, head), Work(n / 64 * passes, walk)), None, memory=size, disk=disk)


def sampled(players: int) -> int:
    """Permutations a sample where the coalitions of so many players are too many, else 0."""
    from featcx_core.game.sampling import PERMUTATIONS
    from featcx_core.game.values import EXACT_PLAYERS

    return PERMUTATIONS if players > EXACT_PLAYERS else 0


def effectiveness(components: Table, settings: Any, **_: Any) -> Load:
    """Values with bootstrap draws; from losses of all coalitions, interactions with draws too."""
    players, n, draws = components.players, components.rows["seen"] + components.rows["test"], settings.bootstrap
    if sampled(players):
        means = Count(2.0 * draws * n * players)
        return Load((Work(1, means, "products"),), SETUP + DRAWING * n * draws, n * (16.0 * players + 12.0 * draws))
    values = Count(2 * 2.0 * n * 2**players * players**2 + 4.0 * draws * n * players**2, 8.0 * n * 2**players)
    return Load((Work(1, values, "products"),), SETUP + 2 * DRAWING * n * draws, 16.0 * n * 2**players)


def substitution(components: Table, target: Trained, **_: Any) -> Load:
    """The head on f and on every Φ."""
    rows = sum(components.rows.get(split, 0) for split in ("validation", "seen", "test"))
    head = forward(target.net.part("head"), components.shape, rows * (components.players + 1), 128)
    reading = Count(0, 12.0 * rows * (components.players + 1) * components.elements)
    return load((head, Work(1, reading)), None)


def reliability(data: Images, components: Table, trunks: list[list[Net]], settings: Any, **_: Any) -> Load:
    """A forward pass of every ψ over the pool's rows, and bootstrap draws of what is stored; the maps of both."""
    every = [net for chain in trunks for net in chain]
    n, k, d = components.rows["pool"], components.players + len(every) + 1, components.elements
    nets = tuple(forward(net.part("psi"), data.shape, n, 128) for net in every)
    mapped = n + settings.bootstrap
    through = Count(4.0 * mapped * len(every) * components.shape[0] * d, 40.0 * mapped * len(every) * d)
    work = (*nets, Work(1, through, "products"), *covariance(n, k, d, settings.bootstrap))
    return bootstrapped(work, n, k, d, settings.bootstrap)


def decodability(
    data: Images, components: Table, exemplary: list[Trained], settings: Any, ridges: Any, floors: int = 0, **_: Any
) -> Load:
    """Features of the exemplary nets, ridge maps from their moments, and bootstrap draws."""
    rows, d, c = components.rows, components.elements, components.shape[0]
    nets, wanted, features = (
        [*exemplary, *exemplary[:1] * floors],
        2 * components.players + 1,
        [e.shape[0] for e in exemplary],
    )
    e = max(features)
    passes = tuple(forward(net.feature, data.shape, rows["pool"] + rows["test"], 125) for net in nets)
    each = 2.0 * len(nets) * (e * e * d / c + (components.players + 1) * e * d)
    fit = Count(rows["pool"] * each, 16.0 * rows["pool"] * (components.players + 1) * d, 60.0 * rows["pool"] / 125)
    solves = len(nets) * wanted * (5 * len(ridges) + 1)
    solving = Count(solves * (4 / 3 * e**3 + 8.0 * e * e * c), solves * 8.0 * 6 * e * e, 14 * solves)
    mapped = rows["test"] + settings.bootstrap
    read = Count(2.0 * mapped * len(nets) * wanted * e * d, 20.0 * mapped * (len(nets) + 1) * wanted * d)
    k = components.players + 1 + len(nets)
    work = (*passes, Work(1, fit, "products"), Work(1, solving), Work(1, read, "products"))
    return bootstrapped(
        (*work, *covariance(rows["test"], k, d, settings.bootstrap)), rows["test"], k, d, settings.bootstrap
    )


def comparison(networks: Any, **_: Any) -> Load:
    """Intervals of differences, and a figure."""
    return Load(seconds=1.0 + 0.3 * len(networks))


def pictures(components: Table, **_: Any) -> Load:
    """One pass over the test components."""
    size = components.rows["test"] * (components.players + 1.0) * components.elements
    return Load((Work(1, Count(0, 12 * size)),), SETUP)


def images(components: Table, settings: Any, **_: Any) -> Load:
    """Two passes over the test components, and ranks in each bootstrap draw."""
    n = components.rows["test"]
    size = n * (components.players + 1.0) * components.elements
    ranking = Count(0, 8.0 * 30 * n * settings.bootstrap)
    return Load((Work(2, Count(0, 16 * size)), Work(1, ranking)), SETUP + DRAWING * n * settings.bootstrap)


def figures(**_: Any) -> Load:
    """One network's figures, in three files each."""
    return Load(seconds=3.0)


def report(networks: Any, **_: Any) -> Load:
    """Tables, the page, and the figures that no other stage has drawn."""
    return Load(seconds=1.0 + 0.3 * len(networks))


def sweep_report(targets: Any, **_: Any) -> Load:
    """Figures, tables and the page on all targets."""
    return Load(seconds=4.0 + 0.1 * len(targets))


def task_learner(
    data: Images, depth: int, blocks: int, width: int, schedule: ScheduleSpec, numerics: Numerics, **_: Any
) -> Load:
    """Training of a net on a random net's output."""
    task = Net.of("task", n=depth, in_channels=data.shape[0])
    shape = (64, data.shape[1] // 4, data.shape[2] // 4)
    net = Net.of("disentangler", blocks=blocks, in_shape=data.shape, out_shape=shape, width=width)
    work = training(net, (task,), data.shape, schedule, numerics)
    passes = forward(task, data.shape, data.sizes["test"], 250)
    scores = forward(net, data.shape, data.sizes["test"], 250)
    return load((work, passes, scores), data, Trained(net, net, shape, 0), disk=4.0 * parameters(net))


def task_weights(data: Images, learner: Trained, disentanglers: list[list[Net]], rows: Any, **_: Any) -> Load:
    """A forward pass of the learner and its chain over the pool's rows."""
    n, nets = chosen(data.sizes["pool"], rows), (learner.net, *(net for chain in disentanglers for net in chain))
    passes = tuple(forward(net, data.shape, n, 250) for net in nets)
    return load((*passes, *covariance(n, len(disentanglers[0]) + 1, math.prod(learner.shape), 0)), data)


LOADS: dict[str, Callable[..., Load]] = {
    "data": data,
    "target": target,
    "distilled": distilled,
    "pruned": compressed,
    "quantised": compressed,
    "disentangler": disentangler,
    "trunk": trunk,
    "cycle": cycle,
    "components": components,
    "chains": chains,
    "significance": significance,
    "spread": spread,
    "shapley": shapley,
    "effectiveness": effectiveness,
    "substitution": substitution,
    "reliability": reliability,
    "decodability": decodability,
    "wide_control": lambda **_: Load(seconds=0.2),
    "comparison": comparison,
    "pictures": pictures,
    "images": images,
    "figures": figures,
    "report": report,
    "sweep_report": sweep_report,
    "task_learner": task_learner,
    "task_weights": task_weights,
    "complexity_report": lambda weights, **_: Load(seconds=3.0 + 0.02 * len(weights)),
}
