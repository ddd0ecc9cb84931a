"""The training loop on a GPU: captured as a CUDA graph, the bytes are those of the same kernels launched one by one."""

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from featcx_core.data.images import Augmented
from featcx_core.nets.disentangler import Disentangler
from featcx_core.nets.targets import TargetNet
from featcx_core.nets.trunk import Trunk
from featcx_core.seeds import seeded
from featcx_core.specs import Numerics, ScheduleSpec
from featcx_core.training import replay
from featcx_core.training.checkpoint import Checkpoint
from featcx_core.training.compression import prune, quantise
from featcx_core.training.fit import cross_entropy, fit, reproduce
from featcx_core.training.muon import _orthogonalised
from tests.core.training.test_fit import Stop, interrupt, same
from tests.core.training.test_replay import REPLAYED, STEPS, assert_same_captured_or_not

GPU = torch.device("cuda")
SCHEDULE = ScheduleSpec(draws=STEPS * 32, batch=32, lr=2e-3, lr_end=1e-4)
MUON = ScheduleSpec(draws=STEPS * 32, batch=32, lr=1e-2, lr_end=1e-4, shape="trapezoid", optimiser="muon")
BF16 = Numerics(precision="bf16")


@pytest.fixture
def data(mnist):
    return Augmented(mnist, mnist.pool[:200], GPU)


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.Linear(16, 10)

    def forward(self, x):
        x = F.dropout(F.relu(self.norm(self.conv(x))), 0.5, self.training)
        return self.last(x.mean((2, 3)))


def trained(mnist, data, kind, schedule=SCHEDULE, numerics=BF16, **options):
    target = TargetNet("resnet8", mnist.shape, 10).eval().to(GPU)
    with seeded(1):
        net = {
            "target": lambda: TargetNet("resnet8", mnist.shape, 10),
            "disentangler": lambda: Disentangler(2, mnist.shape, target.shape, 16),
            "trunk": lambda: Trunk(1, mnist.shape, [target.shape] * 2, 16),
            "dropout": Dropping,
        }[kind]()
        for parameter in target.parameters():
            nn.init.normal_(parameter, std=0.1)
    loss = cross_entropy if kind in ("target", "dropout") else reproduce(*[target.feature] * (1 + (kind == "trunk")))
    result = fit(net, data, loss, schedule, seed=3, numerics=numerics, **options)
    return {name: value.cpu() for name, value in net.state_dict().items()}, result


@pytest.fixture
def replays(monkeypatch):
    """How often a graph was replayed."""
    calls, replay_ = [], torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: calls.append(1) or replay_(graph))
    monkeypatch.setattr(replay.Replayed, "possible", True)
    return calls


@pytest.mark.parametrize("schedule", [SCHEDULE, MUON, SCHEDULE.model_copy(update={"weight_decay": 0.1})])
@pytest.mark.parametrize("kind", ["target", "disentangler", "trunk"])
def test_captured_or_not_the_bytes_are_the_same(mnist, data, kind, schedule, monkeypatch, replays):
    histories = []

    def train():
        weights, history = trained(mnist, data, kind, schedule)
        histories.append(history)
        return weights, history

    assert_same_captured_or_not(train, replays, monkeypatch)
    assert histories[0].loss[-1] < histories[0].loss[0]


def test_side_by_side_or_alone_the_bytes_are_the_same(mnist, data, replays):
    """Threads that train, capture and draw on one GPU at once."""
    kinds = ["target", "disentangler", "trunk", "dropout"] * 2
    alone = [trained(mnist, data, kind)[0] for kind in kinds[:4]] * 2
    replays.clear()
    with ThreadPoolExecutor(len(kinds)) as pool:
        beside = list(pool.map(lambda kind: trained(mnist, data, kind)[0], kinds))
    assert all(map(same, alone, beside))
    assert len(replays) == 6 * REPLAYED  # all but those with dropout


@pytest.mark.parametrize("kind", ["disentangler", "dropout"])
@pytest.mark.parametrize("schedule", [SCHEDULE, MUON])
def test_resumed_on_a_gpu_the_bytes_are_the_same(mnist, data, tmp_path, kind, schedule):
    whole, history = trained(mnist, data, kind, schedule)
    checkpoint = Checkpoint(tmp_path, "key", seconds=0)
    for steps in (1, 13, 2):
        with pytest.raises(Stop):
            trained(mnist, data, kind, schedule, checkpoint=checkpoint, after_step=interrupt(steps))
    resumed, again = trained(mnist, data, kind, schedule, checkpoint=checkpoint)
    assert same(whole, resumed)
    assert again == history


def test_dropout_on_a_gpu_is_seeded_by_step(mnist, data):
    seen = []

    def loss(forward, images, labels):
        logits = forward(images)
        with torch.no_grad():
            seen.append(torch.equal(forward(images), logits))
        return F.cross_entropy(logits.float(), labels)

    nets = []
    for noise in (1, 2):
        torch.cuda.manual_seed(noise)
        with seeded(0):
            net = Dropping()
        fit(net, data, loss, SCHEDULE, seed=0)
        nets.append({name: value.cpu() for name, value in net.state_dict().items()})
    assert same(*nets)
    assert not any(seen)


def test_an_update_that_waits_for_the_device_runs_kernel_by_kernel(mnist, data, caplog, replays):
    def waiting(forward, images, labels):
        loss = cross_entropy(forward, images, labels)
        assert loss.item() > 0
        return loss

    class Quiet(Dropping):
        def forward(self, x):
            return self.last(F.relu(self.norm(self.conv(x))).mean((2, 3)))

    net = Quiet()
    with caplog.at_level(logging.WARNING):
        result = fit(net, data, waiting, SCHEDULE, seed=0)
    assert "could not be captured" in caplog.text
    assert not replays
    assert result.loss[-1] < result.loss[0]
    trained(mnist, data, "dropout")  # random numbers can still be drawn


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_trains_as_a_cpu_does(mnist, data, precision):
    """Not to the same digits; over 60 steps the losses stay together."""
    gpu = trained(mnist, data, "disentangler", numerics=Numerics(precision=precision))[1]
    cpu_data = Augmented(mnist, mnist.pool[:200], "cpu")
    target = TargetNet("resnet8", mnist.shape, 10).eval()
    with seeded(1):
        net = Disentangler(2, mnist.shape, target.shape, 16)
        for parameter in target.parameters():
            nn.init.normal_(parameter, std=0.1)
    cpu = fit(net, cpu_data, reproduce(target.feature), SCHEDULE, seed=3, numerics=Numerics())
    assert gpu.loss == pytest.approx(cpu.loss, rel=0.05)


@pytest.mark.parametrize("compression", ["prune", "quantise"])
def test_fine_tuning_is_captured(mnist, data, compression, replays):
    with seeded(0):
        net = TargetNet("resnet8", mnist.shape, 10)
    if compression == "prune":
        size = prune(net, data, SCHEDULE, sparsity=0.5, rounds=2)
        assert size.nonzero < size.parameters
    else:
        quantise(net, data, SCHEDULE, bits=3)
        assert all(len(layer.weight.unique()) <= 8 for layer in net.modules() if isinstance(layer, nn.Conv2d))
    assert len(replays) >= 20


@pytest.mark.parametrize("shape", [(3, 64, 576), (2, 512, 64)])
def test_half_precision_orthogonalises_as_float32_does(shape):
    matrices = torch.randn(shape)
    on_gpu = _orthogonalised(matrices.to(GPU)).cpu()
    assert (on_gpu - _orthogonalised(matrices)).norm() < 0.02 * on_gpu.norm()


def test_compiled_training_is_captured_too(mnist, data, replays):
    plain = trained(mnist, data, "disentangler")[1]
    compiled = trained(mnist, data, "disentangler", numerics=Numerics(precision="bf16", compile=True))[1]
    assert len(replays) == 2 * REPLAYED
    assert compiled.loss == pytest.approx(plain.loss, rel=0.05)
