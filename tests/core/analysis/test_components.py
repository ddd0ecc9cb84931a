"""Components in Parquet: featcx and plain pyarrow read what was written, a batch in memory at a time."""

import hashlib
import json
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from featcx_core.analysis import components
from featcx_core.analysis.components import ComponentTable, decompose, extract, sample_rows
from featcx_core.analysis.pages import mapped_columns
from featcx_core.data.images import Rows
from featcx_core.errors import InputError

SHAPE = (3, 4, 4)


def feature(x):
    return torch.tanh(x[:, :, ::2, ::2])


NETS = {
    4: lambda x: x[:, :, ::2, ::2] * 0.8,
    7: lambda x: x[:, :, ::2, ::2] ** 2,
    13: lambda x: torch.sin(x[:, :, 1::2, ::2]),
}


def inputs(n=100):
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(n, 3, 8, 8, generator=rng)
    return images, torch.randint(10, (n,), generator=rng), torch.randperm(5 * n, generator=rng)[:n]


def write(folder, n=100, nets=NETS, f=feature, **options):
    options = {"part_rows": 40, "batch": 16, "normalise": lambda x: x, "device": torch.device("cpu")} | options
    error = extract(f, nets, *inputs(n), folder, **options)
    return ComponentTable.open(folder), error


def everything(table, batch_size=256):
    batches = list(table.batches(batch_size=batch_size))
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def expected(n=100):
    images, labels, samples = inputs(n)
    phi = [net(images) for net in NETS.values()]
    columns = {
        "c_004": phi[0],
        "c_007": phi[1] - phi[0],
        "c_013": phi[2] - phi[1],
        "residual": feature(images) - phi[2],
    }
    return columns | {"label": labels, "sample": samples}


def test_round_trip_in_float32_is_exact(tmp_path):
    table, error = write(tmp_path)
    assert table.orders == (4, 7, 13)
    assert table.shape == SHAPE
    assert len(table) == 100
    assert table.tensor_columns == ["c_004", "c_007", "c_013", "residual"]
    assert error < 2**-20
    found, wanted = everything(table), expected()
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name
        assert found[name].dtype == value.dtype
    assert torch.equal(table.labels(), wanted["label"])
    assert torch.equal(table.samples(), wanted["sample"])


def test_round_trip_in_float16_is_the_rounded_value(tmp_path):
    table, error = write(tmp_path, dtype="float16")
    found, wanted = everything(table), expected()
    for name in table.tensor_columns:
        assert found[name].dtype == torch.float16
        assert torch.equal(found[name], wanted[name].half())
    assert 0 < error < 2**-9


@pytest.mark.parametrize(("dtype", "unit"), [("float32", 2.0**-24), ("float16", 2.0**-11)])
def test_components_and_residual_sum_to_the_feature(tmp_path, dtype, unit):
    """Within half a unit in the last place of the largest term, for each of the four terms and the subtractions."""
    table, error = write(tmp_path, dtype=dtype)
    f = feature(inputs()[0]).double()
    total = torch.cat([maps.double().sum(1) for maps, _ in table.stacked()])
    largest = max(float(maps.abs().max()) for maps, _ in table.stacked())
    worst = float((total - f).abs().max()) / largest
    assert worst < 4 * unit
    assert worst <= error < 8 * unit  # its own scale is a batch's, not the table's


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_order_that_fits_badly_is_stored_all_the_same(tmp_path, dtype):
    nets = {4: lambda x: 300 * x[:, :, ::2, ::2], 7: lambda x: x[:, :, ::2, ::2]}
    table, _ = write(tmp_path, nets=nets, dtype=dtype)
    assert everything(table)["c_004"].abs().max() > 500


def test_what_does_not_sum_to_the_feature_is_refused(tmp_path):
    for value in (float("nan"), float("inf")):
        with pytest.raises(ArithmeticError, match="miss the feature"):
            write(tmp_path, nets={4: lambda x, value=value: torch.full((len(x), *SHAPE), value)})
    with pytest.raises(InputError, match=r"more than float16 holds .*; set components\.dtype=float32"):
        write(tmp_path, nets={4: lambda x: torch.full((len(x), *SHAPE), 1e5)}, dtype="float16")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_plain_pyarrow_reads_the_canonical_tensor_type(tmp_path, dtype):
    write(tmp_path, dtype=dtype, meta={"split": "test", "target": "abc"})
    files = sorted(tmp_path.glob("*.parquet"))
    assert [file.name for file in files] == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    table = pq.read_table(tmp_path)
    assert table.schema.names == ["sample", "label", "residual", "c_004", "c_007", "c_013"]
    assert table.schema.field("sample").type == pa.int64()
    assert table.schema.field("label").type == pa.int32()
    for name in table.schema.names[2:]:
        kind = table.schema.field(name).type
        assert kind == pa.fixed_shape_tensor(getattr(pa, dtype)(), SHAPE)
        assert kind.extension_name == "arrow.fixed_shape_tensor"
    values = np.concatenate([chunk.to_numpy_ndarray() for chunk in table["c_007"].chunks])
    np.testing.assert_array_equal(values, expected()["c_007"].numpy().astype(dtype))
    meta = json.loads(table.schema.metadata[b"featcx"])
    assert meta == {"orders": [4, 7, 13], "shape": [3, 4, 4], "dtype": dtype, "split": "test", "target": "abc"}


@pytest.mark.parametrize("batch_size", [1, 7, 16, 40, 1000])
def test_batches_keep_the_order_and_never_span_parts(tmp_path, batch_size):
    table, _ = write(tmp_path)
    sizes = [len(batch["sample"]) for batch in table.batches(["sample"], batch_size)]
    by_part = [min(batch_size, rows - start) for rows in (40, 40, 20) for start in range(0, rows, batch_size)]
    assert sizes == by_part
    found, wanted = everything(table, batch_size), expected()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_batches_span_row_groups(tmp_path, monkeypatch):
    """Row groups are how rows are stored, not how they are read."""
    monkeypatch.setattr(components, "ROW_GROUP_BYTES", 1000)
    table, _ = write(tmp_path)
    assert pq.read_metadata(tmp_path / "part-00000.parquet").num_row_groups > 10
    assert [len(b["residual"]) for b in table.batches(["residual"], 16)] == [16, 16, 8, 16, 16, 8, 16, 4]
    found, wanted = everything(table), expected()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_columns_lie_in_the_file_as_they_are(tmp_path, dtype):
    table, _ = write(tmp_path, dtype=dtype)
    groups = mapped_columns(tmp_path / "part-00000.parquet", table.tensor_columns)
    assert [len(group["residual"]) for group in groups] == [16, 16, 8]
    wanted = expected()
    for name in table.tensor_columns:
        assert torch.equal(torch.cat([group[name] for group in groups]), wanted[name][:40].to(getattr(torch, dtype)))


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "snappy", "use_dictionary": False},
        {"compression": "none", "use_dictionary": True},
        {"compression": "none", "use_dictionary": False, "data_page_size": 500, "write_batch_size": 8},
        {"compression": "none", "use_dictionary": False, "data_page_version": "2.0"},
        {"compression": "none", "use_dictionary": False, "column_encoding": "BYTE_STREAM_SPLIT"},
    ],
)
def test_files_written_otherwise_are_decoded(tmp_path, options):
    """The same rows compressed, in dictionaries, many pages or other encodings: nothing is mapped, everything is read."""
    write(tmp_path / "ours", part_rows=100)
    rows = pq.read_table(tmp_path / "ours")
    pq.write_table(rows, tmp_path / "part-00000.parquet", **options)
    table, wanted = ComponentTable.open(tmp_path), expected()
    assert mapped_columns(tmp_path / "part-00000.parquet", table.tensor_columns) is None
    found = everything(table, 30)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_rows_that_are_missing_are_never_mapped(tmp_path):
    """A null takes no bytes: what follows it would be read a row too early."""
    kind = pa.fixed_shape_tensor(pa.float32(), [2])
    storage = pa.array([[1.0, 2.0], None, [5.0, 6.0]], kind.storage_type)
    column = pa.ExtensionArray.from_storage(kind, storage)
    pq.write_table(pa.table({"residual": column}), tmp_path / "x.parquet", compression="none", use_dictionary=False)
    assert mapped_columns(tmp_path / "x.parquet", ["residual"]) is None


def test_pandas_and_duckdb_read_the_files(tmp_path):
    write(tmp_path)
    wanted = expected()
    frame = pd.read_parquet(tmp_path)
    assert frame["sample"].tolist() == wanted["sample"].tolist()
    np.testing.assert_array_equal(np.stack(frame["c_007"]), wanted["c_007"].flatten(1).numpy())
    query = f"select sample, residual from '{tmp_path}/part-*.parquet' order by filename, file_row_number"
    rows = duckdb.sql(query).fetchnumpy()
    assert rows["sample"].tolist() == wanted["sample"].tolist()
    np.testing.assert_array_equal(np.stack(list(rows["residual"])), wanted["residual"].flatten(1).numpy())


def test_parts_are_tables_of_their_own(tmp_path):
    table, _ = write(tmp_path)
    assert [len(part) for part in table.parts] == [40, 40, 20]
    assert all(part.orders == table.orders and part.shape == table.shape for part in table.parts)
    assert torch.equal(torch.cat([part.samples() for part in table.parts]), table.samples())
    assert len(table.parts[0].parts) == 1


def test_chosen_columns_alone_are_read(tmp_path):
    table, _ = write(tmp_path)
    batch = next(table.batches(["label", "c_007"], 5))
    assert list(batch) == ["label", "c_007"]
    assert batch["c_007"].shape == (5, *SHAPE)


def test_batches_own_their_memory(tmp_path):
    """Tensors can be written to and outlive the mapped file."""
    table, _ = write(tmp_path)
    batch = next(table.batches(batch_size=10))
    kept = batch["residual"].clone()
    for file in tmp_path.glob("*.parquet"):
        file.unlink()
    batch["c_004"] += 1
    assert torch.equal(batch["residual"], kept)


def test_a_table_in_memory_behaves_as_one_on_disk(tmp_path):
    stored, _ = write(tmp_path, part_rows=100)
    columns = expected()
    table = ComponentTable.from_tensors(
        components=torch.stack([columns[name] for name in ("c_004", "c_007", "c_013")], 1),
        residual=columns["residual"], labels=columns["label"], orders=[4, 7, 13],
    )  # fmt: skip
    assert (table.orders, table.shape, len(table)) == (stored.orders, stored.shape, len(stored))
    assert table.tensor_columns == stored.tensor_columns
    for (a, labels_a), (b, labels_b) in zip(table.stacked(30), stored.stacked(30), strict=True):
        assert torch.equal(a, b)
        assert a.shape[1:] == (4, *SHAPE)
        assert a.dtype == torch.float32
        assert torch.equal(labels_a, labels_b)
    assert torch.equal(table.labels(), stored.labels())
    assert table.samples().tolist() == list(range(100))
    assert table.parts == [table]
    assert [list(batch) for batch in table.batches(["label"], 64)] == [["label"], ["label"]]


def test_orders_of_a_table_in_memory_default_to_the_papers():
    table = ComponentTable.from_tensors(torch.zeros(2, 6, 1, 1, 1), torch.zeros(2, 1, 1, 1), torch.zeros(2))
    assert table.orders == (4, 7, 13, 25, 49, 97)


@pytest.mark.parametrize(
    "wrong",
    [
        {"residual": torch.zeros(2, 1, 1, 2)},
        {"labels": torch.zeros(3)},
        {"orders": [4, 7, 13]},
        {"components": torch.zeros(2, 0, 1, 1, 1)},
    ],
)
def test_tensors_that_do_not_fit_together(wrong):
    given = {"components": torch.zeros(2, 2, 1, 1, 1), "residual": torch.zeros(2, 1, 1, 1), "labels": torch.zeros(2)}
    with pytest.raises(InputError, match="must fit together"):
        ComponentTable.from_tensors(**given | wrong)


def test_row_groups_are_bounded_in_bytes(tmp_path):
    """32 KiB a map and 4 maps a row: a batch of 256 rows would be 32 MiB, a group may be 16."""
    extract(
        lambda x: x.repeat(1, 8192, 1, 1), {o: lambda x, o=o: x.repeat(1, 8192, 1, 1) / o for o in (4, 7, 13)},
        torch.rand(256, 1, 1, 1), torch.zeros(256, dtype=torch.int64), torch.arange(256), tmp_path,
        normalise=lambda x: x, device=torch.device("cpu"), batch=256,
    )  # fmt: skip
    meta = pq.read_metadata(tmp_path / "part-00000.parquet")
    sizes = [meta.row_group(i).total_byte_size for i in range(meta.num_row_groups)]
    assert max(sizes) <= components.ROW_GROUP_BYTES + 4096
    assert sum(meta.row_group(i).num_rows for i in range(meta.num_row_groups)) == 256


def test_the_same_components_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, meta={"b": 1, "a": 2})
    digests = [
        [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted((tmp_path / name).iterdir())] for name in "ab"
    ]
    assert digests[0] == digests[1]
    assert len(digests[0]) == 3


def test_progress_counts_rows(tmp_path):
    told = []
    write(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == [16, 32, 40, 56, 72, 80, 96, 100]
    assert {total for _, total in told} == {100}


def anonymous_memory():
    """Bytes of this process's own pages; pages of mapped files do not count."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) << 10


def test_memory_does_not_grow_with_the_rows(tmp_path):
    """1,024 rows of 80 KiB: 80 MiB pass through, of which at most a few batches are ever held."""
    held = []
    extract(
        lambda x: x.repeat(1, 4096, 1, 1), {o: lambda x, o=o: x.repeat(1, 4096, 1, 1) / o for o in (4, 7, 13, 25)},
        torch.rand(1024, 1, 1, 1), torch.zeros(1024, dtype=torch.int64), torch.arange(1024), tmp_path,
        normalise=lambda x: x, device=torch.device("cpu"), part_rows=512, batch=64,
        progress=lambda done, total: held.append(anonymous_memory()),
    )  # fmt: skip
    assert max(held[3:]) - held[3] < 30 << 20
    held = [anonymous_memory() for _ in ComponentTable.open(tmp_path).batches(batch_size=64)]
    assert max(held[3:]) - held[3] < 30 << 20


def test_a_folder_without_components(tmp_path):
    with pytest.raises(InputError, match="no part-"):
        ComponentTable.open(tmp_path)


def test_a_foreign_parquet_file(tmp_path):
    pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "part-00000.parquet")
    with pytest.raises(InputError, match=r"part-00000.parquet is no components file"):
        ComponentTable.open(tmp_path)


def test_foreign_metadata(tmp_path):
    for text in (b"not JSON", b"{}", b"[]"):
        pq.write_table(pa.table({"x": [1]}).replace_schema_metadata({b"featcx": text}), tmp_path / "part-00000.parquet")
        with pytest.raises(InputError, match="is no components file"):
            ComponentTable.open(tmp_path)


@pytest.mark.parametrize("part", [0, 1])
def test_a_truncated_file_is_named(tmp_path, part):
    write(tmp_path)
    path = tmp_path / f"part-{part:05d}.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=f"{path.name} is no components file of featcx, or damaged"):
        ComponentTable.open(tmp_path)


def test_sample_rows_draws_in_order_with_a_seed():
    split = (Rows(torch.arange(50).float(), torch.arange(50), None), torch.arange(50) % 7, torch.arange(100, 150))
    assert sample_rows(split, "all", 0) is split
    assert sample_rows(split, 50, 0) is split
    images, labels, samples = sample_rows(split, 20, 0)
    assert len(samples) == 20
    assert (samples.diff() > 0).all()
    assert torch.equal(images[:].long() + 100, samples)
    assert torch.equal(labels, images[:].long() % 7)
    assert torch.equal(samples, sample_rows(split, 20, 0)[2])
    assert not torch.equal(samples, sample_rows(split, 20, 1)[2])


def test_decompose_and_extract_take_images_alike(tmp_path):
    """Floats as the nets take them, or bytes with what normalises them; of maps and of vectors."""
    torch.manual_seed(0)
    pixels, labels = torch.randint(256, (9, 1, 8, 8), dtype=torch.uint8), torch.arange(9) % 3

    def normalise(x):
        return x.float() / 255 - 0.5

    for name, net in {"maps": nn.Conv2d(1, 3, 3), "vectors": nn.Sequential(nn.Flatten(), nn.Linear(64, 5))}.items():
        nets = {4: net, 7: lambda x, net=net: 2 * net(x)}
        ways = [
            decompose(net, nets, normalise(pixels), labels),
            decompose(net, nets, pixels, labels, normalise=normalise),
        ]
        for images, options in ((normalise(pixels), {}), (pixels, {"normalise": normalise})):
            extract(net, nets, images, labels, torch.arange(9), tmp_path / f"{name}{len(options)}", **options)
            ways.append(ComponentTable.open(tmp_path / f"{name}{len(options)}"))
        for table in ways:
            assert table.shape == net(normalise(pixels)).shape[1:]
            for ours, first in zip(table.stacked(), ways[0].stacked(), strict=True):
                assert torch.equal(ours[0], first[0])
                assert torch.equal(ours[1], first[1])
    with pytest.raises(InputError, match=r"torch\.uint8; give normalise=data\.normalise"):
        decompose(net, nets, pixels, labels)
    with pytest.raises(InputError, match=r"torch\.uint8; give normalise=data\.normalise"):
        extract(net, nets, pixels, labels, torch.arange(9), tmp_path / "refused")
