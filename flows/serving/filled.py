"""What a form asks for, as a spec, and whether it can run here: asked as a run begins, and when its schedule is served."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from featcx_core.errors import InputError
from featcx_core.specs import RunSpec, SweepSpec
from flows.grid import SWEEP_DEFAULTS
from flows.running.place import given_runtime, given_store
from flows.running.preflight import check
from flows.serving.forms import filled_in
from flows.settings import changed_preset, parse_override

if TYPE_CHECKING:
    from flows.compare import Networks


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
    try:
        return SweepSpec.model_validate({"base": base} | given)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(map(str, first["loc"]))
        raise InputError(f"{path} = {first['input']!r} will not do: {first['msg']}.") from None


def ready_spec(preset: Any, settings: Any) -> RunSpec:
    """The spec that a form asks for, which can run here.

    Raises:
        InputError: for one that cannot.
    """
    spec = filled_spec(preset, settings)
    check(spec, given_store())
    return spec


def ready_sweep(preset: Any, settings: Any, **axes: Any) -> SweepSpec:
    """The sweep that a form asks for, whose points can all run here.

    Raises:
        InputError: for a point that cannot.
    """
    from flows.sweep import check_sweep

    spec = filled_sweep(preset, settings, **axes)
    check_sweep(spec, given_store())
    return spec


def ready_networks(a: str, b: str) -> Networks:
    """The two runs' artifacts that a comparison asks for.

    Raises:
        InputError: for keys that are missing, or not of two runs to compare.
    """
    from flows.compare import networks_of

    if not a or not b:
        raise InputError("Give the keys of two runs' reports as a and b; see `featcx artifacts list`.")
    return networks_of(given_store(), a, b)


READY: dict[str, Callable[..., Any]] = {
    "analyze": ready_spec,
    "sweep": ready_sweep,
    "task-complexity": ready_spec,
    "compare": ready_networks,
}
