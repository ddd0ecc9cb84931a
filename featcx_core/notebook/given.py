"""What a notebook has in hand, a module with images and labels, as the house takes it: a data set and a net cut in two."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from featcx_core.data.images import Dataset, FloatDataset, normalisation, stratified_split
from featcx_core.errors import InputError

LEAST = 10  # images of a split


class Given(NamedTuple):
    """A data set; the indices that the net was trained on (None: unknown); what a reader must know, by name."""

    data: Dataset
    seen: Tensor | None
    notes: dict[str, str]


def pair_of(images: Any, labels: Any = None) -> tuple[Tensor, Tensor]:
    """(images (n, C, H, W), uint8 or float32; labels int64 (n,)) of tensors, arrays, or a DataLoader or Dataset of pairs.

    Raises:
        InputError: for anything else, with what was expected.
    """
    if labels is None:
        images, labels = _collected(images)
    x, y = torch.as_tensor(images).detach().cpu(), torch.as_tensor(labels).detach().cpu()
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim != 4:
        raise InputError(f"images have shape {tuple(x.shape)}; give (n, C, H, W), or (n, H, W) for grey ones.")
    if x.shape[1] not in (1, 3, 4) and x.shape[3] in (1, 3, 4):
        raise InputError(f"images of shape {tuple(x.shape)} have channels last; give images.permute(0, 3, 1, 2).")
    if y.shape != (len(x),) or y.is_floating_point():
        raise InputError(
            f"labels are {y.dtype} of shape {tuple(y.shape)}; give one class number for each of {len(x)} images."
        )
    if x.dtype != torch.uint8:
        if not x.is_floating_point():
            raise InputError(f"images are {x.dtype}; give uint8 pixels, or floats as the net takes them.")
        x = x.float()
        if not bool(x.isfinite().all()):
            bad = int((~x.isfinite()).flatten(1).any(1).nonzero()[0])
            raise InputError(f"image {bad} holds a value that is not finite; correct or drop it.")
    return x.contiguous(), y.long()


def _collected(pairs: Any) -> tuple[Tensor, Tensor]:
    """All (image, label) of a DataLoader, which gives batches, or of a Dataset, which gives one at a time."""
    if isinstance(pairs, Tensor | np.ndarray) or not (isinstance(pairs, Iterable) or hasattr(pairs, "__getitem__")):
        raise InputError(
            "There are images without labels; give labels (n,), or a DataLoader or Dataset of (image, label)."
        )
    if isinstance(pairs, DataLoader) and pairs.batch_size is not None:  # in the data set's own order, nothing dropped
        pairs = DataLoader(pairs.dataset, pairs.batch_size, num_workers=pairs.num_workers, collate_fn=pairs.collate_fn)
    single = not isinstance(pairs, DataLoader)
    rows = (pairs[i] for i in range(len(pairs))) if hasattr(pairs, "__getitem__") else pairs
    images, labels = list[Tensor](), list[Tensor]()
    for image, label in rows:
        part = torch.as_tensor(np.asarray(image) if not isinstance(image, Tensor) else image)
        if not isinstance(image, Tensor) and part.ndim == 3 and single:
            part = part.permute(2, 0, 1)  # a picture of Pillow's
        images.append(part[None] if single else part)
        labels.append(torch.as_tensor(label).reshape(-1))
    if not images:
        raise InputError("The data set is empty; give one with images.")
    if len({part.shape[1:] for part in images}) > 1:
        raise InputError("Images differ in size; resize them all, for example by the data set's transform.")
    return torch.cat(images), torch.cat(labels)


def as_dataset(
    images: Tensor,
    labels: Tensor,
    test: tuple[Tensor, Tensor] | None,
    seen: Any,
    *,
    crop: int | None = None,
    flip: bool = False,
    validation: float = 0.1,
    held_out: float = 0.2,
) -> Given:
    """The data set of a run: validation and pool as `load_dataset` parts them, and a test split, held out if none is given.

    Args:
        seen: 'all', indices or a mask of the images that the net was trained on; None: unknown.
        crop: padding of random crops in pixels; None: an eighth of the side.
    """
    notes: dict[str, str] = {}
    known = _seen(seen, len(images))
    if test is None:
        images, labels, test, known = _hold_out(images, labels, known, held_out)
        notes["test"] = (
            f"No test images were given, so {held_out:.0%} of each class ({len(test[1])} images) are held out."
        )
        if known is None:
            notes["test"] += " If the net was trained on them, they are no test: give test= or seen=."
    if images.dtype != test[0].dtype or images.shape[1:] != test[0].shape[1:]:
        raise InputError("The test images differ from the others in kind or shape; give both alike.")
    if min(images.shape[2:]) < 8:
        raise InputError(f"Images are {images.shape[3]}×{images.shape[2]} pixels; featcx needs 8×8 at least.")
    chosen, pool = (torch.from_numpy(part) for part in stratified_split(labels.numpy(), validation, 0))
    for name, part in (("test", test[1]), ("validation", chosen), ("training", pool)):
        if len(part) < LEAST:
            raise InputError(f"There are {len(part)} {name} images; give more, so that there are {LEAST} at least.")
    if known is not None and len(both := set(known.tolist()) & set(chosen.tolist())):
        notes["validation"] = (
            f"The net was trained on {len(both)} of the {len(chosen)} images on which the order for substitution is chosen."
        )
    kind = Dataset if images.dtype == torch.uint8 else FloatDataset
    mean, std = (
        normalisation(images, pool) if kind is Dataset else (torch.zeros(images.shape[1]), torch.ones(images.shape[1]))
    )
    data = kind(
        train_images=images,
        train_labels=labels,
        test_images=test[0].clone(),  # it may be a part of the same tensor, which no file holds twice
        test_labels=test[1].clone(),
        pool=pool,
        validation=chosen,
        classes=tuple(map(str, range(int(max(labels.max(), test[1].max())) + 1))),
        mean=mean,
        std=std,
        crop=round(min(images.shape[2:]) / 8) if crop is None else crop,
        flip=flip,
    )
    return Given(data, known, notes)


def _seen(seen: Any, n: int) -> Tensor | None:
    if seen is None:
        return None
    if isinstance(seen, str):
        if seen != "all":
            raise InputError(f"seen = '{seen}'; give 'all', or indices or a mask of the images the net was trained on.")
        return torch.arange(n)
    chosen = torch.as_tensor(seen)
    if chosen.dtype == torch.bool:
        chosen = chosen.nonzero()[:, 0] if chosen.shape == (n,) else torch.tensor([n])
    if chosen.ndim != 1 or not len(chosen) or int(chosen.min()) < 0 or int(chosen.max()) >= n:
        raise InputError(f"seen does not name rows of the {n} images; give indices from 0 to {n - 1} or a mask of {n}.")
    return chosen.long().sort().values


def _hold_out(
    images: Tensor, labels: Tensor, seen: Tensor | None, share: float
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], Tensor | None]:
    """A stratified share of what the net has not seen becomes the test split."""
    free = torch.ones(len(images), dtype=torch.bool)
    if seen is not None:
        free[seen] = False
    places = free.nonzero()[:, 0]
    if len(places) < LEAST:
        raise InputError(
            "The net was trained on all of the images; give test=(images, labels) that it was not trained on."
        )
    taken = places[torch.from_numpy(stratified_split(labels[places].numpy(), share, 0)[0])]
    kept = torch.ones(len(images), dtype=torch.bool)
    kept[taken] = False
    moved = None if seen is None else (kept.cumsum(0) - 1)[seen]
    return images[kept], labels[kept], (images[taken], labels[taken]), moved


def own_copy(net: nn.Module) -> nn.Module:
    """A copy in evaluation mode on the CPU without gradients; the owner's net stays as it is.

    Raises:
        InputError: for what is no module or cannot be copied.
    """
    if not isinstance(net, nn.Module):
        raise InputError(f"net is a {type(net).__name__}; give a torch.nn.Module.")
    try:
        copied = copy.deepcopy(net)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"The net cannot be copied ({error}); detach what it keeps of a backward pass.") from error
    return copied.cpu().eval().requires_grad_(False)
