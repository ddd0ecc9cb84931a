"""The unit that a net learns a feature in: one mean an element and one scale, measured, kept with the net, given back."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from featcx_core.errors import InputError

# Float32 has 24 bits: a feature whose deviation is less than this share of its size is rounding and nothing else.
ROUNDING = 2.0**-21


class Unit(nn.Module):
    """z ↦ mean + scale·z: what a net gives in standardised form, in the feature's own unit.

    Affine maps add no nonlinear layer, and every share of variance is the same for f and for a·f + b; but what an optimiser
    makes of f is not. So nets learn (f − mean) / scale, whose variance is 1 on average over elements.

    Attributes:
        mean: float32 (C, H, W), of each element of the feature over the images that it was measured on.
        scale: float32 (1, 1, 1), the root of the elements' mean variance there.
        measured: false until `measure`; mean 0 and scale 1 until then.
    """

    mean: Tensor
    scale: Tensor
    measured: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(1, 1, 1))
        self.register_buffer("measured", torch.tensor(False))

    def forward(self, z: Tensor) -> Tensor:
        """Standardised (n, C, H, W) to the feature's unit."""
        return self.mean + self.scale * z

    @torch.no_grad()
    def measure(self, features: Iterable[Tensor]) -> None:
        """Takes mean and scale from batches of f, (b, C, H, W), in one pass and float64 (Chan, Golub, LeVeque 1983).

        Raises:
            InputError: when f does not vary, or not beyond float32's rounding, or is not finite.
        """
        n, mean, spread = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for f in features:
            x, m = f.double(), len(f)
            own = x.mean(0)
            apart = own - mean.to(x)
            mean = mean.to(x) + apart * (m / (n + m))
            spread = spread.to(x) + (x - own).square().sum(0) + apart.square() * (n * m / (n + m))
            n += m
        scale, size = float((spread / n).mean().sqrt()), float(mean.square().mean().sqrt())
        if not scale < float("inf"):  # NaN included
            raise InputError(
                "The feature is not finite on images of the pool; check the checkpoint and target.preprocess."
            )
        if scale <= ROUNDING * size or scale == 0:
            raise InputError(
                f"The feature is constant: over {n} images of the pool it varies by {scale:.1e} at a size of {size:.1e}, "
                "which is rounding; there is nothing to take apart. Choose another target.layer, or check the checkpoint."
            )
        self.mean.copy_(mean)
        self.scale.fill_(scale)
        self.measured.fill_(True)
