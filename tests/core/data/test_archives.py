"""The official layouts of CUB-200-2011 and Stanford Dogs, made small."""

import numpy as np
import pytest
from PIL import Image

from featcx_core.data.archives import ARCHIVES, cub200, dogs, write_crops
from featcx_core.data.sources import load_dataset
from featcx_core.errors import InputError
from featcx_core.specs import DatasetSpec
from tests.made_archives import made_birds, made_dogs


@pytest.fixture
def birds(tmp_path):
    """Twelve images of two kinds: grey and RGBA among them, a box that reaches over the edge."""
    return made_birds(tmp_path / "unpacked")


@pytest.fixture
def kennel(tmp_path):
    """Eight images of two kinds, one with two dogs."""
    return made_dogs(tmp_path)


def bright(path):
    """Share of a crop that is inside the box."""
    pixels = np.asarray(Image.open(path))
    assert pixels.shape[2] == 3
    return float((pixels[..., 0] > 60).mean())


def test_birds(birds, tmp_path):
    written = write_crops(cub200(birds.parent), tmp_path / "out")
    assert written == (8, 4, 0)
    found = sorted((tmp_path / "out").rglob("*.jpg"))
    assert len(found) == 12
    assert all(bright(path) > 0.97 for path in found)
    sizes = {path.stem: Image.open(path).size for path in found}
    assert sizes["bird_0005"] == (20, 20)  # of 25×20, five columns lie outside
    assert sizes["bird_0001"] == sizes["bird_0002"] == (20, 16)
    data = load_dataset(DatasetSpec(source=f"folder:{tmp_path / 'out'}", size=16, fit="stretch"))
    assert data.classes == ("001.Albatross", "002.Auklet")
    assert (len(data.train_images), len(data.test_images)) == (8, 4)
    assert data.train_images.float().mean((0, 2, 3))[0] > 150


def test_dogs(kennel, tmp_path):
    told = []
    written = write_crops(dogs(kennel), tmp_path / "out", lambda done, total: told.append((done, total)))
    assert written == (4, 4, 1)
    assert told[-1] == (8, 8)
    found = sorted((tmp_path / "out").rglob("*.jpg"))
    assert {path.parent.name for path in found} == {"n02085620-Chihuahua", "n02085782-Japanese_spaniel"}
    assert all(bright(path) > 0.97 for path in found)
    largest = next(path for path in found if path.stem.endswith("_0"))
    assert Image.open(largest).size == (24, 24)


def test_what_is_missing_is_named(birds, kennel, tmp_path):
    for read in ARCHIVES.values():
        with pytest.raises(InputError, match="give the folder that the official archive was unpacked to"):
            read(tmp_path / "nowhere")
    (birds / "bounding_boxes.txt").write_text("1 1 1 5 5\n")
    with pytest.raises(InputError, match=r"tells nothing of image 2 \(002.Auklet|tells nothing of image 2 \(001"):
        cub200(birds)
    (kennel / "Annotation" / "n02085620-Chihuahua" / "n02085620_0").write_text("<annotation>")
    with pytest.raises(InputError, match="n02085620_0 is no annotation that can be read"):
        dogs(kennel)
    (kennel / "lists" / "train_list.mat").write_bytes(b"no list")
    with pytest.raises(InputError, match=r"train_list\.mat cannot be read as the official list"):
        dogs(kennel)


def test_nothing_is_left_of_a_conversion_that_fails(kennel, tmp_path):
    crops, out = dogs(kennel), tmp_path / "out"
    with pytest.raises(InputError, match="lies outside the picture"):
        write_crops([*crops[1:], crops[0]._replace(boxes=[(50, 50, 60, 60)])], out)
    assert not out.exists()
    crops[3].image.write_bytes(crops[3].image.read_bytes()[:50])
    with pytest.raises(InputError, match=r"_3\.jpg: the image cannot be read"):
        write_crops(crops, out)
    assert not out.exists()
    out.mkdir()
    (out / "mine").write_text("precious")
    with pytest.raises(InputError, match="is there already"):
        write_crops(crops, out)
    assert (out / "mine").read_text() == "precious"


def test_class_names_and_files_stay_within_out(birds, kennel, tmp_path):
    for name in ("../../../away", "/away", ".", "..", ".hidden", "a/b", ""):
        crops = [crop._replace(name=name) for crop in dogs(kennel)]
        with pytest.raises(InputError, match="is no name of a folder"):
            write_crops(crops, tmp_path / "out")
    (birds / "classes.txt").write_text("1 ../../away\n2 002.Auklet\n")
    with pytest.raises(InputError, match=r"class name '\.\./\.\./away'"):
        write_crops(cub200(birds), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "away").exists()


def test_no_picture_takes_the_place_of_another(kennel, tmp_path):
    first, *rest = dogs(kennel)
    twin = first.image.with_suffix(".png")
    Image.open(first.image).save(twin)
    with pytest.raises(
        InputError, match=r"_0\.jpg and .*_0\.png would both become train/n02085620-Chihuahua/n02085620_0"
    ):
        write_crops([first, first._replace(image=twin), *rest], tmp_path / "out")
    assert write_crops([first, first._replace(image=twin, train=False), *rest], tmp_path / "out").test == 5


def test_what_cannot_be_written_is_a_sentence_and_leaves_the_folder(kennel, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Image.Image, "save", full)
        with pytest.raises(InputError, match=r"out cannot be written .*No space left"):
            write_crops(dogs(kennel), out)
    assert out.is_dir()
    assert not list(out.iterdir())
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        write_crops(dogs(kennel), tmp_path / "file" / "out")
