"""The reliable trunk ψ: one net that several nets' features are read off."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from featcx_core.data.images import Shape
from featcx_core.errors import InputError
from featcx_core.nets.disentangler import Disentangler
from featcx_core.nets.unit import Unit


class Trunk(nn.Module):
    """The reliable trunk ψ with K bias-free 1×1 convolutions g_k, one a net, the target's first (METHOD §5).

    g_k maps ψ to f_k standardised; `units` give f_k's own unit back.

    Args:
        blocks, in_shape, width: as of the disentangler; ψ has the shape of the first net's feature.
        out_shapes: (C, H, W) of each net's feature, all of one H×W.
        grid: (h, w) of the patches where the features are tokens.
    """

    def __init__(
        self,
        blocks: int,
        in_shape: Shape,
        out_shapes: Sequence[Shape],
        width: int,
        grid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if len({tuple(shape[1:]) for shape in out_shapes}) > 1:
            raise InputError("Target and exemplary features differ in height or width; choose layers of the same size.")
        shapes = list(out_shapes)
        self.config = {"blocks": blocks, "in_shape": in_shape, "out_shapes": shapes, "width": width, "grid": grid}
        self.psi = Disentangler(blocks, in_shape, out_shapes[0], width, grid)
        channels = out_shapes[0][0]
        self.maps = nn.ModuleList(nn.Conv2d(channels, shape[0], 1, bias=False) for shape in out_shapes)
        self.units = nn.ModuleList(Unit(shape) for shape in out_shapes)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images to the K reproduced features."""
        psi = self.psi(x)
        return tuple(unit(g(psi)) for g, unit in zip(self.maps, self.units, strict=True))

    def warm_start(self, shallower: Trunk, *, identity: bool) -> None:
        """As of the disentangler; with `identity` the maps g_k are copied too, else they start fresh, as published."""
        self.psi.warm_start(shallower.psi, identity=identity)
        self.units.load_state_dict(shallower.units.state_dict())
        if identity:
            self.maps.load_state_dict(shallower.maps.state_dict())

    @property
    def own_scale(self) -> float:
        """The scale of the target's feature: what brings Φ^reli to its unit, but for a mean that no variance sees."""
        unit = self.units[0]
        assert isinstance(unit, Unit)
        return float(unit.scale)

    def matrices(self) -> list[Tensor]:
        """The maps g_k as matrices (C_k, C), to standardised features."""
        return [g.weight.detach().flatten(1) for g in self.maps if isinstance(g, nn.Conv2d)]
