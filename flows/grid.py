"""The points of a sweep: every combination of the values of its axes, each a RunSpec with a name that says what runs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from featcx_core.errors import InputError
from featcx_core.specs import RunSpec, SweepSpec, validate
from flows.settings import load_spec, merge, nest, parse_value

# What a sweep leaves out unless asked: it compares targets, and these belong to one target and cost four times as much.
SWEEP_DEFAULTS = (
    "variants.distilled=false",
    "variants.pruned=false",
    "variants.quantised=false",
    "substitution.control=false",
)


def load_sweep(
    preset: str,
    sizes: str | None = None,
    archs: str | None = None,
    seeds: str | None = None,
    over: list[str] | None = None,
    config: Path | None = None,
    overrides: list[str] | None = None,
) -> SweepSpec:
    """The sweep that the command line's texts name, upon a preset without variants and control.

    Raises:
        InputError: for a list that does not fit, with what to do.
    """
    fields = dict(_swept_field(text) for text in over or [])
    if len(fields) < len(over or []):
        raise InputError("--over names a field twice; give all its values at once, such as --over seed=0,1.")
    return SweepSpec(
        base=load_spec(preset, config, [*SWEEP_DEFAULTS, *(overrides or [])]),
        sizes=_whole_numbers(sizes, "--sizes 200,500", 1),
        archs=_listed(archs, "--archs resnet8,resnet20"),
        seeds=_whole_numbers(seeds, "--seeds 0,1,2", 0),
        over=fields,
    )


def _listed(text: str | None, example: str) -> tuple[str, ...]:
    if text is None:
        return ()
    values = tuple(part.strip() for part in text.split(","))
    if not all(values):
        raise InputError(f"'{text}' has an empty value; write {example}.")
    return values


def _whole_numbers(text: str | None, example: str, least: int) -> tuple[int, ...]:
    found = []
    for part in _listed(text, example):
        if not part.isascii() or not part.isdigit() or int(part) < least:
            raise InputError(f"'{part}' is not a whole number of {least} or more; write {example}.")
        found.append(int(part))
    return tuple(found)


def _swept_field(text: str) -> tuple[str, tuple[Any, ...]]:
    path, equals, values = text.partition("=")
    if not equals or not path.strip() or not values.strip():
        raise InputError(f"--over {text} has no field and values; write --over disentangler.width=8,16.")
    found = parse_value(values.strip())
    return path.strip(), tuple(found) if isinstance(found, list) else (found,)


def run_name(spec: RunSpec) -> str:
    """What runs, in a few letters: resnet8-n200-s0."""
    return f"{spec.target.net.replace(':', '.')}-n{spec.target.samples}-s{spec.seed}"


def points(sweep: SweepSpec) -> dict[str, RunSpec]:
    """The sweep's targets by name: resnet8-n200-s0, with further fields behind: resnet8-n200-s0-width=8.

    Raises:
        InputError: for no points, a point listed twice, a field given twice, or a value that does not fit.
    """
    found: dict[str, RunSpec] = {}
    for values in _combinations(_axes(sweep)):
        nested = sweep.base.model_dump()
        for path, value in values.items():
            nested = merge(nested, nest(path, value))
        spec = validate(nested)
        further = "".join(f"-{short(path, sweep)}={in_words(values[path])}" for path in sweep.over)
        name = run_name(spec) + further
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
    return own | sweep.over


def _combinations(axes: dict[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def short(path: str, sweep: SweepSpec) -> str:
    """The last part of a path where that is enough to tell the fields apart."""
    last = path.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in sweep.over) == 1 else path


def in_words(value: Any) -> str:
    """A value as names and tables show it: of a path only the last part."""
    if isinstance(value, dict):
        return ",".join(f"{name}={in_words(entry)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return ",".join(map(in_words, value))
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return re.sub(r"[^:]*/", "", str(value).rstrip("/"))
