"""The points of a sweep: every combination of the values of its axes, each a RunSpec with a name that says what runs."""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from featcx_core.errors import InputError
from featcx_core.specs import DatasetSpec, RunSpec, SweepSpec, validate
from flows.settings import merge, nest

LAYER = "target.layer"


def run_name(spec: RunSpec) -> str:
    """What runs, in a few letters: resnet8-n200-s0."""
    return f"{spec.target.net.replace(':', '.')}-n{spec.target.samples}-s{spec.seed}"


def points(sweep: SweepSpec) -> dict[str, RunSpec]:
    """The sweep's targets by name: resnet8-n200-s0, with further fields behind: resnet8-n200-s0-width=8.

    Raises:
        InputError: for no points, a point listed twice, a field given twice, or a value that does not fit.
    """
    found: dict[str, RunSpec] = {}
    fields = further(sweep)
    for values in _combinations(_axes(sweep)):
        nested = sweep.base.model_dump()
        for path, value in values.items():
            nested = merge(nested, nest(path, value))
        spec = validate(nested)
        name = run_name(spec) + "".join(f"-{short(path, fields)}={in_words(values[path])}" for path in fields)
        if name in found or spec in found.values():
            raise InputError(f"The sweep lists {name} twice; give each value once.")
        found[name] = spec
    if not found:
        raise InputError("The sweep has no points; give at least one value for each field, such as --sizes 200,500.")
    return found


def _axes(sweep: SweepSpec) -> dict[str, tuple[Any, ...]]:
    """Values by path: architectures vary slowest, seeds fastest of the three that have options of their own."""
    base = sweep.base
    own: dict[str, tuple[Any, ...]] = {
        "target.net": sweep.archs or (base.target.net,),
        "target.samples": sweep.sizes or (base.target.samples,),
        "seed": sweep.seeds or (base.seed,),
    }
    for path in sweep.over:
        if path in own:
            option = {"target.net": "archs", "target.samples": "sizes", "seed": "seeds"}[path]
            raise InputError(f"'{path}' has an option of its own; give its values with --{option}.")
        if path.split(".")[0] in ("runtime", "complexity", "pictures"):
            raise InputError(f"'{path}' changes no result, so there is nothing to sweep over; leave it out.")
    return own | further(sweep)


def further(sweep: SweepSpec) -> dict[str, tuple[Any, ...]]:
    """The fields that vary besides architecture, samples and seed, by path: the layer first.

    Raises:
        InputError: when layers are named twice, or all are asked of several architectures.
    """
    if not sweep.layers:
        return sweep.over
    if LAYER in sweep.over:
        raise InputError("The layers are named twice; give them with --layers alone.")
    layers = sweep.layers
    if layers == ("all",):
        if len(sweep.archs) > 1:
            raise InputError(
                "Each architecture has layers of its own; sweep over --layers all with one of them at a time."
            )
        base, (net, *_) = sweep.base, (*sweep.archs, sweep.base.target.net)
        layers = _stages(net, json.dumps(base.target.options, sort_keys=True), base.dataset)
    return {LAYER: layers, **sweep.over}


@functools.cache
def _stages(net: str, options: str, dataset: DatasetSpec) -> tuple[str, ...]:
    """The stages or blocks of a net for these images."""
    from featcx_core.data.sources import image_shape, pool_counts
    from featcx_core.nets.calls import example, stages
    from featcx_core.nets.targets import build_net
    from featcx_core.seeds import seeded

    shape = image_shape(dataset)
    with seeded(0):
        model = build_net(net, shape[0], len(pool_counts(dataset)), json.loads(options)).eval()
    return tuple(stages(model, example(model, shape)))


def _combinations(axes: dict[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def short(path: str, fields: Iterable[str]) -> str:
    """The last part of a path where that is enough to tell the fields apart."""
    last = path.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in fields) == 1 else path


def in_words(value: Any) -> str:
    """A value as names and tables show it: of a path only the last part."""
    if isinstance(value, dict):
        return ",".join(f"{name}={in_words(entry)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return ",".join(map(in_words, value))
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return re.sub(r"[^:]*/", "", str(value).rstrip("/"))
