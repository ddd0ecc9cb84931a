"""Networks of torchvision and timm by name, fresh or with the weights that these libraries bring."""

from __future__ import annotations

from typing import Any

from torch import nn

from featcx_core.errors import InputError
from featcx_core.specs import nearest

LIBRARIES = ("torchvision", "timm")
WEIGHTS = ("pretrained", "weights")  # options that bring weights
Statistics = tuple[tuple[float, ...], tuple[float, ...]]
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def check_named(library: str, name: str) -> None:
    """Whether the library has such a net.

    Raises:
        InputError: for an unknown name, with the nearest, or where the library is not installed.
    """
    if library == "timm":
        try:
            import timm
        except ImportError as error:
            raise InputError("timm is not installed; pip install 'featcx[timm]'.") from error
        known = timm.is_model(name)
        names = [] if known else timm.list_models()
    else:
        from torchvision import models

        names = models.list_models(module=models)
        known = name in names
    if not known:
        hint = nearest(name, names) if len(names) < 100 else nearest_of_many(name, names)
        raise InputError(f"{library} has no classification net '{name}'; {hint}")


def nearest_of_many(name: str, names: list[str]) -> str:
    """The nearest name, or where to look among names too many to list."""
    hint = nearest(name, names)
    return hint if hint.startswith("did") else "timm.list_models() lists them."


def build_named(library: str, name: str, channels: int, classes: int, options: dict[str, Any]) -> nn.Module:
    """A net with its head for so many classes. timm's nets are built for so many channels; torchvision's take colour.

    Raises:
        InputError: for options that the constructor does not take, or grey images where colour is needed.
    """
    if library == "timm":
        import timm

        own = {"num_classes": classes, "in_chans": channels} | options
        make: Any = timm.create_model
    else:
        from torchvision import models

        if channels != 3:
            raise InputError(
                f"torchvision's {name} takes colour images; choose a CIFAR ResNet or a timm net for grey ones."
            )
        make = models.get_model
        quick = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
        own = ({} if options.get("weights") else quick) | {"num_classes": classes} | options
    try:
        return make(name, **own)
    except (TypeError, ValueError, RuntimeError, AssertionError, KeyError) as error:
        told = ", ".join(f"{key}={value!r}" for key, value in own.items())
        raise InputError(f"{library}'s {name} cannot be built with {told}: {error}; see target.options.") from error


def fresh_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options without those that bring weights: the same net, to be given weights or trained."""
    return {name: value for name, value in options.items() if name not in WEIGHTS}


def brings_weights(net: str, options: dict[str, Any]) -> bool:
    """Whether the library's own weights are asked for."""
    return net.partition(":")[0] in LIBRARIES and any(options.get(name) for name in WEIGHTS)


def own_statistics(net: str, options: dict[str, Any], channels: int) -> Statistics | None:
    """Mean and deviation of the pixels in [0, 1] that a library's weights were trained on; None for other nets."""
    library, _, name = net.partition(":")
    if library == "timm":
        import timm

        told: Any = timm.get_pretrained_cfg(name)
        mean, std = tuple(getattr(told, "mean", IMAGENET[0])), tuple(getattr(told, "std", IMAGENET[1]))
    elif library == "torchvision":
        from torchvision import models

        weights = options.get("weights")
        chosen = models.get_model_weights(name)[weights.rpartition(".")[2]] if isinstance(weights, str) else None
        transforms = chosen.transforms() if chosen is not None else None
        mean, std = tuple(getattr(transforms, "mean", IMAGENET[0])), tuple(getattr(transforms, "std", IMAGENET[1]))
    else:
        return None
    return spread(mean, channels), spread(std, channels)


def spread(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """One value a channel: one for all is repeated, three for one channel are averaged."""
    if len(values) == channels:
        return tuple(values)
    return (sum(values) / len(values),) * channels
