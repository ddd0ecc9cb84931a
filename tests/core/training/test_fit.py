"""The training loop: a function of its seed, unbroken or resumed."""

import itertools
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from featcx_core.data.images import Augmented, Dataset
from featcx_core.errors import InputError
from featcx_core.nets.targets import CifarResNet
from featcx_core.specs import Numerics, ScheduleSpec
from featcx_core.training import checkpoint as checkpoints
from featcx_core.training import fit as module
from featcx_core.training.checkpoint import Checkpoint
from featcx_core.training.fit import cross_entropy, fit, predict, reproduce, resolve_precision
from featcx_core.training.guard import Guard

CPU = torch.device("cpu")
SHORT = ScheduleSpec(draws=60 * 16, batch=16, lr=2e-3, lr_end=1e-4)


@pytest.fixture
def data(digits):
    """50 digits, of which batches of 16 make no whole epoch."""
    return Augmented(digits, digits.pool[:50], CPU)


class Plain(nn.Module):
    """A small net with what can go wrong on resuming: BatchNorm, dropout if asked for, frozen and unused parameters."""

    def __init__(self, dropout=False, functional=0.0):
        super().__init__()
        self.functional = functional
        self.unused = nn.Linear(3, 10)
        self.conv = nn.Conv2d(1, 8, 3, 2, 1)
        self.frozen = nn.Conv2d(8, 8, 1)
        self.frozen.requires_grad_(False)
        self.norm = nn.BatchNorm2d(8)
        self.twin = nn.Conv2d(8, 8, 1)
        self.drop = nn.Dropout(0.5) if dropout else nn.Identity()
        self.last = nn.Linear(8 * 16, 10)

    def forward(self, x):
        x = self.drop(F.relu(self.twin(self.norm(self.frozen(self.conv(x))))))
        return self.last(F.dropout(x, self.functional, self.training).flatten(1))


def fresh(kind="plain"):
    torch.manual_seed(5)
    if kind == "resnet":
        return CifarResNet(1, 1, 10)
    return Plain(dropout=kind == "dropout", functional=0.5 if kind == "functional dropout" else 0.0)


def run(data, seed=0, kind="plain", schedule=SHORT, loss=cross_entropy, **options):
    net = fresh(kind)
    result = fit(net, data, loss, schedule, seed=seed, **options)
    return {name: value.clone() for name, value in net.state_dict().items()}, result


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("kind", ["plain", "resnet", "dropout", "functional dropout"])
def test_same_seed_same_bytes(data, kind):
    one, result = run(data, kind=kind)
    torch.manual_seed(99)  # the process's generators do not matter
    np.random.seed(99)  # noqa: NPY002
    random.seed(99)
    torch.rand(7)
    again, same_result = run(data, kind=kind)
    assert same(one, again)
    assert result == same_result
    other, _ = run(data, kind=kind, seed=1)
    assert not same(one, other)


@pytest.mark.parametrize("kind", ["dropout", "functional dropout"])
def test_dropout_differs_from_step_to_step(data, kind):
    net, seen = fresh(kind), []

    def loss(forward, images, labels):
        logits = forward(images)
        with torch.no_grad():
            seen.append(torch.equal(forward(images), logits))
        return F.cross_entropy(logits, labels)

    fit(net, data, loss, SHORT, seed=0)
    assert not any(seen)


@pytest.mark.parametrize("kind", ["plain", "dropout", "functional dropout"])
def test_it_leaves_the_global_generator_alone(data, kind):
    net = fresh(kind)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    fit(net, data, cross_entropy, SHORT, seed=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_step_that_draws_nothing_does_not_end_the_seeding(data):
    """A net that drops parts by chance, on all steps but one."""
    nets = []
    for noise in (1, 2):
        net, steps = fresh(), []

        def loss(forward, images, labels, net=net, steps=steps):
            steps.append(1)
            net.functional = 0.0 if len(steps) == 3 else 0.5
            return cross_entropy(forward, images, labels)

        torch.manual_seed(noise)
        fit(net, data, loss, SHORT, seed=0)
        nets.append(net.state_dict())
    assert same(*nets)


class Stop(Exception):
    pass


def interrupt(after):
    """Raises after so many updates."""
    left = [after]

    def count():
        left[0] -= 1
        if not left[0]:
            raise Stop

    return count


@pytest.mark.parametrize(
    ("kind", "total", "weight_decay"),
    [
        ("plain", 60, 0.0),
        ("plain", 130, 0.1),
        ("resnet", 60, 0.0),
        ("dropout", 60, 0.0),
        ("functional dropout", 60, 0.0),
    ],
)
def test_a_resumed_training_gives_the_bytes_of_an_unbroken_one(data, tmp_path, kind, total, weight_decay):
    """Of 130 steps the history joins two each, and one resumption falls between them."""
    schedule = SHORT.model_copy(update={"draws": 16 * total, "weight_decay": weight_decay})
    whole, result = run(data, kind=kind, schedule=schedule)
    checkpoint = Checkpoint(tmp_path / "new" / "folder", "key", seconds=0)
    for steps in (1, 23, 2):  # killed three times; the first time before there is any checkpoint
        with pytest.raises(Stop):
            run(data, kind=kind, schedule=schedule, checkpoint=checkpoint, after_step=interrupt(steps))
        assert not list(tmp_path.rglob("*.partial"))
    steps = []
    resumed, again = run(
        data, kind=kind, schedule=schedule, checkpoint=checkpoint, after_step=lambda: steps.append(len(steps))
    )
    assert len(steps) == total - 22 - 1
    assert same(whole, resumed)
    assert again == result


def test_interrupted_in_the_progress_display(data, tmp_path, monkeypatch):
    whole, _ = run(data)
    checkpoint = Checkpoint(tmp_path, "key", seconds=0)
    clock = iter(range(10**6))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))

    def stop(step):
        if step.done == 31:
            raise Stop

    with pytest.raises(Stop):
        run(data, checkpoint=checkpoint, on_step=stop)
    resumed, _ = run(data, checkpoint=checkpoint)
    assert same(whole, resumed)


def test_checkpoints_are_taken_by_time(data, tmp_path, monkeypatch):
    """A second a step and a checkpoint a quarter of a minute: a kill loses at most that."""
    clock = iter(range(10**6))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    saved = []
    save = Guard.save
    monkeypatch.setattr(Guard, "save", lambda *args: saved.append(args[2]) or save(*args))
    run(data, checkpoint=Checkpoint(tmp_path, "key", seconds=14))
    assert 2 <= len(saved) <= 5
    assert all(b - a <= 16 for a, b in itertools.pairwise([0, *saved]))


def test_the_checkpoint_of_another_key_is_refused(data, tmp_path):
    with pytest.raises(Stop):
        run(data, checkpoint=Checkpoint(tmp_path, "one", seconds=0), after_step=interrupt(5))
    with pytest.raises(InputError, match="checkpoint of another spec; remove it"):
        run(data, checkpoint=Checkpoint(tmp_path, "other", seconds=0))


def test_a_whole_checkpoint_outlives_a_kill_while_saving(data, tmp_path, monkeypatch):
    whole, _ = run(data)
    checkpoint = Checkpoint(tmp_path, "key", seconds=0)
    with pytest.raises(Stop):
        run(data, checkpoint=checkpoint, after_step=interrupt(10))

    def half(tensors, path, meta):
        path.write_bytes(b"half a file")
        raise Stop

    monkeypatch.setattr(checkpoints, "save_file", half)
    with pytest.raises(Stop):
        run(data, checkpoint=checkpoint)
    monkeypatch.undo()
    resumed, _ = run(data, checkpoint=checkpoint)
    assert same(whole, resumed)


def test_after_step_follows_each_update(data):
    """For instance to keep pruned weights at zero."""
    net, seen = fresh(), []
    mask = torch.rand(net.last.weight.shape) < 0.5

    def prune():
        seen.append(bool((net.last.weight[mask] != 0).any()))
        with torch.no_grad():
            net.last.weight[mask] = 0

    fit(net, data, cross_entropy, SHORT, seed=0, after_step=prune)
    assert seen == [True] * 60
    assert (net.last.weight[mask] == 0).all()
    assert (net.last.weight[~mask] != 0).all()


@pytest.mark.parametrize(("lr", "lr_end"), [(1e-2, 1e-4), (1e-3, 1e-3), (1e-4, 1e-3)])
def test_rates_are_log_spaced(data, monkeypatch, lr, lr_end):
    rates = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam,
        "step",
        lambda self, *args: rates.extend(g["lr"] for g in self.param_groups) or step(self, *args),
    )
    run(data, schedule=ScheduleSpec(draws=41 * 16, batch=16, lr=lr, lr_end=lr_end))
    np.testing.assert_allclose(rates, np.geomspace(lr, lr_end, 41), rtol=1e-12)


def test_adam_updates_as_torch_does(digits):
    """Against a loop written out, on whole-batch steps without augmentation."""
    images = digits.train_images[:32]
    bare = Dataset(**vars(digits) | {"crop": 0, "train_images": images, "train_labels": digits.train_labels[:32]})
    net, other = fresh(), fresh()
    fit(
        net,
        Augmented(bare, torch.arange(32), CPU),
        cross_entropy,
        ScheduleSpec(draws=320, batch=32, lr=1e-3, lr_end=1e-3),
        seed=0,
    )
    optimiser = torch.optim.Adam([p for p in other.parameters() if p.requires_grad], lr=1e-3)
    other.train()
    for _ in range(10):
        optimiser.zero_grad()
        F.cross_entropy(other(bare.normalise(images)), bare.train_labels).backward()
        optimiser.step()
    other.eval()
    with torch.no_grad():
        trained, expected, initial = (n(bare.normalise(images)) for n in (net, other, fresh().eval()))
    torch.testing.assert_close(trained, expected, rtol=0, atol=0.01)
    assert (trained - initial).abs().max() > 0.1


class Numbered:
    """Stands for `Augmented`, with each sample's number as its only pixel."""

    device = CPU

    def __init__(self, n):
        self.n, self.drawn = n, []

    def __len__(self):
        return self.n

    reads_ahead = False

    def draw(self, chosen, rng):
        self.drawn.append(chosen)
        return chosen

    def fetch(self, drawn):
        return (drawn,)

    def take(self, drawn):
        return drawn.float()[:, None], drawn


@pytest.mark.parametrize(("n", "batch", "steps"), [(50, 16, 60), (50, 50, 7), (16, 50, 10), (7, 2, 30), (3, 10, 5)])
def test_every_epoch_visits_each_sample_once(n, batch, steps):
    data, orders = Numbered(n), []
    for seed in (0, 0, 1):
        data.drawn = []
        schedule = ScheduleSpec(draws=steps * batch, batch=batch)
        fit(nn.Linear(1, n), data, cross_entropy, schedule, seed=seed)
        assert [len(chosen) for chosen in data.drawn] == [batch] * steps
        orders.append(torch.cat(data.drawn))
    epochs = [orders[0][i : i + n] for i in range(0, len(orders[0]) - n + 1, n)]
    assert all(torch.equal(epoch.sort().values, torch.arange(n)) for epoch in epochs)
    assert n < 7 or not any(torch.equal(a, b) for a, b in itertools.pairwise(epochs))
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


@pytest.mark.parametrize(("draws", "batch", "steps"), [(960, 16, 60), (961, 16, 61), (1, 16, 1), (16 * 250, 16, 250)])
def test_the_budget_is_counted_in_samples(digits, draws, batch, steps):
    data, told = Numbered(10), []
    result = fit(
        nn.Linear(1, 10), data, cross_entropy, ScheduleSpec(draws=draws, batch=batch), seed=0, on_step=told.append
    )
    assert len(data.drawn) == steps
    assert len(result.drawn) == len(result.loss) <= 100
    assert result.drawn[-1] == steps * batch
    assert all(b > a for a, b in itertools.pairwise(result.drawn))
    assert (told[-1].done, told[-1].total) == (steps, steps)
    assert told[-1].rate > 0


def test_the_history_is_the_mean_loss_of_each_stretch():
    losses = []

    def loss(forward, images, labels):
        losses.append(cross_entropy(forward, images, labels))
        return losses[-1]

    result = fit(nn.Linear(1, 10), Numbered(10), loss, ScheduleSpec(draws=2050, batch=10), seed=0)
    means = [float(torch.stack(losses[i : i + 3]).detach().mean()) for i in range(0, 205, 3)]
    np.testing.assert_allclose(result.loss, means, rtol=1e-5)
    assert result.drawn[:2] == [30, 60]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_divergence_is_told(data, value):
    def loss(forward, images, labels):
        return cross_entropy(forward, images, labels) * value

    with pytest.raises(InputError, match="diverged: its loss is not finite; lower the schedule's lr"):
        run(data, loss=loss)


def test_divergence_of_a_rate_that_is_too_high(data):
    def steep(forward, images, labels):
        return forward(images).pow(2).sum().exp()

    with pytest.raises(InputError, match="diverged"):
        run(data, loss=steep, schedule=SHORT.model_copy(update={"lr": 1e3, "lr_end": 1e3}))


def test_it_ends_in_evaluation_mode_and_leaves_frozen_weights(data):
    net = fresh("dropout")
    frozen, unused = net.frozen.weight.clone(), net.unused.weight.clone()
    fit(net, data, cross_entropy, SHORT, seed=0)
    assert not net.training
    assert not net.drop.training
    assert torch.equal(net.frozen.weight, frozen)
    assert torch.equal(net.unused.weight, unused)


def test_reproduce_sums_mean_squares_over_teachers(data):
    a, b = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3)
    images = torch.randn(4, 1, 8, 8)
    both = nn.ModuleList([nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3)])
    loss = reproduce(a, b)(lambda x: (both[0](x), both[1](x)), images, None)
    expected = (both[0](images) - a(images)).pow(2).mean() + (both[1](images) - b(images)).pow(2).mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert a.weight.grad is None
    assert both[1].weight.grad is not None
    with pytest.raises(ValueError, match="zip"):
        reproduce(a, b)(both[0], images, None)
    torch.testing.assert_close(reproduce(a)(both[0], images, None), (both[0](images) - a(images)).pow(2).mean())


def test_cross_entropy_is_in_nats():
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    expected = (math.log(1 + math.exp(-2)) + math.log(2)) / 2
    assert float(cross_entropy(lambda x: logits, None, torch.tensor([0, 1]))) == pytest.approx(expected)


def test_bf16_trains_too(data):
    exact, _ = run(data, kind="resnet")
    rounded, result = run(data, kind="resnet", numerics=Numerics(precision="bf16"))
    assert not same(exact, rounded)
    assert all(value.dtype != torch.bfloat16 for value in rounded.values())
    assert result.loss[-1] < result.loss[0]


def test_precision_is_resolved_by_capability():
    assert resolve_precision("fp32", CPU) == "fp32"
    assert resolve_precision("bf16", CPU) == "bf16"
    assert resolve_precision("auto", CPU) in ("fp32", "bf16")
    assert resolve_precision("auto", CPU) == resolve_precision("auto", CPU)


@pytest.mark.parametrize(
    ("info", "precision"),
    [
        ("vendor_id: GenuineIntel flags: avx512f avx512_bf16 amx_bf16", "bf16"),
        ("vendor_id: GenuineIntel flags: avx512f avx512_bf16", "fp32"),
        ("vendor_id: AuthenticAMD flags: avx512f avx512_bf16", "bf16"),
        ("vendor_id: AuthenticAMD flags: avx2", "fp32"),
    ],
)
def test_bf16_where_the_processor_is_fast_at_it(info, precision, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda path, encoding=None: info)
    monkeypatch.setattr("os.path.exists", lambda path: True)
    assert resolve_precision("auto", CPU) == precision


def test_predict_is_independent_of_batches(digits):
    net = fresh().eval()
    whole = predict(net, digits.test_images, digits.normalise, CPU, most=1000)
    parts = predict(net, digits.test_images, digits.normalise, CPU, most=7)
    assert whole.shape == (397, 10)
    torch.testing.assert_close(whole, parts)
    with torch.no_grad():
        torch.testing.assert_close(whole, net(digits.normalise(digits.test_images)))
