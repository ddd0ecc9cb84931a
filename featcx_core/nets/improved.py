"""The improved network: a disentangler in place of everything in front of the target's head (METHOD §7, substitution)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featcx_core.data.images import Dataset
from featcx_core.nets.disentangler import Disentangler, Ensemble
from featcx_core.nets.targets import TargetNet
from featcx_core.nets.weights import save_network


class ImprovedNet(nn.Module):
    """Φ^(l), then the target's head: images (n, C, H, W) to logits (n, classes).

    Args:
        disentanglers, target: configurations of the nets; Φ is the mean of the disentanglers, of the target only the head
            is kept.
        classes: class names.
        mean, std: of the pixels in [0, 1], a value a channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        disentanglers: tuple[dict[str, Any], ...],
        target: dict[str, Any],
        classes: tuple[str, ...],
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.config = {"disentanglers": disentanglers, "target": target, "classes": classes, "mean": mean, "std": std}
        self.classes = classes
        self.disentangler = Ensemble([Disentangler(**config) for config in disentanglers])
        self.head = TargetNet(**target).head
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of uint8 images, or of float ones in [0, 1]."""
        pixels = images.float() / 255 if images.dtype == torch.uint8 else images
        return self.head(self.disentangler((pixels - self.mean) / self.std))


def improved_net(disentangler: Ensemble, target: TargetNet, data: Dataset) -> ImprovedNet:
    """The network that uses the head of `target` on what `disentangler` makes of an image, with their weights.

    >>> import torch, featcx_core as fx
    >>> from featcx_core.nets.disentangler import Ensemble
    >>> data, target = fx.load_dataset(fx.DatasetSpec(source="digits")), fx.TargetNet("resnet8", (1, 8, 8), classes=10)
    >>> net = fx.improved_net(Ensemble([fx.Disentangler(1, (1, 8, 8), target.shape, width=2)]), target, data)
    >>> net(data.test_images[:3]).shape
    torch.Size([3, 10])
    """
    mean, std = tuple(data.mean.tolist()), tuple(data.std.tolist())
    net = ImprovedNet(tuple(disentangler.configs), target.config, data.classes, mean, std)
    net.disentangler.load_state_dict(disentangler.state_dict())
    net.head.load_state_dict(target.head.state_dict())
    return net.eval()


def export_network(net: ImprovedNet, folder: Path) -> str | None:
    """Writes weights.safetensors and network.json, and model.pt2 where torch.export can.

    Returns:
        Why there is no model.pt2, None when there is.

    >>> import tempfile, torch, featcx_core as fx
    >>> from pathlib import Path
    >>> from featcx_core.nets.disentangler import Ensemble
    >>> data, target = fx.load_dataset(fx.DatasetSpec(source="digits")), fx.TargetNet("resnet8", (1, 8, 8), classes=10)
    >>> net = fx.improved_net(Ensemble([fx.Disentangler(1, (1, 8, 8), target.shape, width=2)]), target, data)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     reason = fx.export_network(net, Path(folder))
    ...     torch.equal(fx.load_network(folder)(data.test_images[:3]), net(data.test_images[:3]))
    True
    """
    save_network(net, folder)
    example = torch.zeros(2, *net.disentangler.in_shape)
    batch = torch.export.Dim("batch", min=1)
    try:
        program = torch.export.export(net, (example,), dynamic_shapes=({0: batch},))
        torch.export.save(program, folder / "model.pt2")
    except Exception as error:  # torch.export raises many kinds; the safetensors above are the contract
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None
