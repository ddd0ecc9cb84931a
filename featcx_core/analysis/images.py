"""Image complexity: of which orders one image's feature is made, and whether complex images are the harder ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from featcx_core.analysis.bootstrap import bootstrap_weights, interval
from featcx_core.analysis.components import ComponentTable
from featcx_core.analysis.pictures import as_bytes
from featcx_core.errors import InputError
from featcx_core.store.record import Record

EXPLAINED = 0.9  # of ‖f(x) − E f‖²: from here on an image counts as explained
ENDS = 3  # images of each class at either end of the strip
CLASSES = 10  # classes in the strip
SIDE = 64  # pixels: a thumbnail's longer side at most
DRAWS_AT_ONCE = 64

Array = np.ndarray


class Images(NamedTuple):
    """The complexity of single images.

    Attributes:
        images: a row an image: sample, label; `share_<order, three digits>`, the order's share of the image's energy, which
            sum to 1; explained_order, the lowest order whose Φ explains 90% of ‖f(x) − E f‖², NA where none does;
            complexity; energy, ‖f(x) − E f‖² as a multiple of its mean; loss.
        orders: a row an order: image_share, the mean share, and images_explained, the share of images whose
            explained_order is at most this one, each with the ends of its interval.
        ranks: one row: images; Spearman's correlation of complexity with the loss (rank_correlation), with the energy
            (rank_energy), and with the loss at equal energy (rank_partial), each with the ends of its interval; NaN where
            complexity is the same for all.
    """

    images: pd.DataFrame
    orders: pd.DataFrame
    ranks: pd.DataFrame

    def record(self, strip: pd.DataFrame | None = None) -> Record:
        """As a stage keeps it, with a strip of images where there is one."""
        frames = {"images": self.images, "image_orders": self.orders, "image_ranks": self.ranks}
        return Record(frames if strip is None else frames | {"image_strip": strip})


def measure_images(
    table: ComponentTable,
    losses: Tensor,
    *,
    readable: Sequence[int] | None = None,
    bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Images:
    """Of each image the share of its feature's energy by order, and its complexity, held against the target's loss.

    The share of order l is ‖c^(l)(x) − E c^(l)‖² / Σ_k ‖c^(k)(x) − E c^(k)‖², E over the images of the table, so that the
    energies' means are the components' variances there. Nothing here moves under f → a·f + b.

    *Complexity* is Σ_l s_l · log₂((l − 1) / (l₁ − 1)), with s the shares among `readable` orders and l₁ the lowest order of
    all: how often depth must double, weighted by energy; 0 for an image that the lowest order alone makes up. It moves with
    every share, where explained_order has but a few values. It counts doublings, since orders double: by the orders
    themselves a share at order 25 would weigh seven times one at order 7, and the deepest components, which are the least
    sure, would decide. The energy of orders that are not resolved is left out of s: it may be what a seed left, and to count
    it would call images complex whose components are noise.

    An image near the mean feature has little energy, of which noise is the larger part, and such images may be hard as well;
    so the correlation with the loss stands beside that with the energy, and is given at equal energy too.

    Args:
        losses: float (n,), the target's loss on each image of the table.
        readable: the orders that may be read as what they are called, those not known to be unresolved; None: all.
        bootstrap, confidence, seed: draws, coverage and seed of the intervals, which resample images.

    Raises:
        InputError: when there is not one loss an image.

    >>> c = torch.randn(50, 2, 3, 4, 4)
    >>> table = ComponentTable.from_tensors(c, torch.zeros(50, 3, 4, 4), torch.zeros(50))
    >>> found = measure_images(table, torch.rand(50), bootstrap=100)
    >>> found.images[["share_004", "share_007"]].sum(axis=1).round(6).unique().tolist()
    [1.0]
    """
    if losses.shape != (len(table),):
        raise InputError(f"There are losses {tuple(losses.shape)} of {len(table)} images; give one an image.")
    parts, left, whole = (value.cpu().numpy() for value in _energies(table, device))
    orders = np.array(table.orders)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = parts / parts.sum(1, keepdims=True)
        explained = 1 - left / whole[:, None] >= EXPLAINED
        read = parts * np.isin(orders, table.orders if readable is None else readable)
        complexity = (read / read.sum(1, keepdims=True)) @ np.log2((orders - 1) / max(orders[0] - 1, 1))
    first = np.where(explained.any(1), explained.argmax(1), len(orders))
    images = pd.DataFrame(
        {"sample": table.samples().numpy(), "label": table.labels().numpy()}
        | {f"share_{order:03d}": share for order, share in zip(table.orders, shares.T, strict=True)}
        | {
            "explained_order": pd.array([*table.orders, None], dtype="Int64").take(first),
            "complexity": complexity,
            "energy": whole / whole.mean(),
            "loss": losses.double().cpu().numpy(),
        }
    )
    weights = bootstrap_weights(len(images), bootstrap, seed).double().numpy()
    told = {"image_share": shares, "images_explained": first[:, None] <= np.arange(len(orders))}
    by_order = pd.DataFrame({"order": table.orders} | _means(told, weights, confidence))
    ranks = _with_ends(lambda w: _ranks(images, w), weights, confidence)
    return Images(images, by_order, pd.DataFrame([{"images": len(images)} | ranks]))


@torch.no_grad()
def _energies(table: ComponentTable, device: torch.device | str) -> tuple[Tensor, Tensor, Tensor]:
    """Around their means, float64: ‖c^(l)(x)‖² (n, L), ‖f(x) − Φ^(l)(x)‖² (n, L), ‖f(x)‖² (n,); two passes over the table."""

    def batches() -> Iterator[Tensor]:
        return (maps.to(device).flatten(2).double() for maps, _ in table.stacked(128))

    mean = sum((maps.sum(0) for maps in batches()), torch.zeros((), dtype=torch.float64, device=device)) / len(table)
    found = []
    for maps in batches():
        maps = maps - mean
        beyond = maps.flip(1).cumsum(1).flip(1)  # f, then f − Φ^(l) an order
        found.append((maps[:, :-1].square().sum(2), beyond[:, 1:].square().sum(2), beyond[:, 0].square().sum(1)))
    parts, left, whole = zip(*found, strict=True)
    return torch.cat(parts), torch.cat(left), torch.cat(whole)


def _means(values: dict[str, Array], weights: Array, confidence: float) -> dict[str, list[float]]:
    """The mean over images of each (n, L) an order, with the ends of its interval as `<name>_low`, `<name>_high`."""
    columns = dict[str, list[float]]()
    for name, each in values.items():
        drawn = weights @ each / len(each)
        ends = [interval(draws, confidence) for draws in drawn.T]
        columns |= {name: each.mean(0).tolist()}
        columns |= {f"{name}_{end}": [pair[i] for pair in ends] for i, end in enumerate(("low", "high"))}
    return columns


def _with_ends(figures: Callable[[Array], dict[str, Array]], weights: Array, confidence: float) -> dict[str, float]:
    """Each figure of the images as they are, with the ends of its interval over draws of them (B, n)."""
    row, parts = dict[str, float](), range(0, len(weights), DRAWS_AT_ONCE)
    drawn = [figures(weights[start : start + DRAWS_AT_ONCE]) for start in parts]
    for name, value in figures(np.ones((1, weights.shape[1]))).items():
        low, high = interval(np.concatenate([each[name] for each in drawn]), confidence)
        row |= {name: float(value[0]), f"{name}_low": low, f"{name}_high": high}
    return row


def _ranks(images: pd.DataFrame, weights: Array) -> dict[str, Array]:
    """Rank correlations of complexity in each draw (B,), NaN where complexity does not vary."""
    known = images["complexity"].notna().to_numpy()
    w = weights[:, known]
    ranked = [midranks(images[name].to_numpy()[known], w) for name in ("complexity", "loss", "energy")]
    loss, energy, other = (_correlation(ranked[a], ranked[b], w) for a, b in ((0, 1), (0, 2), (1, 2)))
    with np.errstate(divide="ignore", invalid="ignore"):
        partial = (loss - energy * other) / np.sqrt((1 - energy**2) * (1 - other**2))
    return {"rank_correlation": loss, "rank_energy": energy, "rank_partial": partial}


def midranks(values: Array, weights: Array) -> Array:
    """Ranks (B, n) of values (n,) in samples that hold the i-th value `weights[:, i]` times, up to a shift; ties share.

    One sort serves all draws.
    """
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    held = np.add.reduceat(weights[:, order], starts, axis=1)
    return (held.cumsum(1) - held / 2)[:, group]


def _correlation(a: Array, b: Array, weights: Array) -> Array:
    """Pearson's of a, b (B, n) with weights (B, n); NaN where one does not vary."""
    total = weights.sum(1, keepdims=True)
    a, b = (x - (weights * x).sum(1, keepdims=True) / np.maximum(total, 1) for x in (a, b))
    spread = np.sqrt((weights * a**2).sum(1) * (weights * b**2).sum(1))
    return np.where(spread > 0, (weights * a * b).sum(1) / np.where(spread > 0, spread, 1), np.nan)


def strip_of(
    images: pd.DataFrame, classes: Sequence[str], read: Callable[[Tensor], Tensor], ends: int = ENDS
) -> pd.DataFrame | None:
    """The simplest and the most complex images of each of the lowest classes: a row an image, with its PNG.

    Args:
        images: what `measure_images` found.
        classes: names.
        read: sample numbers to images (k, C, H, W), bytes or floats.
        ends: images at either end at most; no image stands at both.

    Returns:
        Columns label, name, end ('simple' or 'complex'), place (0 is the outermost), sample, complexity, loss, png; None
        where complexity is the same for all, so that there is nothing to rank.
    """
    ranked = images.dropna(subset="complexity").sort_values(["complexity", "sample"], kind="stable")
    if ranked["complexity"].nunique() < 2:
        return None
    rows = []
    for label in sorted(ranked["label"].unique())[:CLASSES]:
        own = ranked[ranked["label"] == label]
        count = min(ends, len(own) // 2)
        for end, picked in (("simple", own[:count]), ("complex", own[::-1][:count])):
            kept = picked[["label", "sample", "complexity", "loss"]]
            rows.append(kept.assign(name=classes[label], end=end, place=range(count)))
    strip = pd.concat(rows, ignore_index=True)
    return strip.assign(png=[thumbnail(image) for image in read(torch.tensor(strip["sample"].tolist()))])


def thumbnail(image: Tensor) -> bytes:
    """A PNG of an image (C, H, W), grey where C is not 3; floats are stretched to their own range."""
    image = as_bytes(image)
    pixels = image.permute(1, 2, 0) if len(image) == 3 else image.float().mean(0).round().byte()
    picture, out = Image.fromarray(pixels.contiguous().numpy()), BytesIO()
    picture.thumbnail((SIDE, SIDE))
    picture.save(out, "PNG")
    return out.getvalue()
