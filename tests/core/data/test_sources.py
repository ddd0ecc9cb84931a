"""Sources of data: what they give, and a sentence for each kind of bad input."""

import io
import json
import re
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from featcx_core.data.sources import image_shape, load_dataset, pool_counts, source_files, split_sizes, understood
from featcx_core.errors import InputError
from featcx_core.specs import DatasetSpec


def picture(seed, size=(8, 8), mode="RGB"):
    """Random pixels (H, W[, 3])."""
    shape = (*size, 3) if mode == "RGB" else size
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def rows(n=20, classes=2, start=0, **options):
    return [png(picture(start + i, **options)) for i in range(n)], [i % classes for i in range(n)]


def write(path, blobs, labels, image="image", label="label", struct=True, meta=None):
    values = [{"bytes": blob, "path": None} for blob in blobs] if struct else blobs
    columns = {"id": [f"row{i}" for i in range(len(blobs))]}
    if image:
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if struct else pa.binary()
        columns[image] = pa.array(values, kind)
    if label:
        columns[label] = pa.array(labels, pa.int64())
    table = pa.table(columns)
    if meta is not None:
        table = table.replace_schema_metadata({b"huggingface": json.dumps(meta).encode()})
    pq.write_table(table, path)


@pytest.fixture
def folder(tmp_path):
    """20 training and 10 test images of 8×8 in colour, two classes."""
    write(tmp_path / "train-00000-of-00001.parquet", *rows(20))
    write(tmp_path / "test-00000-of-00001.parquet", *rows(10, start=100))
    return tmp_path


def load(path, kind="parquet", **options):
    return load_dataset(DatasetSpec(source=f"{kind}:{path}", **options))


def refused(path, pattern, kind="parquet", **options):
    with pytest.raises(InputError, match=pattern) as caught:
        load(path, kind, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith((".", "!", ")"))
    return text


def test_digits(digits):
    assert digits.train_images.shape == (1400, 1, 8, 8)
    assert digits.test_images.shape == (397, 1, 8, 8)
    assert digits.train_images.dtype == torch.uint8
    assert digits.train_images.max() == 255
    assert digits.classes == tuple("0123456789")
    assert not digits.flip
    assert digits.crop == 1
    assert digits.train_images.double().mean() == pytest.approx(4.884 * 255 / 16, rel=0.01)  # scikit-learn's mean


def test_mnist(mnist):
    assert mnist.train_images.shape == (4000, 1, 28, 28)
    assert mnist.test_images.shape == (1000, 1, 28, 28)
    assert torch.bincount(mnist.train_labels).tolist() == [400] * 10
    assert torch.bincount(mnist.test_labels).tolist() == [100] * 10
    assert not mnist.flip
    assert mnist.crop == 4


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_the_test_split_is_fixed_whatever_the_spec(name, request):
    data = request.getfixturevalue(name)
    other = load_dataset(DatasetSpec(source=name, split_seed=5, validation=0.2))
    assert torch.equal(data.test_images, other.test_images)
    assert torch.equal(data.train_images, other.train_images)
    assert not torch.equal(data.validation, other.validation[: len(data.validation)])
    images = torch.cat([data.train_images, data.test_images]).flatten(1)
    whole = {bytes(image.tolist()) for image in images}
    assert len(whole) == len(torch.unique(images, dim=0))
    train = {bytes(image.tolist()) for image in data.train_images.flatten(1)}
    test = {bytes(image.tolist()) for image in data.test_images.flatten(1)}
    assert len(train & test) <= 1  # images are not in both, but for the sources' own duplicates


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_counts_without_decoding_are_those_of_the_data(name, request):
    data, spec = request.getfixturevalue(name), DatasetSpec(source=name)
    assert pool_counts(spec) == torch.bincount(data.train_labels[data.pool]).tolist()
    sizes = split_sizes(spec, 200)
    assert sizes == {
        "pool": len(data.pool), "validation": len(data.validation), "seen": 200, "test": len(data.test_labels)
    }  # fmt: skip
    assert source_files(spec) == []
    with pytest.raises(InputError, match="200 or 210"):
        split_sizes(spec, 201)


def test_an_unknown_source_names_the_nearest():
    for source, hint in (("mnsit", "did you mean 'mnist'"), ("zzz", "choose one of"), ("digits:x", "no data source")):
        with pytest.raises(InputError, match=hint):
            load_dataset(DatasetSpec(source=source))


@pytest.mark.parametrize("struct", [True, False])
def test_parquet_gives_the_pixels_that_were_stored(tmp_path, struct):
    write(tmp_path / "train.parquet", *rows(20), struct=struct)
    write(tmp_path / "test.parquet", *rows(10, start=100), struct=struct)
    told = []
    data = load_dataset(DatasetSpec(source=f"parquet:{tmp_path}"), lambda done, total: told.append((done, total)))
    assert data.train_images.shape == (20, 3, 8, 8)
    for i in range(20):
        np.testing.assert_array_equal(data.train_images[i].permute(1, 2, 0), picture(i))
    np.testing.assert_array_equal(data.test_images[3].permute(1, 2, 0), picture(103))
    assert data.train_labels.tolist() == [0, 1] * 10
    assert data.classes == ("0", "1")
    assert data.flip
    assert data.crop == 1
    assert told[-1] == (30, 30)
    pixels = data.normalise(data.train_images[data.pool]).double()
    assert pixels.mean((0, 2, 3)).abs().max() < 1e-5
    assert (pixels.std((0, 2, 3), unbiased=False) - 1).abs().max() < 1e-5


def test_parquet_in_several_parts(tmp_path):
    for part in range(3):
        blobs, labels = rows(10, start=10 * part)
        write(tmp_path / f"train-{part:05d}-of-00003.parquet", blobs, labels)
    write(tmp_path / "test-00000-of-00001.parquet", *rows(10, start=100))
    data = load(tmp_path)
    np.testing.assert_array_equal(data.train_images[25].permute(1, 2, 0), picture(25))
    spec = DatasetSpec(source=f"parquet:{tmp_path}")
    assert [path.name for path in source_files(spec)] == [
        *(f"train-{part:05d}-of-00003.parquet" for part in range(3)), "test-00000-of-00001.parquet",
    ]  # fmt: skip
    assert split_sizes(spec, 10) == {"pool": len(data.pool), "validation": len(data.validation), "seen": 10, "test": 10}


@pytest.mark.parametrize("names", [["cat", "dog"], {"0": "cat", "1": "dog"}])
def test_class_names_of_the_hugging_face_layout(tmp_path, names):
    meta = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}}}
    write(tmp_path / "train.parquet", *rows(20), meta=meta)
    write(tmp_path / "test.parquet", *rows(10), meta=meta)
    assert load(tmp_path).classes == ("cat", "dog")


def test_the_label_column_is_the_one_named_so(tmp_path):
    for name, n in (("train", 20), ("test", 10)):
        blobs, labels = rows(n)
        image = pa.array([{"bytes": blob} for blob in blobs])
        table = pa.table({"index": pa.array(range(n)), "image": image, "fine_label": pa.array(labels, pa.uint8())})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    assert load(tmp_path).train_labels.tolist() == [0, 1] * 10


def test_grey_images_and_size(tmp_path):
    write(tmp_path / "train.parquet", *rows(20, size=(10, 14), mode="L"))
    write(tmp_path / "test.parquet", *rows(10, size=(12, 9), mode="L"))
    assert load(tmp_path, size=16).train_images.shape == (20, 1, 16, 16)
    data = load(tmp_path, size=8, crop=3, flip=False)
    assert data.test_images.shape == (10, 1, 8, 8)
    assert (data.crop, data.flip) == (3, False)
    data = load(tmp_path, size=8, fit="stretch")
    resized = Image.fromarray(picture(4, (10, 14), "L")).resize((8, 8), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(data.train_images[4, 0], np.asarray(resized))
    assert "dataset.size=32" in refused(tmp_path, "Images differ in size: .* has .* pixels, the first")


def test_other_image_modes_become_grey_or_colour(tmp_path):
    colour, grey = Image.fromarray(picture(0)), Image.fromarray(picture(1, mode="L"))

    def stored(images, kind="PNG"):
        blobs = []
        for image in images:
            buffer = io.BytesIO()
            image.save(buffer, kind)
            blobs.append(buffer.getvalue())
        return blobs * 10

    for images, channels in (
        ([colour.convert("RGBA"), colour.quantize(8)], 3),
        ([grey, grey.convert("1")], 1),
    ):
        write(tmp_path / "train.parquet", stored(images), [0, 1] * 10)
        write(tmp_path / "test.parquet", stored(images), [0, 1] * 10)
        assert load(tmp_path).shape == (channels, 8, 8)


def test_no_such_folder(tmp_path):
    for kind in ("parquet", "folder"):
        refused(tmp_path / "nowhere", f"no folder '{tmp_path / 'nowhere'}'; write dataset.source={kind}:DIR", kind)
    with pytest.raises(InputError, match="no folder ''"):
        load_dataset(DatasetSpec(source="parquet"))


def test_no_test_file(folder):
    (folder / "test-00000-of-00001.parquet").unlink()
    data, spec = load(folder), DatasetSpec(source=f"parquet:{folder}")
    assert (len(data.train_images), len(data.test_images)) == (16, 4)
    assert torch.bincount(data.test_labels).tolist() == [2, 2]
    assert "20% of each class is held out" in understood(spec)[1]
    assert split_sizes(spec, 10) == {"pool": 14, "validation": 2, "seen": 10, "test": 4}
    assert len(load(folder, test=0.5).test_images) == 10
    write(folder / "validation.parquet", *rows(6, start=500))
    assert len(load(folder).test_images) == 6
    refused(folder, "dataset.test = 0.5 is for data without a test split, but there is validation.parquet", test=0.5)
    for path in folder.glob("train*"):
        path.unlink()
    refused(folder, r"no train\*\.parquet in .*; featcx needs one")


def test_no_image_column(folder):
    path = folder / "train-00000-of-00001.parquet"
    write(path, *rows(), image=None)
    refused(folder, f"{re.escape(str(path))} has no image column .* dataset.image: id, label")


def test_no_label_column(folder):
    path = folder / "train-00000-of-00001.parquet"
    write(path, *rows(), label=None)
    refused(folder, f"{re.escape(str(path))} has no label column .* dataset.label: id, image")


@pytest.mark.parametrize("cut", [50, 2000, -50])
def test_a_truncated_file(folder, cut):
    path = folder / "train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:cut])
    refused(folder, f"{re.escape(str(path))} cannot be read as Parquet; it may be truncated")


def test_damage_within_a_file(folder):
    """The footer is whole, the data is not."""
    path = folder / "train-00000-of-00001.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:8] + bytes(len(whole) - 4008) + whole[-4000:])
    refused(folder, re.escape(str(path)))


@pytest.mark.parametrize("damage", [b"no image at all", b"\x89PNG\r\n\x1a\n" + bytes(20), "cut", "zeros", "huge"])
def test_bytes_that_cannot_be_decoded_are_named_by_file_and_row(folder, damage):
    path, (blobs, labels) = folder / "train-00000-of-00001.parquet", rows(20)
    if damage == "cut":
        damage = blobs[13][:-60]
    if damage == "zeros":
        damage = blobs[13][:45] + bytes(60) + blobs[13][105:]
    if damage == "huge":  # a header of 60,000 × 60,000 pixels
        buffer = io.BytesIO()
        Image.new("L", (8, 8)).save(buffer, "BMP")
        damage = buffer.getvalue()[:18] + struct.pack("<ii", 60_000, 60_000) + buffer.getvalue()[26:]
    blobs[13] = damage
    write(path, blobs, labels)
    refused(folder, f"{re.escape(str(path))}, row 13: the image cannot be decoded .*repair or drop it")


@pytest.mark.parametrize("blob", [None, b""])
def test_rows_without_bytes(folder, blob):
    path, (blobs, labels) = folder / "test-00000-of-00001.parquet", rows(10)
    blobs[4] = blob
    write(path, blobs, labels)
    refused(folder, f"{re.escape(str(path))}, row 4: there are no image bytes; drop the row")


def test_rows_are_counted_within_their_file(tmp_path):
    write(tmp_path / "train-0.parquet", *rows(12))
    blobs, labels = rows(12)
    blobs[3] = b"?"
    write(tmp_path / "train-1.parquet", blobs, labels)
    write(tmp_path / "test.parquet", *rows(10))
    refused(tmp_path, r"train-1\.parquet, row 3: ")


@pytest.mark.parametrize("label", [-1, 2, 77])
def test_labels_outside_the_classes(folder, label):
    path, (blobs, labels) = folder / "test-00000-of-00001.parquet", rows(10)
    labels[6] = label
    write(path, blobs, labels)
    refused(folder, f"test split of .* has label {label} at row 6, outside its 2 classes")


def test_negative_labels_in_training(folder):
    write(folder / "train-00000-of-00001.parquet", rows(20)[0], [-1] * 20)
    refused(folder, "train split of .* has label -1 at row 0")


@pytest.mark.parametrize("label", [3, 1000, 10**12])
def test_gaps_between_labels(folder, label):
    """A class without images, and numbers that are no labels at all."""
    path, (blobs, labels) = folder / "train-00000-of-00001.parquet", rows(20)
    labels[6] = label
    write(path, blobs, labels)
    refused(folder, f"train split of .* has (0 of class '2'|label {label} at row 6, outside its 20 classes)")


def test_empty_labels(folder):
    path, (blobs, labels) = folder / "train-00000-of-00001.parquet", rows(20)
    write(path, blobs, [*labels[:-2], None, None])
    refused(folder, f"{re.escape(str(path))} has 2 empty labels in column 'label'")


@pytest.mark.parametrize("split", ["train", "test"])
def test_files_without_rows(folder, split):
    write(folder / f"{split}-00000-of-00001.parquet", [], [])
    refused(folder, f"{split} split of .* has no rows")


def test_a_class_with_one_training_image(folder):
    """It cannot be in the validation split and in the pool."""
    write(folder / "train-00000-of-00001.parquet", rows(20)[0], [0] * 19 + [1])
    refused(folder, "train split of .* has 1 of class '1'; featcx needs two images a class at least")


@pytest.mark.parametrize("size", [None, 8])
def test_grey_mixed_with_colour(folder, size):
    write(folder / "test-00000-of-00001.parquet", *rows(10, mode="L"))
    data = load(folder, size=size)
    assert data.test_images.shape == (10, 3, 8, 8)
    assert torch.equal(data.test_images[:, 0], data.test_images[:, 2])
    write(folder / "train-00000-of-00001.parquet", *rows(20, mode="L"))
    assert load(folder).shape == (1, 8, 8)
    blobs, labels = rows(20, mode="L")
    write(folder / "train-00000-of-00001.parquet", [*blobs[:-1], png(picture(3))], labels)
    assert image_shape(DatasetSpec(source=f"parquet:{folder}")) == (3, 8, 8) == load(folder).shape


def test_tiny_images(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", *rows(20, size=(7, 9)))
    refused(tmp_path, "Images are 9×7 pixels; featcx needs 8×8 at least")


@pytest.fixture
def classes(tmp_path):
    """train/ and test/ with a folder a class, PNG and JPEG, one of them nested."""
    for split, n in (("train", 6), ("test", 3)):
        for label, name in enumerate(("ant", "bee", "cow")):
            folder = tmp_path / split / name
            (folder / "more").mkdir(parents=True)
            for i in range(n):
                Image.fromarray(picture(100 * label + i)).save(folder / f"{i}.png")
            Image.fromarray(picture(9)).save(folder / "more" / "x.JPG", "JPEG")
            (folder / "notes.txt").write_text("no image")
    return tmp_path


def test_image_folders(classes):
    data = load(classes, "folder")
    assert data.classes == ("ant", "bee", "cow")
    assert torch.bincount(data.train_labels).tolist() == [7] * 3
    assert torch.bincount(data.test_labels).tolist() == [4] * 3
    np.testing.assert_array_equal(data.train_images[7 + 2].permute(1, 2, 0), picture(102))
    spec = DatasetSpec(source=f"folder:{classes}")
    assert len(source_files(spec)) == 33
    assert split_sizes(spec, 6) == {"pool": 18, "validation": 3, "seen": 6, "test": 12}
    assert load(classes, "folder", size=12).shape == (3, 12, 12)


def test_an_empty_class_folder(classes):
    (classes / "train" / "dog").mkdir()
    refused(classes, "class folder .*dog holds no images; fill or remove it", "folder")


def test_a_test_class_that_training_lacks(classes):
    (classes / "test" / "dog").mkdir()
    refused(classes, "has the class 'dog', which train/ lacks", "folder")


def test_folders_that_are_not_there(classes, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    refused(empty, "has no class folders", "folder")
    (empty / "test").mkdir()
    refused(empty, "no folder .*train beside .*test; add or rename it", "folder")
    (empty / "train").mkdir()
    refused(empty, "has no class folders", "folder")


def test_a_class_folder_with_one_image(classes):
    for split in ("train", "test"):
        (classes / split / "dog").mkdir()
        Image.fromarray(picture(0)).save(classes / split / "dog" / "0.png")
    refused(classes, "has 1 of class 'dog'; featcx needs two images", "folder")


def test_a_broken_image_in_a_folder(classes):
    path = classes / "train" / "bee" / "3.png"
    path.write_bytes(path.read_bytes()[:60])
    refused(classes, f"{re.escape(str(path))}: the image cannot be decoded", "folder")


def test_differing_sizes_in_a_folder(classes):
    Image.fromarray(picture(0, (9, 8))).save(classes / "train" / "ant" / "0.png")
    refused(classes, "Images differ in size: .* has .* pixels, the first", "folder")
    assert load(classes, "folder", size=8).shape == (3, 8, 8)
