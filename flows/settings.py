"""Presets and overrides: from a name, a file and `--set a.b=c` to a RunSpec."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from featcx_core.errors import InputError
from featcx_core.specs import RunSpec, nearest, validate

SCHEDULES = {"published": "cifar10-paper", "fast": "cifar10-fast"}  # the preset that has a protocol's schedules
BUDGET = ("schedule", "draws", "batches")


def preset_names() -> list[str]:
    """The presets that ship with featcx."""
    return sorted(
        p.name.removesuffix(".toml") for p in (files("flows") / "presets").iterdir() if p.name.endswith(".toml")
    )


def preset_values(name: str) -> dict[str, Any]:
    """A preset as nested values.

    Raises:
        InputError: for an unknown preset, with the nearest.
    """
    if name not in preset_names():
        raise InputError(f"There is no preset '{name}'; {nearest(name, preset_names())}")
    return tomllib.loads((files("flows") / "presets" / f"{name}.toml").read_text(encoding="utf-8"))


def load_spec(preset: str, config: Path | None = None, overrides: Sequence[str] = ()) -> RunSpec:
    """The spec of a preset, changed by a TOML file, changed by `path.to.field=value` overrides.

    Raises:
        InputError: for anything that does not fit, with what to do.
    """
    changes = []
    if config is not None:
        try:
            changes.append(tomllib.loads(config.read_text(encoding="utf-8")))
        except OSError as error:
            raise InputError(f"{config} cannot be read ({error.strerror}); give a TOML file with --config.") from error
        except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, or nested without end
            raise InputError(f"{config} is not valid TOML: {error}.") from error
    return changed_preset(preset, *changes, *map(parse_override, overrides))


def changed_preset(preset: str, *changes: dict[str, Any]) -> RunSpec:
    """The spec of a preset with nested values changed, a later change upon an earlier one.

    Raises:
        InputError: for anything that does not fit, with what to do.
    """
    change: dict[str, Any] = functools.reduce(merge, changes, {})
    return validate(merge(_by_protocol(preset_values(preset), change), change))


def _by_protocol(values: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """A preset's values, with the schedules of the protocol that is asked for where the preset follows the other one."""
    given = change.get("disentangler")
    wanted = given.get("protocol") if isinstance(given, dict) else None
    if (
        not isinstance(wanted, str)
        or wanted not in SCHEDULES
        or wanted == values.get("disentangler", {}).get("protocol", "fast")
    ):
        return values
    source = preset_values(SCHEDULES[wanted])
    for part in ("disentangler", "reliability"):
        kept = {name: value for name, value in values.get(part, {}).items() if name not in BUDGET}
        values = values | {part: kept | {name: source[part][name] for name in BUDGET if name in source[part]}}
    return values


def merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `change`, table by table."""
    merged = dict(base)
    for name, value in change.items():
        both = isinstance(value, dict) and isinstance(base.get(name), dict)
        merged[name] = merge(base[name], value) if both else value
    return merged


def parse_override(text: str) -> dict[str, Any]:
    """`a.b=c` as {'a': {'b': c}}; c is TOML, a bare list such as 1,2,4, 'none', or else plain text."""
    path, equals, value = text.partition("=")
    names = [name.strip() for name in path.split(".")]
    if not equals or not all(names):
        raise InputError(f"--set {text} has no field and value; write --set path.to.field=value.")
    return nest(".".join(names), parse_value(value.strip()))


def nest(path: str, value: Any) -> dict[str, Any]:
    """{'a': {'b': value}} for 'a.b'."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def parse_value(text: str) -> Any:
    """A value on the command line: TOML where it is TOML, a list where commas part it, none, or the text itself."""
    if text.lower() in ("none", "null"):
        return None
    for candidate in (text, f"[{text}]" if "," in text else text):
        try:
            return tomllib.loads(f"value = {candidate}")["value"]
        except tomllib.TOMLDecodeError:
            continue
    if "," not in text or ":" in text:
        return text
    parts = [part.strip() for part in text.split(",")]
    return [None if part.lower() in ("none", "null") else part for part in parts]
