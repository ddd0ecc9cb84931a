"""The key of an artifact: one pure function of what the artifact is made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def artifact_key(stage: str, spec: Mapping[str, Any], inputs: Mapping[str, str], code: str) -> str:
    """SHA-256 (64 hex digits) of a stage's name, its settings, the content digests of its inputs and its code version.

    Args:
        spec: JSON-able settings; the order of its fields does not matter.
        inputs: name → content digest.
    """
    return digest({"stage": stage, "spec": spec, "inputs": inputs, "code": code})


def digest(value: Any) -> str:
    """SHA-256 of a JSON-able value in canonical form: sorted names, no spaces, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
