"""Pixels of pictures whose content is known, in every mode that cameras and tools write."""

import io

import numpy as np
import pytest
from PIL import Image

from featcx_core.data.decoding import channels_of, decode
from featcx_core.errors import InputError


def stored(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def corners():
    """16×24 in four flat quarters: red, green, blue, white."""
    pixels = np.zeros((16, 24, 3), dtype=np.uint8)
    pixels[:8, :12], pixels[:8, 12:], pixels[8:, :12], pixels[8:, 12:] = (255, 0, 0), (0, 255, 0), (0, 0, 255), 255
    return pixels


@pytest.mark.parametrize("turn", range(1, 9))
def test_turned_photographs_stand_upright(turn):
    """Whatever a camera's orientation says, the picture is as it was seen."""
    seen = corners()
    undo = {  # how the pixels lie in a file of that orientation
        1: seen, 2: seen[:, ::-1], 3: seen[::-1, ::-1], 4: seen[::-1],
        5: seen.transpose(1, 0, 2), 6: np.rot90(seen, 1), 7: seen[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(seen, -1),
    }[turn]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = turn
    found = decode(stored(Image.fromarray(np.ascontiguousarray(undo)), exif=exif), "x", None)
    np.testing.assert_array_equal(found, seen)


def test_what_shines_through_is_white():
    pixels = np.dstack([corners(), np.full((16, 24), 255, np.uint8)])
    pixels[:8, :12, 3], pixels[8:, 12:, 3] = 0, 128  # hidden red, half-hidden white
    pixels[:8, 12:, 3] = 127  # half of green
    found = decode(stored(Image.fromarray(pixels)), "x", None)
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[15, 0].tolist() == [0, 0, 255]
    assert np.abs(found[0, 20].astype(int) - [128, 255, 128]).max() <= 1
    assert found[15, 23].tolist() == [255, 255, 255]
    grey = np.dstack([np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)])
    assert decode(stored(Image.fromarray(grey, "LA")), "x", None).tolist() == [[[255]] * 8] * 8
    palette = Image.fromarray(corners()).quantize(4)
    palette.info["transparency"] = palette.getpixel((0, 0))
    found = decode(stored(palette, transparency=palette.getpixel((0, 0))), "x", None)
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[15, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("P", 3), ("RGB", 3), ("CMYK", 3), ("YCbCr", 3)])
def test_modes_become_grey_or_colour(mode, channels):
    image = Image.new("RGB", (16, 16), (250, 20, 20)).convert(mode)
    blob = stored(image, "JPEG" if mode in ("CMYK", "YCbCr") else "PNG", **({"quality": 100} if mode == "CMYK" else {}))
    found = decode(blob, "x", None)
    assert found.shape == (16, 16, channels)
    assert channels_of(blob) == channels
    if channels == 3:
        assert np.abs(found[5, 5].astype(int) - [250, 20, 20]).max() <= (
            32 if mode == "P" else 6
        )  # a web palette steps by 51


def test_sixteen_bits_are_scaled_when_their_range_says_so():
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    for kind in ("PNG", "TIFF"):
        found = decode(stored(Image.fromarray(ramp), kind), "x", None)
        np.testing.assert_array_equal(found[:, :, 0].ravel(), np.arange(256))
    for values in (ramp // 16, ramp // 256):
        with pytest.raises(InputError, match=r"y, row 3: .* do not tell what is white; convert it to 8 bits"):
            decode(stored(Image.fromarray(values)), "y, row 3", None)
    with pytest.raises(InputError, match="mode F"):
        decode(stored(Image.fromarray(ramp.astype(np.float32)), "TIFF"), "y", None)


def test_oblong_pictures_are_cropped_padded_or_stretched():
    yy, xx = np.mgrid[:64, :128]
    disc = Image.fromarray((((yy - 32) ** 2 + (xx - 64) ** 2 < 24**2) * 255).astype(np.uint8))

    def extent(fit):
        found = decode(stored(disc), "x", 32, fit)[:, :, 0] > 128
        assert found.shape == (32, 32)
        return int(found.any(0).sum()), int(found.any(1).sum())

    # The disc is 47 pixels wide.
    assert extent("crop") == (23, 23)
    assert extent("pad") == (12, 12)
    assert extent("stretch") == (12, 23)
    white = decode(stored(Image.new("L", (10, 30), 255)), "x", 30, "pad")[:, :, 0]
    assert (white[:, 10:20] == 255).all()
    assert not white[:, :10].any()
    assert not white[:, 20:].any()


@pytest.mark.parametrize(
    "blob", [None, b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + bytes(20), stored(Image.fromarray(corners()))[:-40]]
)
def test_what_is_no_picture_is_a_sentence(blob):
    with pytest.raises(InputError, match=r"f\.png: .*(there are no image bytes|cannot be decoded)"):
        decode(blob, "f.png", None)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("times", [1.5, 3.0])
def test_what_may_be_a_bomb_is_refused(monkeypatch, times):
    """Pillow itself refuses beyond twice its limit, and up to that it warns."""
    blob = stored(Image.fromarray(corners()))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(16 * 24 / times))
    with pytest.raises(InputError, match=r"f\.png: the image cannot be decoded"):
        decode(blob, "f.png", None)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16 * 24)
    assert decode(blob, "f.png", None).shape == (16, 24, 3)
