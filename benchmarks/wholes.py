"""Whole analyses of networks that are no ResNets, at a small size: a ViT at its last block, a Swin, a ConvNeXt and an MLP.

    python -m benchmarks.wholes DIR [mlp|vit|swin|convnext …]

DIR holds train*.parquet and test*.parquet of 32×32 colour images in few classes. A target is trained on 400 images, two
exemplary nets on all, and each is analysed at orders 4, 7 and 13. Prints a Markdown table a net.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SEEN, DRAWS, BATCH = 400, 8000, 64
SHOWN = ("order", "significance", "residual", "gain", "resolved", "reliability", "decodability", "substituted_accuracy")


def mlp(classes: int, width: int = 128) -> nn.Module:
    """Two hidden layers on the pixels."""
    layers = [nn.Flatten(), nn.Linear(3 * 32 * 32, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, classes))


def timm_net(name: str, **options: Any) -> Callable[[int], nn.Module]:
    """Constructor of a timm net of these options."""

    def build(classes: int) -> nn.Module:
        import timm

        return timm.create_model(name, num_classes=classes, **options)

    return build


VIT = {"img_size": 32, "patch_size": 4, "embed_dim": 48, "depth": 3, "num_heads": 3}
SWIN = {"img_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)}
CONVNEXT = {"patch_size": 2, "depths": (1, 1, 1, 1), "dims": (16, 32, 64, 64)}
NETS: dict[str, tuple[Callable[[int], nn.Module], str]] = {
    "mlp": (mlp, "4"),
    "vit": (timm_net("vit_tiny_patch16_224", **VIT), "blocks.2"),
    "swin": (timm_net("swin_tiny_patch4_window7_224", **SWIN), "norm"),
    "convnext": (timm_net("convnext_atto", **CONVNEXT), "stages.2"),
}


def trained(net: nn.Module, images: Tensor, labels: Tensor) -> nn.Module:
    """The net after DRAWS samples, mirrored at random, by AdamW in one cycle."""
    optimiser = torch.optim.AdamW(net.train().parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, DRAWS // BATCH)
    for _ in range(DRAWS // BATCH):
        chosen = torch.randint(0, len(labels), (BATCH,))
        x = torch.where(torch.rand(BATCH, 1, 1, 1) < 0.5, images[chosen], images[chosen].flip(3))
        optimiser.zero_grad()
        F.cross_entropy(net(x), labels[chosen]).backward()
        optimiser.step()
        schedule.step()
    return net.eval()


def whole(name: str, folder: str) -> None:
    """Trains and analyses one net, and prints its table."""
    import featcx_core as fx

    began, (build, layer) = time.monotonic(), NETS[name]
    data = fx.load_dataset(fx.DatasetSpec(source=f"parquet:{folder}"))
    images, labels, classes = data.normalise(data.train_images), data.train_labels, len(data.classes)
    seen = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:SEEN]
    nets = []
    for seed, chosen in enumerate((seen, torch.arange(len(labels)), torch.arange(len(labels)))):
        torch.manual_seed(seed)
        nets.append(trained(build(classes), images[chosen], labels[chosen]))
    with torch.no_grad():
        right = nets[0](data.normalise(data.test_images)).argmax(1) == data.test_labels
    found = fx.analyze(
        nets[0], layer, data.train_images, labels, test=(data.test_images, data.test_labels), seen=seen,
        exemplary=(nets[1], nets[2]), orders=(4, 7, 13), width=8, draws=2000, rows=200, batches=(32,), cycle_steps=400,
        bootstrap=200, flip=True, device="cpu", progress=False,
    )  # fmt: skip
    print(
        f"\n**{name}**, layer `{layer}`: test accuracy {right.float().mean():.3f}, {time.monotonic() - began:.0f} s\n"
    )
    print("| " + " | ".join(SHOWN) + " |\n" + "| --- " * len(SHOWN) + "|")
    for row in found.orders[[*SHOWN]].itertuples(index=False):
        print("| " + " | ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row) + " |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for wanted in sys.argv[2:] or NETS:
        whole(wanted, sys.argv[1])
