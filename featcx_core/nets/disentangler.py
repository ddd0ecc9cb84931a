"""The disentangler Φ: a residual net with exactly l = 3·blocks + 1 ReLU layers that reproduces a feature."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featcx_core.data.images import Shape
from featcx_core.nets.normed import norm_add_relu
from featcx_core.nets.unit import Unit


class Block(nn.Module):
    """conv3×3 BN, + shortcut, ReLU: one nonlinear layer. (n, C_in, H, W) → (n, C_out, ⌈H/s⌉, ⌈W/s⌉).

    The shortcut subsamples and zero-pads channels, as the CIFAR ResNet's 'option A', so it has no weights.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)
        self.stride, self.added = stride, channels_out - channels_in

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.stride == 1 else _every(x, self.stride)
        if self.added:
            before = self.added // 2
            shortcut = F.pad(shortcut, (0, 0, 0, 0, before, self.added - before))
        return norm_add_relu(self.norm, self.conv(x), shortcut)


def _every(x: Tensor, stride: int) -> Tensor:
    """x[:, :, ::stride, ::stride], by the way whose gradient is quick on x's device.

    On a CPU a slice's gradient leaves the channels-last layout (10% of a step at one block a stage); on a GPU the pool's
    takes as long as three convolutions.
    """
    return x[:, :, ::stride, ::stride] if x.is_cuda else F.avg_pool2d(x, 1, stride)


def strides_for(image: int, feature: int) -> tuple[bool, tuple[int, int, int]]:
    """(whether a /4 stem is needed, strides of the three stages) that bring `image` pixels nearest to `feature`.

    Reductions of 4 (CIFAR) and 32 (224 → 7) give the published nets. Among the choices whose output is at least as large
    as the feature the smallest is taken; what is left is pooled away.
    """
    choices = []
    for stem, strides in itertools.product((False, True), [(1, 1, 1), (1, 1, 2), (1, 2, 2), (2, 2, 2)]):
        size = -(-image // 4) if stem else image
        for stride in strides:
            size = -(-size // stride)
        choices.append((size < feature, abs(size - feature), stem, strides))
    _, _, stem, strides = min(choices)
    return stem, strides


class TokenReadout(nn.Module):
    """Tokens off a map: (n, channels, h, w) → (n, D, T, 1), linear.

    The last h·w tokens, the patches, are read by position as a map's places are; those before them, of a class or registers,
    each by a map of its own from the means over all places.
    """

    def __init__(self, channels: int, width: int, tokens: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.width, self.own = width, tokens - grid[0] * grid[1]
        self.patches = nn.Conv2d(channels, width, 1)
        self.others = nn.Linear(channels, self.own * width) if self.own else None

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2)
        if self.others is not None:
            others = self.others(x.mean((2, 3))).unflatten(1, (self.width, self.own))
            tokens = torch.cat([others, tokens], 2)
        return tokens.unsqueeze(3)


class Disentangler(nn.Module):
    """Φ^(l) with l = 3·blocks + 1 ReLU layers (METHOD: conv BN ReLU, three stages of `blocks` blocks, conv1×1).

    Args:
        blocks: residual blocks a stage, m.
        in_shape: (C, H, W) of an image.
        out_shape: (C, H, W) of the feature; the output has exactly this shape.
        width: channels of the first stage, 128κ; the others have twice and four times as many.
        grid: (h, w) of the patches where the feature is tokens, (D, T, 1); the net then makes a map h × w.

    Departures from the published nets:
        1. Strides adapt to any feature size; where no stride fits, an average pool (linear) ends at H×W.
        2. It learns the standardised feature and gives it back in its own unit, an affine map behind the readout.
    """

    def __init__(
        self, blocks: int, in_shape: Shape, out_shape: Shape, width: int = 128, grid: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        if blocks < 1:
            raise ValueError(f"blocks must be 1 or more, not {blocks}")
        self.blocks, self.in_shape, self.out_shape, self.width = blocks, in_shape, out_shape, width
        self.config = {"blocks": blocks, "in_shape": in_shape, "out_shape": out_shape, "width": width, "grid": grid}
        self.grid: tuple[int, int] | None = grid
        self.places = grid or out_shape[1:]
        large, strides = strides_for(in_shape[1], self.places[0])
        kernel, step = (7, 2) if large else (3, 1)
        self.stem = nn.Sequential(
            nn.Conv2d(in_shape[0], width, kernel, step, kernel // 2, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        if large:
            self.stem.append(nn.MaxPool2d(3, 2, 1))
        self.stages = nn.ModuleList()
        channels = width
        for stage, stride in enumerate(strides):
            out = width * 2**stage
            layers = [Block(channels, out, stride), *(Block(out, out, 1) for _ in range(blocks - 1))]
            self.stages.append(nn.Sequential(*layers))
            channels = out
        self.resize = nn.AdaptiveAvgPool2d(self.places)
        self.readout: nn.Module = nn.Conv2d(channels, out_shape[0], 1)
        if grid is not None:
            self.readout = TokenReadout(channels, out_shape[0], out_shape[1], grid)
        self.unit = Unit(out_shape)

    @property
    def order(self) -> int:
        """Number of ReLU layers, the complexity order l."""
        return 3 * self.blocks + 1

    def body(self, x: Tensor) -> Tensor:
        """The last stage's output, (n, 4·width, H, W); of tokens, h × w."""
        conv, norm, _, *pool = self.stem
        assert isinstance(norm, nn.BatchNorm2d)
        x = norm_add_relu(norm, conv(x))
        for layer in (*pool, *self.stages):
            x = layer(x)
        return x if x.shape[-2:] == self.places else self.resize(x)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, C, H, W) to features of `out_shape`."""
        return self.unit(self.readout(self.body(x)))

    @torch.no_grad()
    def warm_start(self, shallower: Disentangler, *, identity: bool) -> None:
        """Copies the stem, the readout with its unit and each stage's first blocks from a shallower net.

        Args:
            shallower: a disentangler of the same shapes and width with fewer blocks.
            identity: start the added blocks as the identity (scale of their last BatchNorm zero): since their input is
                the output of a ReLU, ReLU(0 + x) = x, and the net computes what the shallower one did. The published
                runs leave them random.
        """
        self.stem.load_state_dict(shallower.stem.state_dict())
        self.readout.load_state_dict(shallower.readout.state_dict())
        self.unit.load_state_dict(shallower.unit.state_dict())
        for mine, theirs in zip(self.stages, shallower.stages, strict=True):
            blocks, sources = list(mine.children()), list(theirs.children())
            for block, source in zip(blocks, sources, strict=False):
                block.load_state_dict(source.state_dict())
            for block in blocks[len(sources) :] if identity else []:
                assert isinstance(block, Block)
                nn.init.zeros_(block.norm.weight)


class Ensemble(nn.Module):
    """Φ of one order: the mean of what the nets of its chains give, each of which has that order's nonlinear layers.

    Args:
        nets: disentanglers of one shape, a chain each.
    """

    def __init__(self, nets: Sequence[Disentangler]) -> None:
        super().__init__()
        self.nets, first = nn.ModuleList(nets), nets[0]
        self.order, self.in_shape, self.out_shape = first.order, first.in_shape, first.out_shape
        self.configs = [net.config for net in nets]

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, C, H, W) to features of `out_shape`."""
        return torch.stack([net(x) for net in self.nets]).mean(0)
