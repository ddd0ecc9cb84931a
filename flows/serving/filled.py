"""What a form asks for, as a spec: asked as a run begins, and when its schedule is served."""

from __future__ import annotations

from typing import Any

from featcx_core.errors import InputError
from featcx_core.specs import RunSpec, SweepSpec, validated
from flows.asked import SWEEP_DEFAULTS
from flows.compare import Pair, pair
from flows.running.place import given_runtime, given_store
from flows.serving.forms import filled_in
from flows.settings import changed_preset, parse_override


def filled_spec(preset: Any, settings: Any, *overrides: dict[str, Any]) -> RunSpec:
    """The spec that a form asks for.

    Raises:
        InputError: for a value that does not fit.
    """
    return changed_preset(filled_in(preset), *overrides, filled_in(settings), {"runtime": given_runtime().model_dump()})


def filled_sweep(preset: Any, settings: Any, **axes: Any) -> SweepSpec:
    """The sweep that a form asks for: without variants and control, unless they are filled in.

    Raises:
        InputError: for a value that does not fit.
    """
    base = filled_spec(preset, settings, *map(parse_override, SWEEP_DEFAULTS))
    given = {name: values for name, values in axes.items() if values}
    return validated(SweepSpec, {"base": base} | given)


def filled_pair(a: str, b: str) -> Pair:
    """The two runs that a comparison asks for.

    Raises:
        InputError: for keys that are missing, or not of two runs to compare.
    """
    if not a or not b:
        raise InputError("Give the keys of two runs' reports as a and b; see `featcx artifacts list`.")
    return pair(given_store(), a, b)
