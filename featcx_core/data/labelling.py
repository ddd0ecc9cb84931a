"""Labels as people write them, numbers or words, as the numbers of classes."""

from __future__ import annotations

import numpy as np

from featcx_core.data.raw import natural
from featcx_core.errors import InputError


def classes_of(labels: np.ndarray) -> tuple[str, ...]:
    """Class names: the words in natural order, or the numbers up to the largest.

    Where a label is larger than there are rows it is some other number, and no class list is made for it.
    """
    if labels.dtype.kind in "OUS":
        return tuple(natural({str(label) for label in labels}))
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        row = int(np.flatnonzero(~np.isfinite(labels))[0])
        raise InputError(f"The label at row {row} is {labels[row]}; labels are whole numbers or words.")
    return tuple(str(c) for c in range(min(int(labels.max()) + 1, len(labels))))


def numbered(labels: np.ndarray, classes: tuple[str, ...], where: str) -> np.ndarray:
    """Labels as int64 numbers of their classes.

    Raises:
        InputError: for a word that names no class, and for numbers that are not whole.
    """
    if labels.dtype.kind in "OUS":
        place = {name: i for i, name in enumerate(classes)}
        strange = next(((row, str(v)) for row, v in enumerate(labels) if str(v) not in place), None)
        if strange is not None:
            raise InputError(
                f"{where} has the label '{strange[1]}' at row {strange[0]}, which training lacks; correct it."
            )
        return np.array([place[str(label)] for label in labels], dtype=np.int64)
    if labels.dtype.kind == "f" and not np.array_equal(labels, np.round(labels)):
        row = int(np.flatnonzero(labels != np.round(labels))[0])
        raise InputError(f"{where} has the label {labels[row]:g} at row {row}; labels are whole numbers or words.")
    return labels.astype(np.int64)
