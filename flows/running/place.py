"""Where deployed runs work. They are processes that a server or a worker starts, so the environment tells them."""

from __future__ import annotations

import os
from pathlib import Path

from featcx_core.specs import RuntimeSpec, validate


def set_place(store: Path, **runtime: str | None) -> None:
    """Tells the processes that this one starts; None leaves what the environment says."""
    os.environ["FEATCX_STORE"] = str(store.absolute())
    for name, value in runtime.items():
        if value is not None:
            os.environ[f"FEATCX_{name.upper()}"] = value


def given_store() -> Path:
    """The store: FEATCX_STORE, or the default."""
    return Path(os.environ.get("FEATCX_STORE") or "artifacts").absolute()  # empty where prefect.yaml found none


def given_runtime() -> RuntimeSpec:
    """What executes: FEATCX_DEVICE, FEATCX_RUNNER and FEATCX_THREADS, or the defaults.

    Raises:
        InputError: for a value that will not do.
    """
    given = {name: os.environ.get(f"FEATCX_{name.upper()}") for name in RuntimeSpec.model_fields}
    return validate({"runtime": {name: value for name, value in given.items() if value}}).runtime
