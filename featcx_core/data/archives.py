"""CUB-200-2011 and Stanford Dogs: the unpacked official archives as folders of bounding-box crops (METHOD §3)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from xml.etree import ElementTree

from featcx_core.data.decoding import on_white, opened
from featcx_core.data.raw import Progress, available_cores
from featcx_core.errors import InputError

QUALITY = 95  # of the JPEG that a crop is stored as, without subsampling of colours
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels of the stored image


class Crop(NamedTuple):
    """One picture of an archive.

    Attributes:
        image: its file.
        name: of its class.
        train: whether it belongs to the official training images.
        boxes: around each animal; the largest is cut out.
    """

    image: Path
    name: str
    train: bool
    boxes: list[Box]


class Written(NamedTuple):
    """How many crops of each split were written, and in how many images there was more than one animal."""

    train: int
    test: int
    several: int


def cub200(root: Path) -> list[Crop]:
    """The birds: `images/`, of which four lists tell (images, bounding_boxes, train_test_split, image_class_labels)."""
    root = _with(root, "images.txt", "CUB_200_2011")
    images, boxes, training, labels = (
        _table(root / f"{name}.txt") for name in ("images", "bounding_boxes", "train_test_split", "image_class_labels")
    )
    classes = _table(root / "classes.txt") if (root / "classes.txt").exists() else {}
    crops = []
    for number, (path, *_) in images.items():
        try:
            left, top, width, height = map(float, boxes[number])
            label, train = labels[number][0], training[number][0] == "1"
        except (KeyError, ValueError, IndexError) as error:
            raise InputError(
                f"{root} tells nothing of image {number} ({path}) in one of its lists; unpack it anew."
            ) from error
        name = classes.get(label, [PurePosixPath(path).parent.name])[0]
        crops.append(Crop(root / "images" / path, name, train, [(left, top, left + width, top + height)]))
    return crops


def dogs(root: Path) -> list[Crop]:
    """The dogs: `lists/*.mat` tell of `Images/`, an XML file each in `Annotation/` of the boxes."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    root = _with(root, "lists", "StanfordDogs")
    crops = []
    for split in ("train", "test"):
        path = root / "lists" / f"{split}_list.mat"
        try:
            files = [str(entry[0]) for entry in loadmat(path)["file_list"].ravel()]
        except (OSError, LookupError, ValueError, TypeError, NotImplementedError, MatReadError) as error:
            raise InputError(
                f"{path} cannot be read as the official list ({error}); unpack the archive anew."
            ) from error
        for file in files:
            place = PurePosixPath(file)
            boxes = _annotated(root / "Annotation" / place.with_suffix(""))
            crops.append(Crop(root / "Images" / file, place.parent.name, split == "train", boxes))
    return crops


ARCHIVES: dict[str, Callable[[Path], list[Crop]]] = {"cub200": cub200, "dogs": dogs}


def write_crops(crops: list[Crop], out: Path, progress: Progress = lambda done, total: None) -> Written:
    """Writes OUT/train/<class>/ and OUT/test/<class>/, which `folder:OUT` reads; all or nothing.

    Raises:
        InputError: when OUT holds something, or a picture or its box cannot be used; with the file.
    """
    there = out.exists()
    if there and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already; give a folder that is empty or does not exist.")
    places = _places(crops)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(available_cores()) as pool:
            for done, _ in enumerate(pool.map(lambda crop, place: _write(crop, out / place), crops, places), 1):
                progress(done, len(crops))
    except BaseException as error:
        for part in (out / "train", out / "test") if there else (out,):
            shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, InputError):
            raise InputError(f"{out} cannot be written ({error}); give another folder, or make room.") from error
        raise
    train, several = sum(crop.train for crop in crops), sum(len(crop.boxes) > 1 for crop in crops)
    return Written(train, len(crops) - train, several)


def _places(crops: list[Crop]) -> list[str]:
    """Each crop's file below OUT.

    Raises:
        InputError: for a class name that is no name of a folder, and for two pictures that would be one file.
    """
    from_image = dict[str, Path]()
    for crop in crops:
        if (
            not crop.name
            or crop.name.startswith(".")
            or crop.name != PurePosixPath(crop.name).name
            or "\\" in crop.name
        ):
            raise InputError(
                f"The class name '{crop.name}' of {crop.image} is no name of a folder; unpack the archive anew."
            )
        place = f"{'train' if crop.train else 'test'}/{crop.name}/{crop.image.stem}.jpg"
        if place in from_image:
            raise InputError(f"{from_image[place]} and {crop.image} would both become {place}; rename or drop one.")
        from_image[place] = crop.image
    return list(from_image)


def _write(crop: Crop, path: Path) -> None:
    from PIL import Image

    try:
        with opened(crop.image) as image:  # as it is stored: that is what boxes are measured in
            pixels = on_white(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{crop.image}: the image cannot be read ({error}); unpack the archive anew.") from error
    left, top, right, bottom = max((_clipped(box, pixels.size) for box in crop.boxes), key=_area, default=(0, 0, 0, 0))
    if right - left < 1 or bottom - top < 1:
        raise InputError(f"{crop.image}: its bounding box lies outside the picture; correct or drop it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels.crop((left, top, right, bottom)).save(path, quality=QUALITY, subsampling=0)


def _clipped(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box in whole pixels within a picture of (width, height)."""
    left, top, right, bottom = map(round, box)
    return max(0, left), max(0, top), min(size[0], right), min(size[1], bottom)


def _area(box: tuple[int, int, int, int]) -> int:
    return max(0, box[2] - box[0]) * max(0, box[3] - box[1])


def _with(root: Path, wanted: str, inside: str) -> Path:
    """The folder that holds `wanted`: the given one, or the one that the archive unpacks to in it."""
    for place in (root, root / inside):
        if (place / wanted).exists():
            return place
    raise InputError(f"There is no {wanted} in {root}; give the folder that the official archive was unpacked to.")


def _table(path: Path) -> dict[str, list[str]]:
    """A list of the archive: a number, then words."""
    try:
        rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); unpack the archive anew.") from error
    return {row[0]: row[1:] for row in rows}


def _annotated(path: Path) -> list[Box]:
    """The boxes of an annotation."""

    def side(box: ElementTree.Element, name: str) -> float:
        return float(box.findtext(name, ""))

    try:
        boxes = [
            (side(box, "xmin"), side(box, "ymin"), side(box, "xmax"), side(box, "ymax"))
            for box in ElementTree.parse(path).iter("bndbox")
        ]
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise InputError(f"{path} is no annotation that can be read ({error}); unpack the archive anew.") from error
    if not boxes:
        raise InputError(f"{path} tells of no box; correct it, or drop the image from the list.")
    return boxes
