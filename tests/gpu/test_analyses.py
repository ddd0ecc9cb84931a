"""Analyses on a GPU against the same on the CPU, and a whole run."""

import pytest
import torch
from torch import nn

from featcx_core.analysis.components import ComponentTable, extract
from featcx_core.analysis.decodability import measure_decodability
from featcx_core.analysis.reliability import fit_cycle, measure_reliability, second_moment
from featcx_core.data.images import Augmented
from featcx_core.game.sampling import sampled_shapley_values
from featcx_core.game.values import coalition_losses
from featcx_core.nets.disentangler import Disentangler
from featcx_core.nets.targets import TargetNet
from featcx_core.nets.trunk import Trunk
from featcx_core.seeds import seeded
from featcx_core.specs import ScheduleSpec
from featcx_core.store.artifacts import Store
from featcx_core.training.fit import cross_entropy, fit
from tests.e2e.conftest import LEAN, TINY, featcx

GPU = torch.device("cuda")


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch):
    """Not TF32, so that only the order of sums tells the devices apart."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def table(n=300, players=6, shape=(64, 8, 8)):
    rng = torch.Generator().manual_seed(0)
    maps = torch.randn(n, players + 1, *shape, generator=rng)
    return ComponentTable.from_tensors(maps[:, :-1], maps[:, -1], torch.randint(10, (n,), generator=rng))


def head(kind, channels=64):
    with seeded(0):
        if kind == "pooled":
            return nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)).eval()
        if kind == "two layers":
            tail = nn.Sequential(nn.Linear(channels, 32), nn.ReLU(), nn.Linear(32, 10))
            return nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), tail).eval()
        conv = nn.Conv2d(channels, 16, 3)
        return nn.Sequential(
            nn.ReLU(), conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
        ).eval()


@pytest.mark.parametrize("kind", ["pooled", "two layers", "general"])
@pytest.mark.parametrize(("players", "n"), [(6, 300), (4, 77), (9, 20)])
def test_losses_of_coalitions(kind, players, n):
    components = table(n, players)
    cpu = coalition_losses(components, head(kind))
    gpu = coalition_losses(components, head(kind), device=GPU)
    assert gpu.device.type == "cpu"
    torch.testing.assert_close(gpu, cpu, rtol=2e-5, atol=2e-5)


def test_sampled_values():
    components, own = table(50), head("general")
    cpu = sampled_shapley_values(components, own, 4, 0)
    gpu = sampled_shapley_values(components, own, 4, 0, device=GPU)
    for one, other in zip(gpu, cpu, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def nets(mnist):
    """A target and disentanglers after a few steps."""
    with seeded(0):
        target = TargetNet("resnet8", mnist.shape, 10)
        phi = {3 * m + 1: Disentangler(m, mnist.shape, target.shape, 8) for m in (1, 2)}
        trunks = [Trunk(m, mnist.shape, [target.shape] * 3, 8).eval() for m in (1, 2)]
    schedule = ScheduleSpec(draws=640, batch=32)
    fit(target, Augmented(mnist, mnist.pool[:200], GPU), cross_entropy, schedule)
    for net in (target, *phi.values(), *trunks):
        net.cpu().eval()
    return target, phi, trunks


def extracted(mnist, nets, folder, device):
    target, phi, _ = nets
    images, labels, samples = mnist.split("pool")
    for net in (target, *phi.values()):
        net.to(device)
    rows = slice(0, 200)
    extract(
        target.feature,
        phi,
        images[rows],
        labels[rows],
        samples[rows],
        folder,
        normalise=mnist.normalise,
        device=torch.device(device),
    )
    return ComponentTable.open(folder)


def test_extraction_and_reliability(mnist, nets, tmp_path):
    tables, frames = {}, {}
    for device in ("cpu", "cuda"):
        tables[device] = extracted(mnist, nets, tmp_path / device, device)
        trunks = [trunk.to(device) for trunk in nets[2]]
        pool = [mnist.normalise(mnist.train_images[mnist.pool[:100]].to(device))]
        back = [
            [h.to(device) for h in fit_cycle(second_moment(t.psi, pool).float(), t.matrices(), steps=320)]
            for t in trunks
        ]
        frames[device] = measure_reliability(
            tables[device],
            [trunks],
            [back],
            lambda samples, device=device: mnist.normalise(mnist.train_images[samples].to(device)),
            rounds=5,
            bootstrap=100,
            confidence=0.95,
            seed=0,
            device=device,
        ).orders
        decoded = measure_decodability(
            tables[device],
            tables[device],
            [nets[0].feature],
            [trunks[0].psi],
            lambda _, samples, device=device: mnist.normalise(mnist.train_images[samples].to(device)),
            ridges=[1e-3, 1e-2],
            bootstrap=100,
            confidence=0.95,
            seed=0,
            device=device,
        ).orders
        frames[device] = frames[device].merge(decoded[decoded.quantity == "component"], on="order")
    for one, other in zip(tables["cpu"].stacked(), tables["cuda"].stacked(), strict=True):
        torch.testing.assert_close(other[0], one[0], rtol=1e-3, atol=1e-4)
    for column in ("fit", "shrinkage", "reliable_share", "decodability", "floor"):
        assert frames["cuda"][column].to_numpy() == pytest.approx(frames["cpu"][column].to_numpy(), rel=0.02, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["threads", "processes"])
def test_a_whole_run_and_all_of_it_cached(tmp_path, runner):
    command = ["run", "digits", *TINY, *LEAN, "--device", "cuda", "--runner", runner, "--store", tmp_path / "store"]
    first, again = (featcx(*command, json_file=tmp_path / f"{i}.json") for i in range(2))
    assert first.json["stages"]["run"] > 40, first.err
    assert again.json["stages"] == {"run": 0, "cached": sum(first.json["stages"].values())}


@pytest.mark.slow
def test_one_stage_at_a_time_or_three_give_the_same_artifacts(tmp_path):
    digests = []
    for count in (1, 3):
        store = tmp_path / f"store{count}"
        done = featcx(
            "run", "digits", *TINY, *LEAN, "--device", "cuda", "--store", store, "--set", f"runtime.per_gpu={count}"
        )
        assert done.code == 0, done.err
        digests.append({(m["stage"], m["key"]): m["digest"] for m in Store(store).manifests()})
    assert digests[0] == digests[1]
