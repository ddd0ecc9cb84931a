"""The published protocol, written plainly and apart from featcx's own code: the baseline of the training benchmarks.

From Ren et al. 2021 (arXiv:2006.15920) and METHOD.md §2, §3, §5: float32, images through PIL transforms in a DataLoader
with one worker, the target's forward pass on every batch, Adam with rates log-spaced by epoch, the whole test set
evaluated after each epoch. Nothing here is slowed down: PyTorch's own threads on all cores or a GPU, its default layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler
from torchvision import transforms

from featcx_core.data.images import Dataset

DRAWS = 2000  # samples an epoch
BATCHES = {1: 128, 2: 128, 4: 128, 8: 64, 16: 64, 32: 32}  # a depth


class Shortcut(nn.Module):
    """Every stride-th pixel, and zeros for the added channels."""

    def __init__(self, added: int, stride: int) -> None:
        super().__init__()
        self.added, self.stride = added, stride

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, H, W) → (n, C + added, ⌈H/s⌉, ⌈W/s⌉)."""
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))


class OneReluBlock(nn.Module):
    """conv BN, + shortcut, ReLU: the disentangler's block."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)
        self.shortcut = Shortcut(channels_out - channels_in, stride)

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        return F.relu(self.norm(self.conv(x)) + self.shortcut(x))


class PublishedDisentangler(nn.Module):
    """Images of 32×32, or nearly, to a feature at a quarter of their side, by 3·blocks + 1 ReLU layers."""

    def __init__(self, blocks: int, channels_in: int, channels_out: int, width: int = 128) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels_in, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.stage1 = self._stage(blocks, width, width, 1)
        self.stage2 = self._stage(blocks, width, 2 * width, 2)
        self.stage3 = self._stage(blocks, 2 * width, 4 * width, 2)
        self.readout = nn.Conv2d(4 * width, channels_out, 1)

    @staticmethod
    def _stage(blocks: int, channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
        rest = (OneReluBlock(channels_out, channels_out, 1) for _ in range(blocks - 1))
        return nn.Sequential(OneReluBlock(channels_in, channels_out, stride), *rest)

    def forward(self, x: Tensor) -> Tensor:
        """(n, C_in, H, W) → (n, C_out, ⌈H/4⌉, ⌈W/4⌉)."""
        return self.readout(self.stage3(self.stage2(self.stage1(self.stem(x)))))

    def start_from(self, shallower: PublishedDisentangler) -> None:
        """Takes over what the shallower net has learned; the added blocks stay random."""
        self.load_state_dict(shallower.state_dict(), strict=False)


class Pictures(torch.utils.data.Dataset):
    """uint8 images (n, C, H, W) as a list of PIL pictures, each transformed when it is asked for."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Image.Image], Tensor]) -> None:
        arrays = images.permute(0, 2, 3, 1).numpy()
        self.arrays = arrays[..., 0] if arrays.shape[-1] == 1 else arrays
        self.labels, self.transform = labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.arrays[i])), self.labels[i]


def training_batches(data: Dataset, batch: int) -> DataLoader:
    """An epoch: DRAWS images of the pool, drawn with replacement, cropped and, where the data allow, flipped."""
    flip = [transforms.RandomHorizontalFlip()] if data.flip else []
    crop = transforms.RandomCrop(data.shape[1:], padding=data.crop)
    pictures = Pictures(data.train_images[data.pool], data.train_labels[data.pool], _tensor(data, crop, *flip))
    sampler = RandomSampler(pictures, replacement=True, num_samples=DRAWS)
    return DataLoader(pictures, batch_size=batch, sampler=sampler, num_workers=1)


def test_batches(data: Dataset, batch: int) -> DataLoader:
    """The whole test set."""
    return DataLoader(Pictures(data.test_images, data.test_labels, _tensor(data)), batch_size=batch, num_workers=1)


def _tensor(data: Dataset, *before: Callable[[Image.Image], Image.Image]) -> transforms.Compose:
    scale = transforms.Normalize(data.mean.tolist(), data.std.tolist())
    return transforms.Compose([*before, transforms.ToTensor(), scale])


def train_epoch(net: nn.Module, target: nn.Module, batches: DataLoader, optimiser: torch.optim.Optimizer) -> float:
    """One pass of updates; the mean loss."""
    net.train()
    losses, device = [], next(net.parameters()).device
    for images, _ in batches:
        images = images.to(device)
        with torch.no_grad():
            feature = target(images)
        loss = F.mse_loss(net(images), feature)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return float(np.mean(losses))


@torch.no_grad()
def evaluate(net: nn.Module, target: nn.Module, batches: DataLoader) -> float:
    """The mean loss over the test set."""
    net.eval()
    device = next(net.parameters()).device
    there = (images.to(device) for images, _ in batches)
    return float(np.mean([F.mse_loss(net(images), target(images)).item() for images in there]))


def train_depth(
    net: nn.Module, target: nn.Module, data: Dataset, *, epochs: int, batch: int, test: bool = True
) -> Iterator[float]:
    """Trains a net through all its epochs, yielding the training loss after each (and after its test, if any)."""
    training, testing = training_batches(data, batch), test_batches(data, batch)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    for rate in np.logspace(-3, -5, epochs):
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = train_epoch(net, target, training, optimiser)
        if test:
            evaluate(net, target, testing)
        yield loss


def fit_cycle_on_images(
    trunk: Callable[[Tensor], Tensor],
    forth: list[nn.Conv2d],
    back: list[nn.Conv2d],
    data: Dataset,
    *,
    batch: int = 64,
    rounds: int = 10,
    epochs: int = 100,
) -> Iterator[float]:
    """The maps back h_k of reliability by the loop over images; yields the loss after every step.

    An epoch has `rounds` passes over DRAWS images, the r-th of which lowers Σ_k ‖h_k g_k ψ_{r−1} − ψ_{r−1}‖² with the trunk
    frozen in evaluation mode and no gradient through ψ_{r−1}.
    """
    batches = training_batches(data, batch)
    optimiser = torch.optim.Adam([p for h in back for p in h.parameters()], lr=1e-3)
    for rate in np.logspace(-3, -4, epochs):
        for group in optimiser.param_groups:
            group["lr"] = rate
        for r in range(rounds):
            for images, _ in batches:
                with torch.no_grad():
                    psi = trunk(images)
                    for _ in range(r):
                        psi = torch.stack([h(g(psi)) for g, h in zip(forth, back, strict=True)]).mean(0)
                pairs = zip(forth, back, strict=True)
                loss = torch.stack([F.mse_loss(h(g(psi)), psi) for g, h in pairs]).sum()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                yield loss.item()
