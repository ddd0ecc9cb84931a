"""Heads that pool: recognised by structure alone, and the same losses as by running the head on every coalition."""

import ctypes
import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from featcx_core import kernels
from featcx_core.analysis.components import ComponentTable, extract
from featcx_core.game import coalitions
from featcx_core.game import values as shapley
from featcx_core.game.coalitions import subset_sums
from featcx_core.game.pooled import pooled_head
from featcx_core.game.values import coalition_losses
from featcx_core.nets.split import split_net
from featcx_core.nets.targets import TargetNet


def seeded_table(n, players, shape, seed=0, scale=1.0):
    rng = torch.Generator().manual_seed(seed)
    return ComponentTable.from_tensors(
        scale * torch.randn(n, players, *shape, generator=rng),
        torch.randn(n, *shape, generator=rng),
        torch.randint(4, (n,), generator=rng),
    )


@torch.no_grad()
def direct_losses(table, head):
    """The head itself in float64 on a sum of its own for every coalition."""
    maps, labels = (torch.cat(parts) for parts in zip(*table.stacked(), strict=True))
    head, maps, players = head.double(), maps.double(), len(table.orders)
    columns = []
    for s in range(2**players):
        feature = sum((maps[:, i] for i in range(players) if s >> i & 1), maps[:, players])
        columns.append(F.cross_entropy(head(feature.clone()), labels, reduction="none"))  # the head may overwrite it
    head.float()
    return torch.stack(columns, 1).float()


class Written(nn.Module):
    """A head whose forward pass is the given function of (self, x)."""

    def __init__(self, function, channels=6, classes=4):
        super().__init__()
        self.function, self.fc, self.drop = function, nn.Linear(channels, classes), nn.Dropout(0.5)
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        return self.function(self, x)


POOLING = {
    "sequential": (True, lambda: nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))),
    "sequential, pair, nested": (
        True,
        lambda: nn.Sequential(
            nn.Sequential(nn.Identity(), nn.ReLU(inplace=True)),
            nn.Dropout(0.3),
            nn.AdaptiveAvgPool2d((1, 1)),
            nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)),
        ),
    ),
    "without ReLU": (False, lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))),
    "ReLU after pooling": (
        False,
        lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.ReLU(), nn.Flatten(), nn.Linear(6, 4)),
    ),
    "mean": (True, lambda: Written(lambda m, x: m.fc(F.relu(x).mean((2, 3))))),
    "mean of named dimensions": (True, lambda: Written(lambda m, x: m.fc(x.relu().mean(dim=[-1, -2])))),
    "mean that keeps": (False, lambda: Written(lambda m, x: m.fc(torch.mean(x, (-2, -1), keepdim=True).flatten(1)))),
    "functions": (True, lambda: Written(lambda m, x: m.fc(torch.flatten(F.adaptive_avg_pool2d(torch.relu(x), 1), 1)))),
    "dropout": (True, lambda: Written(lambda m, x: m.fc(m.drop(m.drop(F.relu(x)).mean((2, 3)))))),
    "a parameter behind": (True, lambda: Written(lambda m, x: m.fc(F.relu(x.clone()).mean((2, 3)) + m.shift))),
}
NOT_ONE_LAYER = {"sequential, pair, nested", "ReLU after pooling", "a parameter behind"}
OTHER = {
    "no pooling": lambda: nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(6 * 9, 4)),
    "coarse pooling": lambda: nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4)),
    "convolution first": lambda: nn.Sequential(
        nn.Conv2d(6, 6, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    ),
    "another activation": lambda: nn.Sequential(nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)),
    "maximum": lambda: nn.Sequential(nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(6, 4)),
    "mean over one dimension": lambda: Written(lambda m, x: m.fc(F.relu(x).mean(3).amax(2))),
    "mean over channels": lambda: Written(lambda m, x: m.fc(x.mean((1, 2)).repeat(1, 2))),
    "the feature twice": lambda: Written(lambda m, x: m.fc(F.relu(x).mean((2, 3)) + x.amax((2, 3)))),
    "a parameter in front": lambda: Written(lambda m, x: m.fc(F.relu(x + m.shift[:, None, None]).mean((2, 3)))),
    "a scale in front": lambda: Written(lambda m, x: m.fc(F.relu(2 * x).mean((2, 3)))),
    "cannot be traced": lambda: Written(
        lambda m, x: m.fc(F.relu(x).mean((2, 3))) if x.shape[0] > 0 else m.fc(x[..., 0, 0])
    ),
}


@pytest.mark.parametrize("name", POOLING)
def test_heads_that_pool_are_recognised_and_give_the_same_losses(name):
    torch.manual_seed(1)
    relu, build = POOLING[name]
    head, table = build().eval(), seeded_table(140, 5, (6, 3, 3))
    found = pooled_head(head)
    assert found is not None
    assert found.relu == relu
    assert (found.linear is None) == (name in NOT_ONE_LAYER)
    torch.testing.assert_close(coalition_losses(table, head), direct_losses(table, head), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OTHER)
def test_other_heads_are_run_as_they_are(name):
    torch.manual_seed(1)
    head, table = OTHER[name]().eval(), seeded_table(140, 4, (6, 3, 3))
    assert pooled_head(head) is None
    torch.testing.assert_close(coalition_losses(table, head), direct_losses(table, head), rtol=1e-5, atol=1e-5)


def test_dropout_in_training_is_not_left_out():
    head = nn.Sequential(nn.Dropout(0.5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    assert pooled_head(head.train()) is None
    assert pooled_head(head.eval()) is not None


def test_heads_of_split_nets_are_recognised(digits):
    assert pooled_head(TargetNet("resnet8", digits.shape, 10).eval().head).relu
    plain = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10))
    assert pooled_head(split_net(plain, "1", True, (1, 8, 8)).head).relu
    assert not pooled_head(split_net(plain, "1", False, (1, 8, 8)).head).relu
    overwriting = Written(lambda m, x: m.fc(F.relu_(m.drop(x)).mean((2, 3))), 1)
    assert pooled_head(split_net(overwriting, "drop", False, (1, 8, 8)).head).relu


@pytest.mark.parametrize("players", [1, 3, 4, 6, 9])
@pytest.mark.parametrize("relu", [True, False])
def test_any_number_of_players(players, relu):
    torch.manual_seed(0)
    layers = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)]
    head, table = nn.Sequential(*[nn.ReLU()] * relu, *layers).eval(), seeded_table(20, players, (5, 2, 3))
    torch.testing.assert_close(coalition_losses(table, head), direct_losses(table, head), rtol=1e-5, atol=1e-5)


def test_subset_sums_by_bitmask():
    sums = subset_sums(
        torch.tensor([100]), [torch.tensor([2**i]) for i in range(5)], torch.empty(32, 1, dtype=torch.int64)
    )
    assert sums.flatten().tolist() == [100 + s for s in range(32)]


def no_compiler(monkeypatch, compiler="no-such-compiler"):
    monkeypatch.setenv("CXX", compiler)
    kernels._loaded.cache_clear()


@pytest.fixture
def fresh_kernels():
    """Kernels are looked for anew, before and after."""
    kernels._loaded.cache_clear()
    yield
    kernels._loaded.cache_clear()


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 8),
    st.integers(1, 20),
    st.sampled_from([1, 4, 15, 16, 49, 64, 65, 128, 144]),
    st.sampled_from([1.0, 1e-3, 1e3]),
    st.integers(1, 3),
    st.integers(1, 2),
)
def test_every_way_is_exact_within_rounding(players, channels, places, scale, threads, apart):
    """Against float64, relative to the largest term; 20 rows are one full and one short chunk of the plain way."""
    rng = torch.Generator().manual_seed(channels)
    root = torch.randn(20, channels, places, generator=rng)
    stacked = scale * torch.randn(20, players, channels * apart, places, generator=rng)[:, :, ::apart]
    parts = list(stacked.unbind(1))  # rows apart, as a batch of a table has them
    sums = subset_sums(root.double(), [p.double() for p in parts], torch.empty(2 ** len(parts), *root.shape).double())
    exact = sums.relu().mean(-1).permute(2, 1, 0)
    held = 16 * 4 * channels * places << min(players, coalitions.LOW)  # bytes of 16 rows
    with mock.patch.dict(coalitions.PLAIN_BYTES, cpu=held):
        ways = {"plain": coalitions._relu_totals(root, parts)}
    layer = nn.Linear(channels, 7).requires_grad_(False)
    largest = max(float(part.abs().max()) for part in (root, *parts))
    if library := kernels.kernel(coalitions.KERNEL):
        with mock.patch.object(torch, "get_num_threads", return_value=threads):
            ways["C++"] = coalitions._native(library, root, parts, None).view(channels, 20, -1)
            logits = coalitions._native(library, root, parts, layer).double()
        expected = layer.weight.double() @ exact.flatten(1) + layer.bias.double()[:, None]
        assert (logits - expected).abs().max() <= 4e-6 * (1 + largest)
    for name, found in ways.items():
        assert found.shape == exact.shape, name
        assert (found / places - exact).abs().max() <= 1e-6 * largest, name


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "c++")) is None, reason="no C++ compiler is installed")
def test_the_kernel_compiles():
    assert kernels.kernel(coalitions.KERNEL) is not None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_head_of_another_precision_is_never_read_as_float32(dtype):
    """It fails as it does outside the kernel."""
    head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval().to(dtype)
    with pytest.raises(RuntimeError, match="dtype"):
        coalition_losses(seeded_table(20, 5, (6, 3, 3)), head)


def test_the_kernel_keeps_what_is_not_a_number():
    if not (library := kernels.kernel(coalitions.KERNEL)):
        pytest.skip("no C++ compiler is installed")
    parts = [torch.randn(3, 2, 64) for _ in range(5)]
    parts[1][1, 0, 7] = float("nan")
    found = coalitions._native(library, torch.randn(3, 2, 64), parts, None).view(2, 3, 32)
    held = torch.arange(32) >> 1 & 1 == 1
    assert torch.equal(found.isnan().any(2), torch.tensor([[False, True, False], [False] * 3]))
    assert torch.equal(found[0, 1].isnan(), held)


def test_the_kernel_gives_the_plain_losses_within_rounding(monkeypatch, fresh_kernels):
    """On a last batch of fewer rows too; and the second call, on other threads, gives the first one's bytes."""
    if not kernels.kernel(coalitions.KERNEL):
        pytest.skip("no C++ compiler is installed")
    torch.manual_seed(0)
    head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()
    table = seeded_table(300, 5, (6, 3, 3))
    native = coalition_losses(table, head)
    with mock.patch.object(torch, "get_num_threads", return_value=3):
        assert torch.equal(coalition_losses(table, head), native)
    torch.testing.assert_close(native, direct_losses(table, head), rtol=1e-5, atol=2e-6)
    no_compiler(monkeypatch)
    torch.testing.assert_close(native, coalition_losses(table, head), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler_the_plain_way_is_taken_and_said_once(monkeypatch, caplog, compiler, fresh_kernels):
    torch.manual_seed(0)
    head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()
    table = seeded_table(300, 5, (6, 3, 3))
    no_compiler(monkeypatch, compiler)
    with caplog.at_level(logging.WARNING):
        found = coalition_losses(table, head)
    torch.testing.assert_close(found, direct_losses(table, head), rtol=1e-5, atol=2e-6)
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        "coalitions.cpp could not be compiled or loaded"
    ]


def test_a_kernel_is_compiled_once_and_again_for_other_code(tmp_path, monkeypatch, fresh_kernels):
    if not kernels.kernel(coalitions.KERNEL):
        pytest.skip("no C++ compiler is installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "twice.cpp"
    source.write_text('extern "C" int twice(int x) { return 2 * x; }')
    first = kernels._compiled(source)
    assert first.parent == tmp_path / "featcx"
    assert ctypes.CDLL(str(first)).twice(4) == 8
    made = first.stat().st_mtime_ns
    assert kernels._compiled(source) == first
    assert first.stat().st_mtime_ns == made
    source.write_text('extern "C" int twice(int x) { return 2 * x + 1; }')
    assert kernels._compiled(source) != first
    monkeypatch.setattr(kernels, "FLAGS", (*kernels.FLAGS, "-DNDEBUG"))
    assert len({first, kernels._compiled(source), *(tmp_path / "featcx").iterdir()}) == 3


def test_threads_that_ask_at_once_all_get_the_kernel(tmp_path, monkeypatch, fresh_kernels):
    if not kernels.kernel(coalitions.KERNEL):
        pytest.skip("no C++ compiler is installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernels._loaded.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(kernels.kernel, [coalitions.KERNEL] * 4))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 139), st.integers(1, 150), st.sampled_from(["sequential", "without ReLU", "no pooling"]))
def test_losses_do_not_depend_on_shards_or_batches(cut, batch, name):
    """Two shards and batches of any size against the whole: equal within rounding."""
    torch.manual_seed(0)
    head = (POOLING[name][1] if name in POOLING else OTHER[name])().eval()
    table = seeded_table(140, 4, (6, 3, 3))
    whole, source = coalition_losses(table, head), table._source
    shards = []
    for rows in (slice(0, cut), slice(cut, None)):
        maps = torch.stack([source[column][rows] for column in table.tensor_columns[:-1]], 1)
        shards.append(ComponentTable.from_tensors(maps, source["residual"][rows], source["label"][rows]))
    with mock.patch.object(shapley, "batch_rows", return_value=batch):
        found = torch.cat([coalition_losses(shard, head) for shard in shards])
    torch.testing.assert_close(found, whole, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_tables_in_files_have_the_same_losses(tmp_path, dtype):
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    nets = {4: lambda x: x.repeat(1, 6, 1, 1) * 0.5, 7: lambda x: x.repeat(1, 6, 1, 1) ** 2}
    images, labels = torch.rand(150, 1, 3, 3, generator=rng), torch.randint(4, (150,), generator=rng)
    extract(
        lambda x: torch.tanh(x.repeat(1, 6, 1, 1)), nets, images, labels, torch.arange(150), tmp_path,
        normalise=lambda x: x, device=torch.device("cpu"), part_rows=90, dtype=dtype,
    )  # fmt: skip
    table, head = ComponentTable.open(tmp_path), POOLING["sequential"][1]().eval()
    assert [len(part) for part in table.parts] == [90, 60]
    torch.testing.assert_close(coalition_losses(table, head), direct_losses(table, head), rtol=1e-5, atol=1e-5)
    other = (labels + 1) % 4
    relabelled = ComponentTable.from_tensors(*map(torch.cat, zip(*[
        (torch.stack([b[c] for c in table.tensor_columns[:-1]], 1).float(), b["residual"].float()) for b in table.batches()
    ], strict=True)), other)  # fmt: skip
    torch.testing.assert_close(
        coalition_losses(table, head, other), direct_losses(relabelled, head), rtol=1e-5, atol=1e-5
    )
