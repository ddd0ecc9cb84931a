"""Presets and overrides: from a name, a file and `--set a.b=c` to a RunSpec."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

from featcx_core.errors import InputError
from featcx_core.specs import RunSpec, nearest, validate


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
    return tomllib.loads((files("flows") / "presets" / f"{name}.toml").read_text())


def load_spec(preset: str, config: Path | None = None, overrides: list[str] | None = None) -> RunSpec:
    """The spec of a preset, changed by a TOML file, changed by `path.to.field=value` overrides.

    Raises:
        InputError: for anything that does not fit, with what to do.
    """
    values = preset_values(preset)
    if config is not None:
        try:
            values = merge(values, tomllib.loads(config.read_text()))
        except OSError as error:
            raise InputError(f"{config} cannot be read ({error.strerror}); give a TOML file with --config.") from error
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{config} is not valid TOML: {error}.") from error
    for override in overrides or []:
        values = merge(values, parse_override(override))
    return validate(values)


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
