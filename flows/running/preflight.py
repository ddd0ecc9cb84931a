"""What can be refused before anything is written or computed."""

from __future__ import annotations

import math
import os
from pathlib import Path

from featcx_core.errors import InputError
from featcx_core.specs import Numerics, RunSpec, RuntimeSpec
from featcx_core.store.artifacts import Store

FEWEST_STEPS = 10  # a tenth of a training's steps is warm-up


def check(spec: RunSpec, store: Path) -> None:
    """Whether this spec can run here.

    Raises:
        InputError: one or two sentences that say what to do.
    """
    from featcx_core.data.sources import split_sizes
    from featcx_core.nets.targets import check_net

    check_store(store)
    check_net(spec.target.net)
    if spec.exemplary.net is not None:
        check_net(spec.exemplary.net)
    check_architecture(spec)
    check_runtime(spec.runtime)
    check_budget(spec)
    split_sizes(spec.dataset, spec.target.samples)


def check_budget(spec: RunSpec) -> None:
    """Whether every disentangler and trunk is trained for more than its warm-up, and the controls have what they take."""
    from featcx_core.specs import shared_schedule

    own, chains = spec.disentangler, spec.disentangler.chains
    if own.wide_control and len(own.blocks) == 1:
        raise InputError(
            "disentangler.wide_control widens the second of disentangler.blocks, and there is one; give at least two."
        )
    if own.nulls > chains > 1 and own.continuation:
        raise InputError(
            f"{own.nulls} null targets would be the lowest nets of as many chains, of {chains} chains; lower "
            "disentangler.nulls, or raise disentangler.chains."
        )
    parts = {"disentangler": spec.disentangler} | (
        {"reliability": spec.reliability} if spec.reliability.enabled else {}
    )
    for part, settings in parts.items():
        for i, blocks in enumerate(spec.disentangler.blocks):
            schedule = shared_schedule(settings, i, chains)
            if (steps := math.ceil(schedule.draws / schedule.batch)) < FEWEST_STEPS:
                raise InputError(
                    f"Order {3 * blocks + 1} would be trained for {steps} steps in each of {chains} chains, which is no "
                    f"training; give it {FEWEST_STEPS * schedule.batch * chains} draws or more ({part}.draws)."
                )


def check_runtime(runtime: RuntimeSpec) -> int:
    """Whether the runner and the device are here; how many trainings can run side by side (1 for Ray, which places them)."""
    from tasks.devices import devices

    if runtime.remote:
        from tasks.env import remote_of

        remote_of(runtime.remote, runtime.remote_read_only, os.getpid())  # connects meanwhile
    if runtime.runner != "ray":
        return len(devices(runtime))
    try:
        import prefect_ray  # noqa: F401
    except ImportError as error:
        raise InputError("The ray runner is not installed; pip install 'featcx[ray]', or use threads.") from error
    if runtime.device.startswith("cuda:"):
        raise InputError(f"Ray hands out GPUs itself, so {runtime.device} cannot be chosen; use the device cuda.")
    return 1


def check_architecture(spec: RunSpec) -> None:
    """Whether nets can be built for these images and cut at their layers, and checkpoints are of these nets."""
    from featcx_core.data.sources import image_shape, pool_counts
    from featcx_core.nets.checkpoints import fitted, read_checkpoint
    from featcx_core.nets.targets import BUILTIN, TargetNet
    from featcx_core.seeds import seeded

    target, same = spec.target, spec.exemplary.net in (None, spec.target.net)
    exemplary = spec.exemplary.net or target.net
    for net, own, checkpoints in (
        (target.net, True, [target.checkpoint]),
        (exemplary, same, spec.exemplary.checkpoints if spec.reliability.enabled else ()),
    ):
        paths = [Path(path) for path in checkpoints if path is not None]
        given = [target.layer, target.layout] if own else []
        if not paths and net in BUILTIN and not any(given):
            continue
        how = (target.layer, target.pre_relu, target.options, target.layout) if own else ()
        with seeded(0):
            model = TargetNet(net, image_shape(spec.dataset), len(pool_counts(spec.dataset)), *how).model
        for path in paths:
            fitted(read_checkpoint(path), model.state_dict(), path)


def check_store(store: Path) -> None:
    """Whether artifacts can be written under `store`, which need not exist, or at least read."""
    existing = store.absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise InputError(f"The store {store} cannot be made, {existing} is a file; choose a folder with --store.")
    readable = existing == store.absolute() and os.access(existing, os.R_OK | os.X_OK)
    if not (Store(store).can_be_written or readable):
        raise InputError(f"The store {store} is not writable; choose another folder with --store, or set FEATCX_STORE.")


def numerics_for(spec: RunSpec) -> Numerics:
    """Precision resolved for the device that the spec asks for, and compilation."""
    import torch

    from featcx_core.training.fit import resolve_precision
    from tasks.devices import devices

    wanted = spec.runtime.device
    if spec.precision == "auto" and wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("This machine has no GPU to ask what it supports; set precision=bf16 or precision=fp32.")
    device = (wanted if wanted != "auto" else devices(spec.runtime)[0]).split(":")[0]
    return Numerics(precision=resolve_precision(spec.precision, torch.device(device)), compile=spec.compile)
