"""Target nets: built-in and custom architectures, each with its feature and head, and their training."""

from __future__ import annotations

import copy
import importlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featcx_core.data.images import Shape
from featcx_core.errors import InputError
from featcx_core.nets.hooks import logits_of
from featcx_core.nets.named import LIBRARIES, build_named, check_named, fresh_options
from featcx_core.nets.split import cut, nonlinear_layers, relinked
from featcx_core.specs import Layout, nearest
from featcx_core.store.held import held

GIVEN = "given"  # given:DIGEST, a module that this process has in hand


class BasicBlock(nn.Module):
    """conv BN ReLU conv BN, + option-A shortcut, ReLU (He et al. 2016, doi:10.1109/CVPR.2016.90)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.stride, self.added = stride, channels_out - channels_in

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.stride == 1 else x[:, :, :: self.stride, :: self.stride]
        if self.added:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(h)) + shortcut)


class CifarResNet(nn.Module):
    """ResNet-(6n+2) for small images: three stages of n two-conv blocks with 16, 32, 64 channels."""

    def __init__(self, n: int, channels: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        widths = (16, 16, 32, 64)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    BasicBlock(widths[s], widths[s + 1], 1 if s == 0 else 2),
                    *(BasicBlock(widths[s + 1], widths[s + 1], 1) for _ in range(n - 1)),
                )
                for s in range(3)
            )
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))


def _torchvision(name: str) -> Callable[[int, int], nn.Module]:
    def build(channels: int, classes: int) -> nn.Module:
        from torchvision import models

        net = getattr(models, name)(weights=None, num_classes=classes)
        first = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
        first.stride = (2, 2)  # VGG's first convolution at stride 2, as published; a ResNet's has it already
        if name.startswith("vgg"):
            net.features[43] = (
                nn.Identity()
            )  # its head is ReLU → pool to 7×7 → linear layers, without the last max pool
        if channels != 3:
            raise InputError(f"{name} takes colour images; choose a CIFAR ResNet such as resnet8 for grey ones.")
        return net

    return build


def _cifar(n: int) -> Callable[[int, int], nn.Module]:
    return lambda channels, classes: CifarResNet(n, channels, classes)


# net → (constructor of channels and classes, layer whose final ReLU's input is the feature)
BUILTIN: dict[str, tuple[Callable[[int, int], nn.Module], str]] = {
    **{f"resnet{6 * n + 2}": (_cifar(n), "stages.2") for n in (1, 2, 3, 5, 7)},
    "resnet18": (_torchvision("resnet18"), "layer4"),
    "resnet34": (_torchvision("resnet34"), "layer4"),
    "vgg16_bn": (_torchvision("vgg16_bn"), "features.42"),
}


def custom(net: str) -> Callable[..., nn.Module]:
    """The constructor that `module:function` names, from modules that FEATCX_ALLOW_IMPORTS lists.

    Raises:
        InputError: when the module is not allowed or has no such function.
    """
    module, _, function = net.partition(":")
    allowed = [name.strip() for name in os.environ.get("FEATCX_ALLOW_IMPORTS", "").split(",") if name.strip()]
    if module not in allowed:
        raise InputError(
            f"'{net}' is code that featcx may not import; add {module} to FEATCX_ALLOW_IMPORTS to allow it."
        )
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"'{net}' cannot be loaded ({error}); give module:function of an importable module."
        ) from error


def check_net(net: str) -> None:
    """Whether `net` can be built.

    Raises:
        InputError: for an unknown name, with the nearest.
    """
    library, _, name = net.partition(":")
    if library == GIVEN:
        held(name)
    elif library in LIBRARIES:
        check_named(library, name)
    elif ":" in net:
        custom(net)
    elif net not in BUILTIN:
        raise InputError(
            f"There is no net '{net}'; {nearest(net, [*BUILTIN])} Or give torchvision:NAME, timm:NAME or module:function."
        )


def build_net(net: str, channels: int, classes: int, options: dict[str, Any] | None = None) -> nn.Module:
    """A freshly initialised net from images with `channels` to logits (n, classes)."""
    check_net(net)
    library, _, name = net.partition(":")
    if library in LIBRARIES:
        return build_named(library, name, channels, classes, options or {})
    if library == GIVEN:
        return drawn_anew(held(name))
    if ":" in net:
        return custom(net)(classes=classes, **(options or {}))
    return BUILTIN[net][0](channels, classes)


@torch.no_grad()
def drawn_anew(net: nn.Module) -> nn.Module:
    """A copy whose weights are drawn as its modules draw theirs; a module that has no such way gives its weights a normal
    draw with their own mean and deviation.
    """
    fresh = copy.deepcopy(net)
    for module in fresh.modules():
        draw = getattr(module, "reset_parameters", None)
        if callable(draw):
            draw()
        else:
            for own in module.parameters(recurse=False):
                if own.is_floating_point() and own.numel() > 1:
                    own.normal_(float(own.mean()), float(own.std()))
    return fresh


class Rescaled(nn.Module):
    """scale·x + shift, a value a channel: images in the pool's normalisation to what the net was trained on."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Sequence[float], shift: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale)[:, None, None], persistent=False)
        self.register_buffer("shift", torch.tensor(shift)[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.shift


class TargetNet(nn.Module):
    """A target net with its feature and head. Images (n, C, H, W), normalised as the pool is → logits (n, classes).

    Args:
        net: a built-in name, torchvision:NAME, timm:NAME or module:function.
        in_shape: (C, H, W) of an image.
        classes: number of classes.
        layer: where the feature is; None for the net's own choice, or what stands before the head.
        pre_relu: whether the feature is the input of the layer's final ReLU; None: yes for built-in nets.
        options: keyword arguments of the constructor.
        layout: of the layer's output; None to recognise it.
        rescale: (scale, shift) a channel that stand between the pool's normalisation and the net; None for nothing.
    """

    def __init__(
        self,
        net: str,
        in_shape: Shape,
        classes: int,
        layer: str | None = None,
        pre_relu: bool | None = None,
        options: dict[str, Any] | None = None,
        layout: Layout | None = None,
        rescale: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        own = BUILTIN.get(net)
        if layer is None and own is None and net.partition(":")[0] not in LIBRARIES:
            raise InputError(f"'{net}' has no feature layer of its own; name one with target.layer.")
        layer = layer or (own[1] if own else None)
        pre_relu = (own is not None) if pre_relu is None else pre_relu
        self.model = build_net(net, in_shape[0], classes, options)
        split = cut(self.model, layer, pre_relu, in_shape, layout)
        self.config: dict[str, Any] = {
            "net": net,
            "in_shape": list(in_shape),
            "classes": classes,
            "layer": split.layer,
            "pre_relu": pre_relu,
            "options": fresh_options(options or {}),
            "layout": split.layout,
            "rescale": rescale,
        }
        self.rescale = nn.Identity() if rescale is None else Rescaled(*rescale)
        # Halves of the same parameters: kept out of the module tree so that the state dict holds each weight once.
        self._cut = (split.feature, split.head)
        feature = split.feature if rescale is None else nn.Sequential(self.rescale, split.feature)
        self._halves = (feature, split.head)
        self.shape, self.classes, self.grid, self.way = split.shape, classes, split.grid, split.way

    def forward(self, x: Tensor) -> Tensor:
        return logits_of(self.model(self.rescale(x)))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TargetNet:
        super()._apply(fn, recurse)
        for half in self._cut:
            relinked(half, self.model)
        return self

    @property
    def depth(self) -> int:
        """Nonlinear layers from image to logits: activation functions applied to an image on its way."""
        return nonlinear_layers(self.model, tuple(self.config["in_shape"]))

    @property
    def feature(self) -> nn.Module:
        """Images → feature (n, C, H, W); call in evaluation mode."""
        return self._halves[0]

    @property
    def head(self) -> nn.Module:
        """Feature → logits (n, classes); call in evaluation mode."""
        return self._halves[1]
