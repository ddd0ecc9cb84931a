"""A picture's bytes to pixels, as a person sees it: turned upright, transparency on white, 8 bits a channel."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from featcx_core.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

Blob = bytes | Path | None  # a picture's bytes, or the file that holds them
Fit = Literal["crop", "pad", "stretch"]
DEEP = ("I", "F")  # modes of more than 8 bits a channel begin so
TWELVE_BITS = 4095


def opened(blob: bytes | Path) -> Image:
    """A picture by its header. What Pillow takes for a bomb is an error, of which it only warns up to twice its limit.

    Raises:
        OSError, ValueError, SyntaxError: when it is no picture.
        Image.DecompressionBombError: when it has more than `Image.MAX_IMAGE_PIXELS` pixels.
    """
    from PIL import Image

    image = Image.open(io.BytesIO(blob) if isinstance(blob, bytes) else blob)
    if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        image.close()
        raise Image.DecompressionBombError(f"it has {image.width}×{image.height} pixels, too many to be a photograph")
    return image


def decode(blob: Blob, name: str, size: int | None, fit: Fit = "crop") -> np.ndarray:
    """Pixels uint8 (H, W, 1 or 3): one channel for greyscale, three for all else.

    Args:
        name: of the file, with its row, for errors.
        size: side of the square that oblong pictures are brought to as `fit` says; None leaves them as they are.
        fit: crop: the short side resized, the middle cut out; pad: the long side resized, black beside it; stretch: both.

    Raises:
        InputError: when the bytes are no picture, or one whose values cannot be told.
    """
    from PIL import Image, ImageOps

    if not blob:
        raise InputError(f"{name}: there are no image bytes; drop the row or store the image in it.")
    try:
        with opened(blob) as stored:
            image = ImageOps.exif_transpose(stored)
            image = _eight_bits(image, name) if image.mode.startswith(DEEP) else on_white(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: the image cannot be decoded ({error}); repair or drop it.") from error
    if size is not None:
        image = _squared(image, size, fit)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def channels_of(blob: Blob) -> int:
    """1 for a greyscale picture, 3 for another or for none, by the header alone."""
    from PIL import Image

    try:
        with opened(blob or b"") as image:
            mode = image.mode
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 3
    return 1 if mode in ("1", "L", "LA") or mode.startswith(DEEP) else 3


def on_white(image: Image) -> Image:
    """Greyscale as L, all else as RGB; what shines through is white."""
    from PIL import Image

    kind = "L" if image.mode in ("1", "L", "LA") else "RGB"
    if "A" not in image.mode and "transparency" not in image.info and image.mode != "La":
        return image.convert(kind)
    colours = image.convert("RGBA")
    white = Image.new("RGBA", colours.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, colours).convert(kind)


def _eight_bits(image: Image, name: str) -> Image:
    """A greyscale picture of 16 bits in 8, when its range says that it uses them."""
    from PIL import Image

    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and TWELVE_BITS < high <= 65535) or image.mode.startswith("F"):
        raise InputError(
            f"{name}: the image has more than 8 bits a channel (mode {image.mode}), and its values, {low:g} to {high:g}, do "
            "not tell what is white; convert it to 8 bits."
        )
    return Image.fromarray(np.round(values / 257).astype(np.uint8))


def _squared(image: Image, size: int, fit: Fit) -> Image:
    """A square of `size` pixels a side."""
    from PIL import Image

    if fit != "stretch":
        scale = size / (min if fit == "crop" else max)(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - size) // 2, (height - size) // 2
        return image.crop((left, top, left + size, top + size))  # beyond the picture it is black
    return image.resize((size, size), Image.Resampling.BILINEAR)
