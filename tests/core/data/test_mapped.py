"""Images in a file: the same values and trainings as in memory, and no more of them in the process than is said."""

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from featcx_core.data import images as images_module
from featcx_core.data import mapped
from featcx_core.data.images import Augmented, Dataset, ahead, normalisation
from featcx_core.data.mapped import Mapped, create
from featcx_core.data.sources import load_dataset
from featcx_core.errors import InputError
from featcx_core.specs import DatasetSpec, Numerics, ScheduleSpec
from featcx_core.training.fit import cross_entropy, fit, predict
from tests.core.data.test_layouts import folder, parquet, table

TENSORS = ("train_images", "test_images", "train_labels", "test_labels", "pool", "validation", "mean", "std")


def test_the_file_is_safetensors(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {
        "images": torch.from_numpy(rng.integers(0, 256, (5, 3, 7, 9), dtype=np.uint8)),
        "labels": torch.arange(5),
        "mean": torch.rand(3),
    }
    made = create(tmp_path / "a", {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()})
    for name, tensor in tensors.items():
        made.tensors[name].copy_(tensor)
    read = load_file(tmp_path / "a")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    save_file(tensors, tmp_path / "b")
    other = Mapped(tmp_path / "b").tensors
    assert all(torch.equal(other[name], tensors[name]) for name in tensors)


@pytest.fixture(params=["folder", "parquet", "npz", "digits"])
def source(request, tmp_path):
    if request.param == "folder":
        return f"folder:{folder(tmp_path / 'in', splits=('.',), each=30)}"
    if request.param == "parquet":
        return parquet(tmp_path, lambda n: table(n, label=np.arange(n) % 2))
    if request.param == "npz":
        pixels = np.random.default_rng(0).integers(0, 256, (60, 9, 8, 3), dtype=np.uint8)
        np.savez_compressed(tmp_path / "a.npz", x_train=pixels, y_train=np.arange(60) % 3)
        return f"npz:{tmp_path / 'a.npz'}"
    return "digits"


def test_decoded_into_a_file_is_as_decoded_in_memory(source, tmp_path):
    (tmp_path / "out").mkdir()
    spec = DatasetSpec(source=source)
    within, told = load_dataset(spec), []
    made = load_dataset(spec, lambda done, total: told.append((done, total)), tmp_path / "out")
    read = Dataset.load(tmp_path / "out")
    for name in TENSORS:
        assert torch.equal(getattr(within, name), getattr(made, name)), name
        assert torch.equal(getattr(within, name), getattr(read, name)), name
    assert (within.classes, within.crop, within.flip) == (read.classes, read.crop, read.flip)
    assert not told or told[-1] == (len(within.train_labels) + len(within.test_labels),) * 2


def test_what_fails_to_decode_is_told_from_any_thread(tmp_path):
    root = folder(tmp_path, each=300)
    (root / "test" / "dog" / "77.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"dog/77\.png: the image cannot be decoded"):
        load_dataset(DatasetSpec(source=f"folder:{root}"))


@pytest.fixture
def both(tmp_path):
    """The same data in memory and in a file."""
    within = load_dataset(DatasetSpec(source="digits", crop=2, flip=True))
    within.save(tmp_path)
    return within, Dataset.load(tmp_path)


def test_the_same_bytes_of_results(both):
    """Batches, weights after a training, and what a net gives, from memory, from a file, and kept on the device."""
    states, outputs = [], []
    for data, resident in ((both[0], None), (both[1], None), (both[0], True), (both[1], True)):
        samples = Augmented(data, data.pool, resident=resident)
        assert samples.reads_ahead == (data.file is not None and resident is None)
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
        schedule = ScheduleSpec(draws=1000, batch=32)
        history = fit(net, samples, cross_entropy, schedule, seed=1, numerics=Numerics(precision="fp32"))
        outputs.append(predict(net, data.split("test")[0], data.normalise, "cpu"))
        states.append([*net.state_dict().values(), torch.tensor(history.loss), samples.plain(torch.arange(20))])
    for state, given in zip(states[1:], outputs[1:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(states[0], state, strict=True))
        assert torch.equal(outputs[0], given)


def test_reading_ahead_keeps_the_order_and_ends(both):
    asked = []
    stream = ahead(lambda i: asked.append(i) or i * i, range(10))
    assert next(stream) == 0
    stream.close()
    assert len(asked) <= 2 + images_module.AHEAD
    assert list(ahead(lambda i: i * i, range(10))) == [i * i for i in range(10)]

    def broken(i):
        raise InputError("row 3")

    with pytest.raises(InputError, match="row 3"):
        list(ahead(broken, range(3)))


def test_the_normalisation_is_exact():
    rng = np.random.default_rng(0)
    images, pool = torch.from_numpy(rng.integers(0, 256, (50, 3, 11, 9), dtype=np.uint8)), torch.arange(0, 50, 2)
    images[:, 2] = 7
    mean, std = normalisation(images, pool)
    pixels = images[pool].double().permute(1, 0, 2, 3).flatten(1) / 255
    torch.testing.assert_close(mean, pixels.mean(1).float(), rtol=1e-7, atol=0)
    torch.testing.assert_close(std[:2], pixels.std(1, correction=0)[:2].float(), rtol=1e-7, atol=0)
    assert std[2] == pytest.approx(1 / 255)


def file_pages() -> int:
    """Bytes of files that this process holds in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells of a process's pages")
def test_little_of_a_file_stays_in_the_process(tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "RESIDENT", 1 << 20)
    rows = images_module.Rows(torch.zeros(200, 3, 16, 16, dtype=torch.uint8), torch.randperm(200), None)
    assert sum(len(part) for part in rows.split(50)) == 200  # what it takes of libraries is there
    gc.collect()
    before = file_pages()
    made = create(tmp_path / "a", {"images": (torch.uint8, (5000, 3, 128, 128))})  # 246 MB
    for i, image in enumerate(made.tensors["images"]):
        image.fill_(i % 251)
        made.touch(image.numel())
        assert file_pages() - before < 140 << 20
    read = Mapped(tmp_path / "a")
    rows = images_module.Rows(read.tensors["images"], torch.randperm(5000), read)
    found = []
    for part in rows.split(16):
        found.append(part[:, 0, 0, 0])
        assert file_pages() - before < 140 << 20
    assert torch.equal(torch.cat(found), (rows.chosen % 251).to(torch.uint8))
    for image in read.tensors["images"]:
        image.sum()
    assert file_pages() - before > 200 << 20  # as it would be without
