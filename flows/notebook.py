"""A network in hand, taken apart in one call: a run's own stages in this process, on what a notebook holds."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featcx_core.data.images import Dataset, FloatDataset
from featcx_core.errors import InputError
from featcx_core.nets.hooks import logits_of
from featcx_core.nets.split import split_net
from featcx_core.nets.targets import Rescaled
from featcx_core.notebook.analysis import Analysis
from featcx_core.notebook.given import Given, as_dataset, own_copy, pair_of
from featcx_core.notebook.opening import open_run
from featcx_core.specs import Layout, Precision, RunSpec, ScheduleSpec, validate
from featcx_core.store.artifacts import Store
from featcx_core.store.held import holding
from featcx_core.store.keys import digest
from featcx_core.training.brought import rescaling
from flows.affordable import STEPS, affordable
from flows.recipes import Node, Submit, analyse_target, count_stages
from flows.running.here import Here, told
from flows.running.preflight import check_budget, check_runtime, check_store, numerics_for
from tasks.env import Env
from tasks.given import analysis, given_data, given_target

SCHEDULE = ScheduleSpec(lr=2e-2, lr_end=2e-5, shape="trapezoid", optimiser="muon", batch=32)
DRAWS = (30_000, 24_000, 12_000, 8_000)  # of the orders in turn, shared by the chains; the last repeats
BATCHES = (32, 32, 32, 64)
UNKNOWN = "Which images the net was trained on is not known; give seen=, 'all' if it was trained on all of them."
EXEMPLARY = "needs two more nets trained for the same task; give exemplary=(net_a, net_b)."
PROBES = 16  # images that show what a net does


def analyze(
    net: nn.Module,
    layer: str,
    images: Any,
    labels: Any = None,
    *,
    test: Any = None,
    seen: Any = None,
    exemplary: tuple[nn.Module, nn.Module] | None = None,
    preprocess: str | Mapping[str, Sequence[float]] = "pool",
    orders: Sequence[int] = (4, 7, 13, 25),
    width: int = 16,
    draws: int | Sequence[int] | None = None,
    device: str = "auto",
    seed: int = 0,
    store: str | Path | None = None,
    chains: int = 2,
    continuation: bool = True,
    pre_relu: bool = False,
    layout: Layout | None = None,
    crop: int | None = None,
    flip: bool = False,
    rows: int = 1000,
    schedule: ScheduleSpec = SCHEDULE,
    batches: Sequence[int] = BATCHES,
    cycle_steps: int = 32_000,
    bootstrap: int = 1000,
    confidence: float = 0.95,
    precision: Precision = "auto",
    progress: bool = True,
) -> Analysis:
    """Takes the feature of any network apart by complexity: a `featcx run` for a net and images in hand.

    The net is copied; the owner's stays as it is. For the same data, net, seed and settings the numbers are a run's, to the
    last digit. Ctrl-C, or a notebook's stop, ends it.

    Args:
        net: images (n, C, H, W) to logits (n, classes).
        layer: dotted name of the module whose output is the feature, NAME#2 for its second call.
        images: uint8 (n, C, H, W), scaled and normalised as `preprocess` says, or floats as the net takes them; a
            DataLoader or Dataset of (image, label) stands for images and labels.
        labels: int (n,).
        test: (images, labels), or a DataLoader or Dataset; a fifth of each class is held out if None.
        seen: the images that the net was trained on: 'all', indices or a mask; without it over-fitting is left out.
        exemplary: two other nets for the same task, with the same layer: what they share with the net is reliability, what a
            linear map reads off them decodability. Without them both are left out.
        preprocess: between pixels in [0, 1] and the net: 'pool' (the images' own mean and deviation taken out), 'none',
            'imagenet' or {mean, std}.
        orders: complexity orders, rising, each 3·m + 1.
        width: channels of the disentanglers' first stage, 128κ.
        draws: samples that the disentanglers of an order are trained on, all chains together; one number or one an order.
            None: 30,000, 24,000, 12,000 and 8,000, or of a net that is dear to ask the share that makes all trainings take
            4·10¹² floating-point operations, about a minute on two cores; the result says so.
        device: auto, cpu, cuda or cuda:N.
        seed: of all that is random.
        store: a folder of artifacts in which stages are kept and found again, as those of a run; None: a temporary one, gone
            with the result.
        chains: of disentanglers with seeds of their own. What they share is told apart from chance; of one nothing is.
        continuation: train the shallower nets on beside the deeper ones, and take a null target apart: which orders are
            resolved. Without it an analysis takes a quarter of the time.
        pre_relu: take the input of the layer's final ReLU, as the paper does.
        layout: of the layer's output: chw, hwc, td (tokens × channels), dt or d; None to recognise it.
        crop, flip: augmentation: padding of random crops in pixels (None: an eighth of the side), mirroring.
        rows: images a split that are looked at, drawn with a fixed seed.
        schedule, batches: of each disentangler's and trunk's training, `draws` apart; a batch size an order.
        cycle_steps: of the maps that reliability takes (only with `exemplary`).
        bootstrap, confidence: draws and coverage of the intervals.
        precision: fp32, bf16 or auto.
        progress: show how far it is.

    Raises:
        InputError: for a net, layer, images or labels that do not fit together, with what to do.

    >>> import torch, featcx_core as fx
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, 2, 1), torch.nn.Flatten(), torch.nn.Linear(64, 2))
    >>> images, labels = torch.randint(256, (150, 1, 8, 8), dtype=torch.uint8), torch.arange(150) % 2
    >>> a = fx.analyze(net, "0", images, labels, orders=(4, 7), width=2, draws=640, rows=40, bootstrap=100)
    >>> a.orders[["order", "significance", "residual", "resolved"]].shape
    (2, 4)
    """
    given = as_dataset(*pair_of(images, labels), None if test is None else _pair(test), seen, crop=crop, flip=flip)
    spec = _spec(
        target={"layer": layer, "preprocess": preprocess, "pre_relu": pre_relu, "layout": layout},
        disentangler={"width": width, "chains": chains, "continuation": continuation},
        orders=orders,
        training={"schedule": schedule.model_dump(), "draws": _budget(draws), "batches": tuple(batches)},
        reliability={"enabled": exemplary is not None, "cycle_steps": cycle_steps},
        components={"rows": rows},
        analysis={"bootstrap": bootstrap, "confidence": confidence},
        seed=seed,
        precision=precision,
        runtime={"device": device},
    )
    nets = [own_copy(each) for each in (net, *(exemplary or ()))]
    for each in nets:
        _check_fit(each, given.data, spec)
    check_budget(spec)
    check_runtime(spec.runtime)
    notes = dict[str, str]()
    with _place(store) as (place, folder), _undisturbed():
        contents = [_images_content(given), *(_content(each, layer, given.data) for each in nets)]
        if len(set(contents)) < len(contents):
            raise InputError(
                "Two of the nets are one and the same; give exemplary nets that were trained by themselves."
            )
        if draws is None:
            spec, notes = _within_budget(spec, given, contents, nets[0])
        about = {
            "settings": _told(spec, type(net).__name__),
            "notes": given.notes | notes | _missing(spec),
            "title": f"{type(net).__name__} at {layer}, {len(given.data.train_labels):,} images",
            "unseen": UNKNOWN if given.seen is None else None,
        }
        recipe = _recipe(spec, given, contents, about)
        env = Env(store=str(place.root), run=f"notebook-{uuid.uuid4().hex[:12]}", device=device)
        with (
            holding(dict(zip(contents, (given, *nets), strict=True))),
            Here(env) as submit,
            told(env, count_stages(recipe)) if progress else contextlib.nullcontext(),
        ):
            node = recipe(submit)
            submit.settled()
        found = open_run(place.root, node.result().key)
    found.keep = folder
    return found


def _recipe(spec: RunSpec, given: Given, contents: Sequence[str], about: dict[str, Any]) -> Callable[[Submit], Node]:
    """The DAG: what a run makes of a target, with the data set and the nets in hand in front of it, under one key."""
    images, *nets = contents
    seen = given.data.pool if given.seen is None else given.seen
    sizes = {"seen": len(seen), "test": len(given.data.test_labels)}
    target = spec.target

    def stages(submit: Submit) -> Node:
        data = submit(given_data, images=images)
        own, *others = (
            submit(
                given_target,
                "exemplary" if i else "",
                data=data,
                images=images,
                net=net,
                layer=target.layer,
                pre_relu=target.pre_relu,
                layout=target.layout,
                preprocess=target.preprocess,
            )
            for i, net in enumerate(nets)
        )
        found, _ = analyse_target(submit, spec, data, own, others or None, numerics_for(spec), sizes=sizes)
        return submit(analysis, network=found._asdict(), **about)

    return stages


def _images_content(given: Given) -> str:
    """The digest of a data set and of what of it the net has seen."""
    data = given.data
    tensors = [value for value in (*vars(data).values(), given.seen) if isinstance(value, Tensor)]
    return digest([type(data).__name__, data.crop, data.flip, list(data.classes), *map(_sha256, tensors)])


@torch.no_grad()
def _content(net: nn.Module, layer: str, data: Dataset) -> str:
    """What a net is, as a digest: its structure, its tensors, and what it makes of a few images at the layer and in the end.

    The text of its code is not looked at, which a notebook may not have; what the code does to the images is.
    """
    seen = list[str]()
    module = dict(net.named_modules()).get(layer.partition("#")[0])
    hook = None if module is None else module.register_forward_hook(lambda m, x, y: seen.append(_sha256(y)))
    try:
        logits = net(data.normalise(data.train_images[data.pool[:PROBES]]))
    finally:
        if hook is not None:
            hook.remove()
    tensors = {name: _sha256(value) for name, value in net.state_dict().items()}
    return digest([f"{type(net).__module__}.{type(net).__qualname__}", repr(net), tensors, seen, _sha256(logits)])


def _sha256(value: Any) -> str:
    if not isinstance(value, Tensor):
        return "–"
    plain = value.detach().cpu().contiguous().flatten()
    return hashlib.sha256(
        f"{value.dtype} {tuple(value.shape)}".encode() + bytes(plain.view(torch.uint8).numpy())
    ).hexdigest()


@torch.no_grad()
def _check_fit(net: nn.Module, data: Dataset, spec: RunSpec) -> None:
    """Whether images, net and labels fit.

    Raises:
        InputError: when they do not.
    """
    preprocess = spec.target.preprocess
    if isinstance(data, FloatDataset) and preprocess not in ("pool", "none"):
        raise InputError("Floats go to the net as they are; leave preprocess out, or give the pixels as uint8.")
    rescale = rescaling(preprocess, data)
    before = nn.Identity() if rescale is None else Rescaled(*rescale)
    try:
        logits = logits_of(net(before(data.normalise(data.train_images[:2]))))
    except (RuntimeError, ValueError, TypeError) as error:
        shape = "×".join(map(str, data.shape))
        raise InputError(
            f"The net cannot take images of {shape} ({error}); resize them or check their channels."
        ) from error
    if logits.ndim != 2:
        raise InputError("The net gives no logits (n, classes); wrap it in a module that returns them alone.")
    if logits.shape[1] < len(data.classes):
        raise InputError(
            f"There is a label {len(data.classes) - 1}, but the net has {logits.shape[1]} classes; check labels."
        )


def _spec(*, orders: Sequence[int], training: dict[str, Any], **given: Any) -> RunSpec:
    """The settings in a run's own vocabulary, which checks them."""
    wrong = [order for order in orders if order < 4 or (order - 1) % 3]
    if wrong:
        raise InputError(f"There is no disentangler of order {wrong[0]}; orders are 3·m + 1, such as 4, 7, 13, 25.")
    for part in ("disentangler", "reliability"):
        given[part] |= training
    given["disentangler"]["blocks"] = [(order - 1) // 3 for order in orders]
    preprocess = given["target"]["preprocess"]
    if not (
        preprocess in ("pool", "none", "imagenet")
        if isinstance(preprocess, str)
        else set(preprocess) == {"mean", "std"}
    ):
        raise InputError(f"preprocess = {preprocess!r}; choose pool, none, imagenet, or give {{mean, std}}.")
    return validate(given)


def _budget(draws: int | Sequence[int] | None) -> tuple[int, ...]:
    return DRAWS if draws is None else (draws,) if isinstance(draws, int) else tuple(draws)


def _within_budget(
    spec: RunSpec, given: Given, contents: Sequence[str], net: nn.Module
) -> tuple[RunSpec, dict[str, str]]:
    """The settings with as many draws as BUDGET allows, and a note where these are fewer than usual."""
    target, own, shape = spec.target, spec.disentangler, given.data.shape
    assert target.layer is not None
    split = split_net(net, target.layer, bool(target.pre_relu), shape, target.layout)
    least = STEPS * own.chains * max(own.batches or BATCHES)
    draws = affordable(_recipe(spec, given, contents, {}), split, shape, own.width, DRAWS, least)
    if draws == DRAWS:
        return spec, {}
    parts = {name: getattr(spec, name).model_copy(update={"draws": draws}) for name in ("disentangler", "reliability")}
    return spec.model_copy(update=parts), {
        "draws": f"This net takes long to ask, so disentanglers are trained on {draws[0] / DRAWS[0]:.0%} of the usual draws; "
        f"give draws= for more, usual are {', '.join(map(str, DRAWS))}."
    }


def _told(spec: RunSpec, net: str) -> dict[str, Any]:
    """The settings that count here."""
    shown = {"disentangler", "components", "analysis", "seed", "precision"}
    told = spec.model_dump(mode="json", include=shown | ({"reliability"} if spec.reliability.enabled else set()))
    target = spec.target.model_dump(mode="json", include={"layer", "pre_relu", "layout", "preprocess"})
    return {"target": {"net": net} | target} | told


def _missing(spec: RunSpec) -> dict[str, str]:
    """Why reliability and decodability are not there."""
    if spec.reliability.enabled:
        return {}
    return {"reliability": f"Reliability {EXEMPLARY}", "decodability": f"Decodability {EXEMPLARY}"}


def _pair(given: Any) -> tuple[Tensor, Tensor]:
    """Test images and labels, as a pair or as a loader."""
    return pair_of(*given) if isinstance(given, tuple | list) and len(given) == 2 else pair_of(given)


@contextlib.contextmanager
def _place(store: str | Path | None) -> Iterator[tuple[Store, Any]]:
    """(a store, what must live as long as what lies in it): a temporary one goes at once when the block fails."""
    if store is not None:
        check_store(Path(store))
        yield Store(store), None
        return
    folder = tempfile.TemporaryDirectory(prefix="featcx-", ignore_cleanup_errors=True)
    try:
        yield Store(folder.name), folder
    except BaseException:
        folder.cleanup()
        raise


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Torch's global settings and random numbers are afterwards what they were."""
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn.deterministic
    with torch.random.fork_rng():
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.backends.cudnn.deterministic = cudnn
