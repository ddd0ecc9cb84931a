"""What the command line asks for, in one record: a preset, what to change of it, what to sweep over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from featcx_core.errors import InputError
from featcx_core.specs import RunSpec, SweepSpec, validated
from flows.settings import load_spec, parse_value

# What a sweep leaves out unless asked: it compares targets, and these belong to one target and cost four times as much.
SWEEP_DEFAULTS = (
    "variants.distilled=false",
    "variants.pruned=false",
    "variants.quantised=false",
    "substitution.control=false",
)


class Asked(NamedTuple):
    """What was asked, in the texts that were typed; None or empty where nothing was.

    Attributes:
        config: a TOML file that changes the preset.
        changes: path.to.field=value, upon that.
        sizes, archs, layers, seeds: values with commas between them.
        over: path.to.field=a,b,c.
    """

    preset: str
    config: Path | None = None
    changes: Sequence[str] = ()
    sizes: str | None = None
    archs: str | None = None
    seeds: str | None = None
    over: Sequence[str] = ()
    layers: str | None = None

    def run(self) -> RunSpec:
        """The run.

        Raises:
            InputError: for anything that does not fit, with what to do.
        """
        return load_spec(self.preset, self.config, self.changes)

    def sweep(self) -> SweepSpec:
        """The sweep, upon a preset without variants and control.

        Raises:
            InputError: for anything that does not fit, with what to do.
        """
        fields = dict(map(_swept_field, self.over))
        if len(fields) < len(self.over):
            raise InputError("--over names a field twice; give all its values at once, such as --over seed=0,1.")
        asked = {
            "base": load_spec(self.preset, self.config, [*SWEEP_DEFAULTS, *self.changes]),
            "sizes": _whole_numbers(self.sizes, "--sizes 200,500", 1),
            "archs": _listed(self.archs, "--archs resnet8,resnet20"),
            "layers": _listed(self.layers, "--layers layer1,layer2, or --layers all"),
            "seeds": _whole_numbers(self.seeds, "--seeds 0,1,2", 0),
            "over": fields,
        }
        return validated(SweepSpec, asked)

    def either(self) -> RunSpec | SweepSpec:
        """The sweep where anything is swept over, else the run."""
        swept = self.over or any(axis is not None for axis in (self.sizes, self.archs, self.layers, self.seeds))
        return self.sweep() if swept else self.run()


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
