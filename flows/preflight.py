"""What can be refused before anything is written or computed."""

from __future__ import annotations

import os
from pathlib import Path

from featcx_core.errors import InputError
from featcx_core.specs import Numerics, RunSpec


def check(spec: RunSpec, store: Path) -> None:
    """Whether this spec can run here.

    Raises:
        InputError: one or two sentences that say what to do.
    """
    from featcx_core.sources import split_sizes
    from featcx_core.targets import BUILTIN, check_net
    from tasks.devices import devices

    check_store(store)
    check_net(spec.target.net)
    if spec.exemplary.net is not None:
        check_net(spec.exemplary.net)
    if spec.target.net not in BUILTIN and spec.target.layer is None:
        raise InputError(f"'{spec.target.net}' has no feature layer of its own; name one with target.layer.")
    for path in (spec.target.checkpoint, *spec.exemplary.checkpoints):
        if path is not None and not Path(path).is_file():
            raise InputError(f"There is no checkpoint {path}; give a safetensors file that exists.")
    if spec.runtime.runner == "ray":
        try:
            import prefect_ray  # noqa: F401
        except ImportError as error:
            raise InputError("The ray runner is not installed; pip install 'featcx[ray]', or use threads.") from error
    else:
        devices(spec.runtime.device, spec.runtime.threads)
    split_sizes(spec.dataset, spec.target.samples)


def check_store(store: Path) -> None:
    """Whether artifacts can be written under `store`, which need not exist."""
    existing = store.absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise InputError(f"The store {store} cannot be made, {existing} is a file; choose a folder with --store.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"The store {store} is not writable; choose another folder with --store, or set FEATCX_STORE.")


def numerics_for(spec: RunSpec) -> Numerics:
    """Precision resolved for the device that the spec asks for, and compilation."""
    import torch

    from featcx_core.fit import resolve_precision
    from tasks.devices import devices

    wanted = spec.runtime.device
    device = wanted.split(":")[0] if wanted != "auto" else devices("auto", 1)[0].split(":")[0]
    return Numerics(precision=resolve_precision(spec.precision, torch.device(device)), compile=spec.compile)
