"""Bytes of pictures to arrays: decoding, and what a source may give."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featcx_core.data.images import Shape
from featcx_core.errors import InputError

Progress = Callable[[int, int], None]


DECODED = 125  # images that a thread decodes in a turn


IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff")


@dataclass(frozen=True)
class RawData:
    """uint8 images (n, H, W, C), int64 labels (n,) of both splits, class names, and whether flips keep the class."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: tuple[str, ...]
    flip: bool


@dataclass(frozen=True)
class Labels:
    """What is known of a source without decoding an image: labels of both splits and class names."""

    train: np.ndarray
    test: np.ndarray
    classes: tuple[str, ...]


class readable:
    """Turns Arrow's complaints about a broken file into a sentence."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import pyarrow as pa

        if isinstance(error, (pa.ArrowException, OSError)):
            reason = str(error).splitlines()[0]
            raise InputError(f"{self.path} cannot be read as Parquet; it may be truncated ({reason}).") from error


def blobs(column: object) -> list[bytes | None]:
    values = column.to_pylist()  # type: ignore[attr-defined]
    return [value.get("bytes") if isinstance(value, dict) else value for value in values]


def decode_all(blobs: list[bytes | None] | list[bytes], names: list[str], size: int | None) -> list[np.ndarray]:
    """Decodes in threads, some images a turn; Pillow lets go of the interpreter lock while it decodes.

    Of small images a turn each would cost as much as the decoding: with 16 threads 218 against 151 µs an image of 32×32.
    """

    def turn(start: int) -> list[np.ndarray]:
        rows = slice(start, start + DECODED)
        return [decode(blob, name, size) for blob, name in zip(blobs[rows], names[rows], strict=True)]

    with ThreadPoolExecutor() as pool:
        return [image for images in pool.map(turn, range(0, len(names), DECODED)) for image in images]


def decode(blob: bytes | None, name: str, size: int | None) -> np.ndarray:
    from PIL import Image

    if not blob:
        raise InputError(f"{name}: there are no image bytes; drop the row or store the image in it.")
    try:
        image: Image.Image = Image.open(io.BytesIO(blob))
        if image.mode.startswith(("I", "F")):
            raise InputError(
                f"{name}: the image has more than 8 bits a channel (mode {image.mode}); convert it to 8 bits."
            )
        image = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{name}: the image cannot be decoded ({error}); repair or drop it.") from error
    if size is not None:
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def shape_of(blob: bytes | None, name: str, size: int | None) -> Shape:
    height, width, channels = decode(blob, name, size).shape
    return channels, height, width


def check_shapes(images: list[np.ndarray]) -> None:
    shapes = {image.shape for image in images}
    if len({shape[2] for shape in shapes}) > 1:
        raise InputError("The data set mixes greyscale and colour images; convert them all to one kind.")
    if len(shapes) > 1:
        raise InputError("Images differ in size; set dataset.size to resize them all, for example dataset.size=32.")


def check_labels(labels: np.ndarray, classes: tuple[str, ...], where: str) -> None:
    outside = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(outside):
        row = int(outside[0])
        raise InputError(
            f"The {where} has label {labels[row]} at row {row}, outside its {len(classes)} classes; correct or drop it."
        )
    counts = np.bincount(labels, minlength=len(classes))
    if counts.min() < 2 and where.startswith("train"):
        raise InputError(
            f"The {where} has {counts.min()} of class '{classes[int(counts.argmin())]}'; featcx needs two images a class "
            "at least, one to train on and one to validate with; add some or drop the class."
        )
