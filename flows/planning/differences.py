"""By what an artifact that is not stored differs from those that are, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ABSENT = object()
GIVEN = "given"  # in the place of an artifact


def nearest_difference(parts: dict[str, Any], key: str, stored: list[dict[str, Any]]) -> str:
    """In words, by what an artifact differs from the nearest of the same stage: fewest parts, then newest.

    Args:
        parts: spec, inputs and code of its key.
        stored: manifests of the stage's artifacts, oldest first.
    """
    if not stored:
        return "first of its kind"
    if any(manifest["key"] == key for manifest in stored):
        return "the stored one is damaged"
    found = min(reversed(stored), key=lambda manifest: len(differences(manifest, parts)))
    words = differences(found, parts)
    return "; ".join(words[:3]) + (f"; and {len(words) - 3} more" if len(words) > 3 else "")


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between the parts of two keys: settings as old → new, inputs by name, the code.

    An argument that is an artifact in one key alone, such as weights beside none, is told as a setting.
    """
    both = old["inputs"].keys() & new["inputs"].keys()
    before, after = (flat(parts["spec"] | dict.fromkeys(parts["inputs"].keys() - both, GIVEN)) for parts in (old, new))
    fields = [f for f in dict.fromkeys([*after, *before]) if before.get(f, ABSENT) != after.get(f, ABSENT)]
    words = [f"{f} {told(before.get(f, ABSENT))} → {told(after.get(f, ABSENT))}" for f in fields]
    words += [
        f"input {name} differs" for name in new["inputs"] if name in both and new["inputs"][name] != old["inputs"][name]
    ]
    return words + ([code_change(old.get("modules", {}), new.get("modules", {}))] if old["code"] != new["code"] else [])


def code_change(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """In which files what a stage takes of the code has changed; one that only lies elsewhere now has not."""
    there, gone = set(old.values()), set(new.values())
    changed = [name for name, version in new.items() if version not in there]
    changed += [name for name, version in old.items() if version not in gone and name not in new]
    if not old or not changed:
        return "the code changed"
    told = [name.removeprefix("featcx_core/") for name in changed[:3]]
    return ", ".join(told) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "") + " changed"


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted paths."""
    if isinstance(value, Mapping) and (value or not path):
        return {k: v for n, e in value.items() for k, v in flat(e, f"{path}.{n}" if path else str(n)).items()}
    return {path: list(value) if isinstance(value, tuple) else value}


def told(value: Any) -> str:
    """A setting in a sentence."""
    if value is ABSENT:
        return "absent"
    text = "none" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"
    return text if len(text) <= 40 else f"{text[:37]}…"
