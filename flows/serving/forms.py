"""The UI's forms, made from the specs: every field may stay empty and then takes the preset's value."""

from __future__ import annotations

import enum
import inspect
import types
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, create_model

from featcx_core.specs import RunSpec, SweepSpec
from flows.settings import preset_names

Preset = enum.Enum("Preset", {name: name for name in preset_names()}, type=str)  # type: ignore[misc]
F = TypeVar("F", bound=Callable[..., Any])

# The UI has a tab for each of several types: the first is open, and its title tells what it means.
AsPreset = Annotated[None, WithJsonSchema({"type": "null", "title": "as the preset"})]
LeftOut = Annotated[Literal[False], WithJsonSchema({"const": False, "type": "boolean", "title": "leave out"})]


def form(model: type[BaseModel], title: str, without: Collection[str] = (), level: int = 0) -> type[BaseModel]:
    """A spec with every field optional, in types for which the UI has plain inputs.

    - A field that may be none is one that may stay empty: `anyOf [X, null]` would be two tabs, and null would be sent.
    - Yes and no are a choice of on and off, since a switch cannot be empty.
    - A tuple is a list.
    - Sections lie open; what they hold in turn, such as a schedule, is folded until its tab is chosen.
    - A spec that may be none can also be left out, as false does in a file.
    """
    fields: dict[str, Any] = {}
    plain_first = sorted(model.model_fields.items(), key=lambda item: _spec_in(item[1].annotation) is not None)
    for name, info in plain_first:
        if name in without:
            continue
        kind = _asked(info.annotation, name, level)
        field = Field(
            None,
            title=name,
            description=info.description or _first_line(_spec_in(info.annotation)),
            json_schema_extra=_without_default,
        )
        fields[name] = (Annotated[(kind, *info.metadata)] if info.metadata else kind, field)
    config = ConfigDict(extra="forbid", title=title)
    return create_model(f"{model.__name__}Form{level}", __config__=config, __doc__=_first_line(model), **fields)


def _asked(kind: Any, name: str, level: int) -> Any:
    """The type that the form asks for, given a field's own."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return Annotated[(_asked(parts[0], name, level), *kind.__metadata__)]
    if (spec := _spec_in(kind)) is not None:
        own = form(spec, name, level=level + 1)
        off = (LeftOut,) if types.NoneType in parts else ()
        return Union[(AsPreset, own, *off)] if level or off else own
    if origin in (Union, types.UnionType):
        some = tuple(_asked(part, name, level) for part in parts if part is not types.NoneType)
        return Union[some]  # noqa: UP007
    if origin is tuple:
        entries: Any = list.__class_getitem__(_asked(parts[0], name, level))
        count = None if parts[-1] is Ellipsis else len(parts)
        return entries if count is None else Annotated[entries, Field(min_length=count, max_length=count)]
    return Literal["on", "off"] if kind is bool else kind


def _spec_in(kind: Any) -> type[BaseModel] | None:
    """The spec in X or X | None, if X is one."""
    for part in (kind, *get_args(kind)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def _first_line(model: type[BaseModel] | None) -> str | None:
    return None if model is None or model.__doc__ is None else model.__doc__.partition("\n")[0]


def _without_default(schema: dict[str, Any]) -> None:
    """An empty field is absent; had it a default of null, the UI would send that, and null is no number."""
    schema.pop("default", None)


def filled_in(values: Any) -> Any:
    """What a form's reader has filled in: empty fields and folded sections are left out."""
    if isinstance(values, BaseModel):
        values = values.model_dump(exclude_unset=True, mode="json")
    if isinstance(values, Mapping):
        kept = {name: filled_in(value) for name, value in values.items() if value is not None}
        return {name: value for name, value in kept.items() if value != {}}
    return values.value if isinstance(values, enum.Enum) else values


def worded(values: Any, model: type[BaseModel] | None = None) -> Any:
    """A flow's parameters, as files write them, in the words of its form: yes and no are on and off."""
    if not isinstance(values, Mapping):
        return values
    found = {}
    for name, value in values.items():
        spec: type[BaseModel] | None = RunSpec if name == "settings" and model is None else None
        if model is not None and name in model.model_fields:
            spec = _spec_in(model.model_fields[name].annotation)
        off_or_on = isinstance(value, bool) and spec is None
        found[name] = ("on" if value else "off") if off_or_on else worded(value, spec) if spec else value
    return found


RunForm = form(RunSpec, "settings", without={"runtime", "complexity"})
SweepForm = form(RunSpec, "settings", without={"runtime", "complexity", "seed"})
ComplexityForm = form(
    RunSpec,
    "settings",
    without={"runtime", "target", "exemplary", "reliability", "substitution", "variants", "pictures"},
)


def asking(**fields: Any) -> Callable[[F], F]:
    """Gives a flow's function the parameters of a form: name = (type, default, description).

    Prefect reads types from the signature and descriptions from the docstring. A default is needed, or the UI asks for a
    value: for a form it is empty.
    """

    def shaped(function: F) -> F:
        kind, words = inspect.Parameter.KEYWORD_ONLY, []
        parameters = []
        for name, (annotation, default, about) in fields.items():
            parameters.append(inspect.Parameter(name, kind, default=default, annotation=annotation))
            words.append(f"    {name}: {about}")
        function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        function.__annotations__ = {}
        function.__doc__ = "\n".join([function.__doc__ or "", "", "Args:", *words])
        return function

    return shaped


def sweep_axes() -> dict[str, tuple[Any, Any, str]]:
    """The sweep's own fields as a form's: name → (type, empty, description)."""
    return {
        name: (_asked(info.annotation, name, 0), [] if info.default == () else {}, info.description or "")
        for name, info in SweepSpec.model_fields.items()
        if name != "base"
    }
