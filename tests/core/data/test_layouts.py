"""Folders, arrays and columns as people have them."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from featcx_core.data.sources import image_shape, load_dataset, source_files, understood
from featcx_core.errors import InputError
from featcx_core.specs import DatasetSpec
from tests.core.data.test_sources import picture, png


def folder(root, classes=("cat", "dog"), each=5, splits=("train", "test")):
    for k, split in enumerate(splits):
        for label, name in enumerate(classes):
            place = root / split / name
            place.mkdir(parents=True)
            for i in range(each):
                Image.fromarray(picture(1000 * k + 100 * label + i)).save(place / f"{i}.png")
    return root


def load(source, **options):
    return load_dataset(DatasetSpec(source=str(source), **options))


def told(source, **options):
    return understood(DatasetSpec(source=str(source), **options))


def test_what_was_understood_is_told(tmp_path):
    lines = told(f"folder:{folder(tmp_path)}")
    assert lines == ["10 training and 10 test images, 8×8 pixels in colour, 2 classes (cat 5, dog 5)"]
    assert told("digits")[0].startswith("1,400 training and 397 test images, 8×8 pixels in grey, 10 classes (0 ")


def test_class_folders_alone_are_split(tmp_path):
    whole = folder(tmp_path, splits=(".",), each=10)
    data, again = load(f"folder:{whole}"), load(f"folder:{whole}", split_seed=3)
    assert torch.bincount(data.train_labels).tolist() == [8, 8]
    assert torch.bincount(data.test_labels).tolist() == [2, 2]
    assert torch.equal(data.test_images, again.test_images)  # the seed moves pool and validation alone
    seen = {bytes(image.flatten().tolist()) for image in (*data.train_images, *data.test_images)}
    assert len(seen) == 20
    assert len(load(f"folder:{whole}", test=0.5).test_images) == 10
    assert "20% of each class is held out" in told(f"folder:{whole}")[1]


def test_a_validation_folder_serves_as_test(tmp_path):
    data = folder(tmp_path, splits=("train", "val"))
    assert len(load(f"folder:{data}").test_images) == 10
    assert told(f"folder:{data}")[1] == "val/ serves as the test split"
    folder(tmp_path / "more", splits=("test",))
    (tmp_path / "more" / "test").rename(tmp_path / "test")
    (tmp_path / "more").rmdir()
    assert told(f"folder:{data}")[1:] == ["not read, since train/ is the training split: val/"]


@pytest.mark.parametrize("names", [("Train", "Test"), ("training", "testing"), ("TRAIN", "Validation")])
def test_split_folders_by_other_names_are_no_classes(tmp_path, names):
    data = load(f"folder:{folder(tmp_path, splits=names)}")
    assert data.classes == ("cat", "dog")
    assert (len(data.train_images), len(data.test_images)) == (10, 10)


def test_what_is_not_read_is_told(tmp_path):
    def make(n):
        return table(n, label=np.arange(n) % 2)

    source = parquet(tmp_path, make)
    for name in ("validation", "extra"):
        pq.write_table(make(4), tmp_path / f"{name}.parquet")
    assert told(source)[1:] == ["not read: extra.parquet, validation.parquet"]
    pixels, labels = np.zeros((8, 8, 8), np.uint8), np.arange(8) % 2
    np.savez(tmp_path / "a.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels, x_val=pixels)
    assert told(f"npz:{tmp_path / 'a.npz'}")[1:] == ["not read: x_val"]


def test_classes_that_the_test_split_lacks_are_told(tmp_path):
    root = folder(tmp_path, classes=("ant", "bee", "cat"))
    shutil.rmtree(root / "test" / "bee")
    assert told(f"folder:{root}")[1:] == ["the test split has no image of bee"]
    (root / "test" / "dog").mkdir()
    with pytest.raises(InputError, match="has the class 'dog', which train/ lacks"):
        told(f"folder:{root}")
    np.savez(tmp_path / "a.npz", x_train=np.zeros((8, 8, 8), np.uint8), y_train=np.arange(8) % 4,
             x_test=np.zeros((2, 8, 8), np.uint8), y_test=np.array([1, 1]))  # fmt: skip
    assert told(f"npz:{tmp_path / 'a.npz'}")[1:] == ["the test split has no image of 0, 2, 3"]


@pytest.mark.parametrize("place", ["train/bird", "train/cat/more", "test", "train/cat/9.png"])
def test_links_that_lead_nowhere_are_refused_wherever_they_stand(tmp_path, place):
    root = folder(tmp_path / "a", splits=("train",) if place == "test" else ("train", "test"))
    (root / place).symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=f"{place} is a link that leads nowhere"):
        told(f"folder:{root}")


def test_the_shape_of_grey_pictures_takes_their_headers_alone(tmp_path):
    """Of all files but the first only the header is there: were more of them read, they would be refused."""
    root = folder(tmp_path)
    for i, path in enumerate(sorted(root.rglob("*.png"))):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (64, 64), dtype=np.uint8)).save(path)
        if path != root / "train" / "cat" / "0.png":
            path.write_bytes(path.read_bytes()[:200])
    assert image_shape(DatasetSpec(source=f"folder:{root}")) == (1, 64, 64)


def test_classes_in_natural_order(tmp_path):
    names = tuple(str(i) for i in range(1, 12))
    assert load(f"folder:{folder(tmp_path, classes=names, each=2)}").classes == names


def test_hidden_things_do_not_count(tmp_path):
    root = folder(tmp_path)
    for place in (
        root / "train" / ".ipynb_checkpoints",
        root / "train" / "cat" / ".thumbs",
        root / "train" / "__MACOSX",
    ):
        place.mkdir()
        Image.fromarray(picture(1)).save(place / "0.png")
    Image.fromarray(picture(1)).save(root / "train" / "cat" / "._0.png")
    data = load(f"folder:{root}")
    assert (data.classes, len(data.train_images)) == (("cat", "dog"), 10)
    assert len(told(f"folder:{root}")) == 1


def test_every_file_that_is_left_out_is_counted(tmp_path):
    root = folder(tmp_path)
    cat = root / "train" / "cat"
    for ending, kind in (("gif", "GIF"), ("jfif", "JPEG"), ("tiff", "TIFF"), ("webp", "WEBP"), ("BMP", "BMP")):
        Image.fromarray(picture(9)).save(cat / f"x.{ending}", kind)
    frames = [Image.fromarray(picture(i)) for i in range(3)]
    frames[0].save(cat / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(cat / "pages.tif", save_all=True, append_images=frames[1:])
    (cat / "notes.txt").write_text("x")
    (root / "train" / "readme.md").write_text("x")
    data = load(f"folder:{root}")
    assert len(data.train_images) == 15
    assert told(f"folder:{root}")[1] == (
        "4 files left out: 1 .gif of several frames, 1 .tif of several frames, 1 not images, 1 not in a class folder"
    )
    assert len(source_files(DatasetSpec(source=f"folder:{root}"))) == 25


def test_links_are_followed_once(tmp_path):
    root = folder(tmp_path / "a")
    (root / "train" / "bird").symlink_to(folder(tmp_path / "b") / "train" / "dog")
    (root / "train" / "cat" / "loop").symlink_to(root / "train" / "cat")
    data = load(f"folder:{root}")
    assert data.classes == ("bird", "cat", "dog")
    assert len(data.train_images) == 15
    (root / "train" / "cat" / "9.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(InputError, match=r"cat/9\.png is a link that leads nowhere"):
        load(f"folder:{root}")


def test_a_grey_picture_among_colour_ones_is_colour(tmp_path):
    root = folder(tmp_path)
    Image.fromarray(picture(1, mode="L")).save(root / "train" / "cat" / "0.png")
    assert load(f"folder:{root}").shape == (3, 8, 8) == image_shape(DatasetSpec(source=f"folder:{root}"))


def table(n, **columns):
    blobs = [{"bytes": png(picture(i)), "path": None} for i in range(n)]
    return pa.table({"image": blobs, **columns})


def parquet(root, make, meta=None):
    for split, n in (("train", 12), ("test", 6)):
        whole = make(n)
        if meta is not None:
            whole = whole.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": meta}})})
        pq.write_table(whole, root / f"{split}.parquet")
    return f"parquet:{root}"


def test_words_as_labels(tmp_path):
    for kind in (pa.string(), pa.dictionary(pa.int32(), pa.string())):
        source = parquet(
            tmp_path, lambda n, kind=kind: table(n, label=pa.array(["dog", "cat"] * (n // 2), pa.string()).cast(kind))
        )
        data = load(source)
        assert data.classes == ("cat", "dog")
        assert data.train_labels.tolist() == [1, 0] * 6
    other = table(6, label=["dog", "cow"] * 3)
    pq.write_table(other, tmp_path / "test.parquet")
    with pytest.raises(InputError, match="label 'cow' at row 1, which training lacks"):
        load(source)


def test_the_file_tells_which_column_is_the_label(tmp_path):
    def make(n):
        return table(n, row=np.arange(n) // 2 % 3, species=np.arange(n) % 2)

    with pytest.raises(
        InputError, match=r"several columns that may be the label: row, species; name one with dataset\.label"
    ):
        load(parquet(tmp_path, make))
    assert load(f"parquet:{tmp_path}", label="species").train_labels.tolist() == [0, 1] * 6
    meta = {"row": {"dtype": "int64", "_type": "Value"}, "species": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    data = load(parquet(tmp_path, make, meta))
    assert data.classes == ("cat", "dog")
    assert data.train_labels.tolist() == [0, 1] * 6


def test_the_file_tells_which_column_is_the_image(tmp_path):
    def make(n):
        return table(n, label=np.arange(n) % 2).append_column("mask", pa.array([b"x"] * n, pa.binary()))

    assert load(parquet(tmp_path, make)).shape == (3, 8, 8)  # by its name
    two = parquet(tmp_path, lambda n: make(n).rename_columns(["before", "label", "after"]))
    with pytest.raises(InputError, match="several columns that may be the image: before, after"):
        load(two)
    assert load(two, image="before").shape == (3, 8, 8)
    with pytest.raises(InputError, match="no image column 'label'"):
        load(two, image="label")


def test_numbers_with_fractions_are_no_labels(tmp_path):
    source = parquet(tmp_path, lambda n: table(n, label=np.arange(n) % 2 * 1.0))
    assert load(source).train_labels.tolist() == [0, 1] * 6
    source = parquet(tmp_path, lambda n: table(n, label=np.arange(n) % 2 * 0.5))
    with pytest.raises(InputError, match=r"label 0\.5 at row 1; labels are whole numbers or words"):
        load(source)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_labels_that_are_not_finite_are_a_sentence(tmp_path, value):
    np.savez(tmp_path / "a.npz", x_train=np.zeros((8, 8, 8), np.uint8), y_train=np.array([0, 1, 0, value, 0, 1, 0, 1]))
    with pytest.raises(InputError, match=r"label at row 3 is (nan|inf)"):
        load(f"npz:{tmp_path / 'a.npz'}")


def test_a_words_column_that_is_not_named_label_is_none(tmp_path):
    with pytest.raises(InputError, match="no label column"):
        load(parquet(tmp_path, lambda n: table(n, caption=["a", "b"] * (n // 2))))


@pytest.mark.parametrize("layout", ["nhw", "nhwc", "nchw"])
@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_arrays(tmp_path, layout, kind):
    pixels = np.stack([picture(i, (9, 8)) for i in range(30)])
    images = {"nhw": pixels[..., 0], "nhwc": pixels, "nchw": pixels.transpose(0, 3, 1, 2)}[layout]
    images = images if kind == "uint8" else (images / 255).astype(kind)
    labels = np.arange(30) % 3
    path = tmp_path / "a.npz"
    np.savez(path, x_train=images[:18], y_train=labels[:18], x_test=images[18:], y_test=labels[18:, None])
    data = load(f"npz:{path}")
    wanted = pixels[..., :1] if layout == "nhw" else pixels
    np.testing.assert_array_equal(data.train_images.permute(0, 2, 3, 1), wanted[:18])
    np.testing.assert_array_equal(data.test_images.permute(0, 2, 3, 1), wanted[18:])
    assert data.test_labels.tolist() == [0, 1, 2] * 4
    assert image_shape(DatasetSpec(source=f"npz:{path}")) == data.shape
    np.savez(path, x_train=images, y_train=np.array(["a", "b", "c"])[labels])
    data = load(f"npz:{path}")
    assert (data.classes, len(data.test_images)) == (("a", "b", "c"), 6)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x_train": np.zeros((4, 8, 8), np.uint8)}, "has no y_train; it holds x_train"),
        ({"x_train": np.zeros((4, 8, 8), np.uint8), "y_train": np.zeros(3, int)}, "not of one length"),
        ({"x_train": np.zeros((8, 8, 8, 5), np.uint8), "y_train": np.arange(8) % 2}, r"shape \(8, 8, 8, 5\)"),
        ({"x_train": np.full((8, 8, 8), 2.0), "y_train": np.arange(8) % 2}, r"neither uint8 nor numbers in \[0, 1\]"),
        ({"x_train": np.zeros((8, 8, 8), np.uint8), "y_train": np.array([{}] * 8)}, "cannot be read as arrays"),
    ],
)
def test_arrays_that_cannot_be_read(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=words):
        load(f"npz:{tmp_path / 'a.npz'}")
    (tmp_path / "b.npz").write_bytes(b"no zip")
    with pytest.raises(InputError, match="cannot be read as arrays"):
        load(f"npz:{tmp_path / 'b.npz'}")
