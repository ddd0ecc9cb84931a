"""A network in hand, taken apart in one call: the functions of a run's stages, one after the other."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from featcx_core.analysis.components import ComponentTable, extract, sample_rows
from featcx_core.analysis.pictures import make_pictures
from featcx_core.analysis.significance import measure_significance
from featcx_core.analysis.substitution import measure_substitution
from featcx_core.data.images import Augmented, Dataset, Shape
from featcx_core.errors import InputError
from featcx_core.nets.disentangler import Disentangler
from featcx_core.nets.split import split_net
from featcx_core.notebook.analysis import Analysis
from featcx_core.notebook.given import Given, Pixels, as_dataset, own_copy, pair_of, rescaled
from featcx_core.seeds import derive_seed
from featcx_core.shapley.games import outcome, played
from featcx_core.specs import Numerics, Precision, RunSpec, ScheduleSpec, at_depth, drawn, validate
from featcx_core.training.fit import Step, resolve_precision
from featcx_core.training.replay import reproducible
from featcx_core.training.teaching import score_target, taught_disentangler

SCHEDULE = ScheduleSpec(lr=2e-2, lr_end=2e-5, shape="trapezoid", optimiser="muon", batch=32)
DRAWS = (30_000, 24_000, 12_000, 8_000)  # of the orders in turn, the last repeats; as the main preset has them
BATCHES = (32, 32, 32, 64)
UNKNOWN = "Which images the net was trained on is not known; give seen=, 'all' if it was trained on all of them."
Tell = Callable[[str, int, int], None]


def analyze(
    net: nn.Module,
    layer: str,
    images: Any,
    labels: Any = None,
    *,
    test: Any = None,
    seen: Any = None,
    preprocess: str | Pixels = "pool",
    orders: Sequence[int] = (4, 7, 13, 25),
    width: int = 16,
    draws: int | Sequence[int] | None = None,
    device: str = "auto",
    seed: int = 0,
    store: str | Path | None = None,
    pre_relu: bool = False,
    crop: int | None = None,
    flip: bool = False,
    rows: int = 1000,
    schedule: ScheduleSpec = SCHEDULE,
    bootstrap: int = 1000,
    confidence: float = 0.95,
    precision: Precision = "auto",
    progress: bool = True,
) -> Analysis:
    """Takes the feature of any network apart by complexity: what `featcx run` does, for a net and images in hand.

    The net is copied; the owner's stays as it is. For the same data, net, seed and settings the numbers are a run's.

    Args:
        net: images (n, C, H, W) to logits (n, classes).
        layer: dotted name of the module whose output is the feature.
        images: uint8 (n, C, H, W), scaled and normalised as `preprocess` says, or floats as the net takes them; a
            DataLoader or Dataset of (image, label) stands for images and labels.
        labels: int (n,).
        test: (images, labels), or a DataLoader or Dataset; a fifth of each class is held out if None.
        seen: the images that the net was trained on: 'all', indices or a mask; without it over-fitting is left out.
        preprocess: between pixels in [0, 1] and the net: 'pool' (the images' own mean and deviation taken out), 'none',
            'imagenet' or {mean, std}.
        orders: complexity orders, rising, each 3·m + 1.
        width: channels of the disentanglers' first stage, 128κ.
        draws: samples that each disentangler is trained on, one number or one an order.
        device: auto, cpu, cuda or cuda:N.
        seed: of all that is random.
        store: a folder to keep the components in, without any yet; a temporary one, gone with the result, if None.
        pre_relu: take the input of the layer's final ReLU, as the paper does.
        crop, flip: augmentation: padding of random crops in pixels (None: an eighth of the side), mirroring.
        rows: images a split that are looked at, drawn with a fixed seed.
        schedule: of each disentangler's training, `draws` and `batch` apart.
        bootstrap, confidence: of the intervals, over images.
        precision: fp32, bf16 or auto.
        progress: show how far it is.

    Raises:
        InputError: for a net, layer, images or labels that do not fit together, with what to do.
    """
    spec = _spec(
        net, layer, preprocess, pre_relu, orders, width, draws, schedule, rows, bootstrap, confidence, seed, precision
    )
    given = as_dataset(*pair_of(images, labels), None if test is None else _pair(test), seen, crop=crop, flip=flip)
    target, place = cut_target(net, given.data, layer, pre_relu, preprocess), _device(device)
    reproducible(place)
    folder = tempfile.TemporaryDirectory(prefix="featcx-") if store is None else None
    root = Path(folder.name if folder is not None else store or "")
    if (root / "components").exists():
        raise InputError(f"{root} holds components already; give another folder, or store=None.")
    with _shown(progress) as tell:
        chain = disentangle(target, given.data, spec, place, tell)
        tables = write_components(target, chain, given, root, spec, place, tell)
        found = measure(target, tables, given, spec, place, tell)
    settings = spec.model_dump(mode="json", include={"disentangler", "components", "analysis", "seed", "precision"})
    about = {"net": type(net).__name__, "layer": layer, "pre_relu": pre_relu, "preprocess": preprocess}
    return Analysis(
        components=tables,
        disentanglers={phi.order: phi for phi in chain},
        settings={"target": about, **settings},
        title=f"{type(net).__name__} at {layer}, {len(given.data.train_labels):,} images",
        keep=folder,
        **found,
    )


class Target(NamedTuple):
    """A copy of the owner's net, and its halves; each takes images as the data set normalises them."""

    whole: nn.Module
    feature: nn.Module
    head: nn.Module
    shape: Shape
    grid: tuple[int, int] | None


def cut_target(net: nn.Module, data: Dataset, layer: str, pre_relu: bool, preprocess: str | Pixels) -> Target:
    """The net cut at its layer, after a look at whether images, net and labels fit.

    Raises:
        InputError: when they do not.
    """
    model, before = own_copy(net), rescaled(data, preprocess)
    few = data.normalise(data.train_images[:2])
    try:
        with torch.no_grad():
            logits = model(before(few))
    except (RuntimeError, ValueError, TypeError) as error:
        shape = "×".join(map(str, data.shape))
        raise InputError(
            f"The net cannot take images of {shape} ({error}); resize them or check their channels."
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise InputError("The net gives no logits (n, classes); wrap it in a module that returns them alone.")
    if logits.shape[1] < len(data.classes):
        raise InputError(
            f"There is a label {len(data.classes) - 1}, but the net has {logits.shape[1]} classes; check labels."
        )
    split = split_net(model, layer, pre_relu, data.shape)
    return Target(
        nn.Sequential(before, model), nn.Sequential(before, split.feature), split.head, split.shape, split.grid
    )


def disentangle(target: Target, data: Dataset, spec: RunSpec, device: torch.device, tell: Tell) -> list[Disentangler]:
    """The chain of disentanglers, each depth warm-started from the one before, seeds and schedules a run's."""
    settings, chain = spec.disentangler, list[Disentangler]()
    numerics = Numerics(precision=resolve_precision(spec.precision, device))
    samples = Augmented(data, data.pool, device)
    feature = target.feature.to(device)
    for i, blocks in enumerate(settings.blocks):
        chain.append(
            taught_disentangler(
                blocks,
                samples,
                feature,
                target.shape,
                at_depth(settings, i),
                previous=chain[-1] if chain else None,
                width=settings.width,
                identity=settings.protocol == "fast",
                grid=target.grid,
                seed=derive_seed(spec.seed, "disentangler", blocks),
                numerics=numerics,
                on_step=_steps(tell, f"disentangler of order {3 * blocks + 1}"),
            )[0]
        )
    for net in chain:  # trained with channels last; as a stage reads them from its store, the last digits are a run's
        net.to(memory_format=torch.contiguous_format)
    return chain


def write_components(
    target: Target,
    chain: list[Disentangler],
    given: Given,
    root: Path,
    spec: RunSpec,
    device: torch.device,
    tell: Tell,
) -> dict[str, ComponentTable]:
    """Each split's components as Parquet in a folder below `root`; without `seen` the pool stands in for it."""
    splits = ("pool", "validation", "seen", "test") if given.seen is not None else ("pool", "validation", "test")
    for split in splits:
        images, labels, samples = sample_rows(
            given.data.split(split, given.seen), spec.components.rows, derive_seed(0, "rows")
        )
        extract(
            target.feature,
            {phi.order: phi for phi in chain},
            images,
            labels,
            samples,
            root / "components" / split,
            normalise=given.data.normalise,
            device=device,
            dtype=spec.components.dtype,
            part_rows=spec.components.part_rows,
            meta={"split": split},
            progress=partial(tell, f"components of {split}"),
        )
    return {split: ComponentTable.open(root / "components" / split) for split in splits}


def measure(
    target: Target,
    tables: dict[str, ComponentTable],
    given: Given,
    spec: RunSpec,
    device: torch.device,
    tell: Tell,
) -> dict[str, Any]:
    """Every analysis of the components, as the fields of `Analysis` that it fills."""
    head = target.head.to(device)
    common: dict[str, Any] = spec.analysis.model_dump() | {"seed": derive_seed(0, "bootstrap")}
    tell("significance", 0, 1)
    significance = measure_significance(tables, **common, device=device)
    tell("Shapley values", 0, 1)
    train, test = (
        played(tables[split], head, split, device) for split in ("seen" if "seen" in tables else "pool", "test")
    )
    games = outcome(tables["test"].orders, train, test, significance.moments, **common)
    tell("substitution", 0, 1)
    answered = {name: table for name, table in tables.items() if name != "pool"}
    substitution = measure_substitution(answered, head, **common, device=device)
    needs = "needs nets trained for the same task, which `featcx run` trains."
    missing = {"reliability": f"Reliability {needs}", "decodability": f"Decodability {needs}"}
    effective, notes = games.effectiveness.orders, given.notes | missing
    if given.seen is None:
        unknown = [name for name in map(str, effective) if "overfit" in name]
        effective = effective.assign(**dict.fromkeys(unknown, math.nan) | {"overfitting_stable": False})
        notes |= {"overfitting": f"Over-fitting is left out. {UNKNOWN} Effectiveness is that on the pool's images."}
    pictures = make_pictures(_visible(given.data), tables["test"], head.cpu())
    scores = score_target(target.whole, given.data, given.seen, device)
    return {
        "frames": {
            "significance": significance.orders.assign(draws=drawn(spec.disentangler)),
            "splits": significance.splits,
            "covariance": significance.covariance,
            "effectiveness": effective,
            "interactions": games.interactions,
            "substitution": substitution.orders,
            "substitution_splits": substitution.splits,
            "gain": pd.DataFrame([substitution.gain]),
        },
        "scores": scores | {"feature_variance": significance.feature_variance},
        "chosen_order": substitution.chosen_order,
        "notes": notes,
        "pictures": pictures,
    }


def _steps(tell: Tell, what: str) -> Callable[[Step], None]:
    return lambda step: tell(what, step.done, step.total)


def _visible(data: Dataset) -> Dataset:
    """The data set with its test images as bytes, floats from their least to their greatest value."""
    if data.test_images.dtype == torch.uint8:
        return data
    low, high = data.test_images.aminmax()
    shown = ((data.test_images - low) / (high - low).clamp_min(1e-30) * 255).round().to(torch.uint8)
    kept = {field.name: getattr(data, field.name) for field in fields(data)}
    return Dataset(**kept | {"test_images": shown, "train_images": shown[:0]})


def _spec(
    net: nn.Module,
    layer: str,
    preprocess: str | Pixels,
    pre_relu: bool,
    orders: Sequence[int],
    width: int,
    draws: int | Sequence[int] | None,
    schedule: ScheduleSpec,
    rows: int,
    bootstrap: int,
    confidence: float,
    seed: int,
    precision: Precision,
) -> RunSpec:
    """The settings in a run's own vocabulary, which checks them."""
    wrong = [order for order in orders if order < 4 or (order - 1) % 3]
    if wrong:
        raise InputError(f"There is no disentangler of order {wrong[0]}; orders are 3·m + 1, such as 4, 7, 13, 25.")
    budget = DRAWS if draws is None else (draws,) if isinstance(draws, int) else tuple(draws)
    return validate(
        {
            "disentangler": {
                "blocks": [(order - 1) // 3 for order in orders],
                "width": width,
                "chains": 1,
                "continuation": False,
                "schedule": schedule.model_dump(),
                "draws": budget,
                "batches": BATCHES,
            },
            "components": {"rows": rows},
            "analysis": {"bootstrap": bootstrap, "confidence": confidence},
            "seed": seed,
            "precision": precision,
        }
    )


def _pair(given: Any) -> tuple[Tensor, Tensor]:
    """Test images and labels, as a pair or as a loader."""
    return pair_of(*given) if isinstance(given, tuple | list) and len(given) == 2 else pair_of(given)


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"There is no device '{wanted}' here; choose auto or cpu.")
    return torch.device(wanted)


@contextlib.contextmanager
def _shown(progress: bool) -> Iterator[Tell]:
    """A bar in terminal and notebook; nothing where output goes to a file."""
    from rich.progress import Progress

    with Progress(transient=True, disable=not progress) as bar:
        task = bar.add_task("", total=1)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
