"""The official layouts of CUB-200-2011 and Stanford Dogs, made small: black pictures, each with a bright box."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

SIZE = (40, 30)  # width, height
Box = tuple[int, int, int, int]


def framed(box: Box, mode: str = "RGB", colour: tuple[int, int, int] = (250, 120, 60)) -> Image.Image:
    """A black picture with a bright box (left, top, right, bottom)."""
    pixels = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    pixels[max(0, box[1]) : box[3], max(0, box[0]) : box[2]] = colour
    return Image.fromarray(pixels).convert(mode)


def made_birds(root: Path, images: int = 12, training: int = 8, classes: int = 2) -> Path:
    """`images` birds in turn of each class, the first `training` for training; the first is grey, the second transparent,
    the box of the fifth reaches over the edge. Returns the folder that the archive unpacks to.
    """
    root = root / "CUB_200_2011"
    names = [f"{k + 1:03d}.{('Albatross', 'Auklet')[k] if k < 2 else f'Bird_{k}'}" for k in range(classes)]
    lists: dict[str, list[str]] = {"classes": [f"{k + 1} {name}" for k, name in enumerate(names)]}
    for i in range(1, images + 1):
        label = i % classes
        box = (-5, 4, 20, 24) if i == 5 else (8, 4, 28, 20)
        mode = {1: "L", 2: "RGBA"}.get(i, "RGB")
        path = root / "images" / names[label] / f"bird_{i:04d}.{'png' if mode == 'RGBA' else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {} if mode == "RGBA" else {"quality": 100}
        framed(box, mode, _colour(label, classes)).save(path, **options)
        told = {
            "images": f"{names[label]}/{path.name}",
            "bounding_boxes": f"{box[0]}.0 {box[1]}.0 {box[2] - box[0]}.0 {box[3] - box[1]}.0",
            "train_test_split": f"{int(i <= training)}",
            "image_class_labels": f"{label + 1}",
        }
        for name, words in told.items():
            lists.setdefault(name, []).append(f"{i} {words}")
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


def made_dogs(root: Path, images: int = 8, training: int = 4, classes: int = 2) -> Path:
    """`images` dogs in turn of each class, the first `training` for training; in the first there are two."""
    root = root / "dogs"
    known = ("n02085620-Chihuahua", "n02085782-Japanese_spaniel")
    names = [known[k] if k < 2 else f"n0209{k:04d}-Dog_{k}" for k in range(classes)]
    files: dict[str, list[str]] = {"train": [], "test": []}
    for i in range(images):
        name = names[i % classes]
        place = f"{name}/{name.split('-')[0]}_{i}"
        boxes: list[Box] = [(2, 2, 10, 10), (12, 4, 36, 28)] if i == 0 else [(6, 6, 30, 24)]
        for folder in ("Images", "Annotation"):
            (root / folder / name).mkdir(parents=True, exist_ok=True)
        framed(boxes[-1], colour=_colour(i % classes, classes)).save(root / "Images" / f"{place}.jpg", quality=100)
        (root / "Annotation" / place).write_text(_annotation(boxes))
        files["train" if i < training else "test"].append(f"{place}.jpg")
    (root / "lists").mkdir()
    for split, listed in files.items():
        cells = np.empty((len(listed), 1), dtype=object)
        cells[:, 0] = [np.array([name]) for name in listed]
        savemat(root / "lists" / f"{split}_list.mat", {"file_list": cells})
    return root


def _colour(label: int, classes: int) -> tuple[int, int, int]:
    return 250, 120 + 100 * label // classes, 60 + 150 * label // classes


def _annotation(boxes: Sequence[Box]) -> str:
    objects = "".join(
        f"<object><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for a, b, c, d in boxes
    )
    return f"<annotation>{objects}</annotation>"
