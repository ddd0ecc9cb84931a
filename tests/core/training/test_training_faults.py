"""A training whose loss is not finite, or whose memory does not suffice, goes back to its last good state, once."""

import random
import threading

import pytest
import torch
from torch import nn

from featcx_core.data.images import Augmented
from featcx_core.errors import InputError
from featcx_core.nets.disentangler import Disentangler
from featcx_core.nets.targets import CifarResNet
from featcx_core.specs import Numerics, ScheduleSpec
from featcx_core.training.checkpoint import SAVING, Checkpoint, read
from featcx_core.training.fit import cross_entropy, fit, reproduce
from featcx_core.training.guard import Guard
from featcx_core.training.recompute import blocks_of, recomputing

STEPS, BATCH, SAMPLES = 130, 16, 50  # an epoch is 4 steps, a good state is taken every 52
SCHEDULE = ScheduleSpec(draws=STEPS * BATCH, batch=BATCH, lr=2e-3, lr_end=1e-4)
CPU = torch.device("cpu")


class Stop(Exception):
    pass


@pytest.fixture
def data(digits):
    return Augmented(digits, digits.pool[:SAMPLES], CPU)


def net_of(kind="plain"):
    torch.manual_seed(5)
    if kind == "disentangler":
        return Disentangler(2, (1, 8, 8), (4, 4, 4), 8)
    if kind == "dropout":
        layers = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5)]
        return nn.Sequential(nn.Sequential(*layers), nn.Flatten(), nn.Linear(288, 10))
    return CifarResNet(1, 1, 10)


def failing(at, fail, base=cross_entropy):
    """A loss that `fail` changes, or raises for, at these calls; how often it was called, as a list."""
    calls = []

    def loss(forward, images, labels):
        calls.append(len(calls))
        value = base(forward, images, labels)
        return fail(value) if calls[-1] in at else value

    return loss, calls


def trained(data, loss=cross_entropy, kind="plain", **how):
    net, remarks = net_of(kind), []
    result = fit(net, data, loss, SCHEDULE, seed=1, on_remark=remarks.append, **how)
    return {name: value.clone() for name, value in net.state_dict().items()}, result, remarks


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def nan(value):
    return value * torch.nan


def test_divergence_is_seen_within_an_epoch_and_mended_at_half_the_rate(data):
    loss, calls = failing({70}, nan)
    weights, result, remarks = trained(data, loss)
    assert remarks == ["diverged after step 52; it went on from there at half the rate"]
    assert STEPS + 70 - 52 < len(calls) <= STEPS + 70 - 52 + 4
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert len(result.loss) == 65
    assert result.drawn[-1] == STEPS * BATCH
    whole, _, none = trained(data)
    assert none == []
    assert not same(whole, weights)


def test_what_comes_before_the_good_state_stays_and_the_rest_goes_by_half_the_rate(data, monkeypatch):
    """Against the same training whose rates are halved from that state on by hand."""
    rates, by_hand = [], []
    step = torch.optim.Adam.step

    def seen(into):
        return lambda self, *args: into.extend(g["lr"] for g in self.param_groups) or step(self, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", seen(rates))
    mended, _, _ = trained(data, failing({70}, nan)[0])
    monkeypatch.setattr(torch.optim.Adam, "step", seen(by_hand))
    monkeypatch.setattr(Guard, "keep", halved_at(52, Guard.keep))
    halved, _, _ = trained(data)
    assert same(mended, halved)
    assert rates[-(STEPS - 52) :] == by_hand[52:]
    assert rates[:52] == by_hand[:52]


def halved_at(step, keep):
    def own(guard, done, history):
        keep(guard, done, history)
        guard.rate = 0.5 if done >= step else 1.0

    return own


def test_the_second_time_it_fails_with_a_sentence(data):
    with pytest.raises(InputError, match=r"diverged: its loss is not finite; lower .* did so again"):
        trained(data, failing({70, 100}, nan)[0])


@pytest.mark.parametrize("stops", [(60,), (71, 30), (75,), (100, 20, 5)])
def test_broken_off_before_or_after_it_was_mended_it_goes_on_to_the_same_bytes(data, tmp_path, monkeypatch, stops):
    """The loss is not finite on the images of step 70 while the rate is whole, however often they come."""
    guards, seen, begin = [], [], Guard.begin
    monkeypatch.setattr(Guard, "begin", lambda guard, checkpoint: guards.append(guard) or begin(guard, checkpoint))

    def recorded(forward, images, labels):
        seen.append(images.clone())
        return cross_entropy(forward, images, labels)

    def steep(forward, images, labels):
        bad = guards[-1].rate == 1 and torch.equal(images, seen[70])
        return cross_entropy(forward, images, labels) * (torch.nan if bad else 1)

    trained(data, recorded)
    mended, result, _ = trained(data, steep)
    checkpoint = Checkpoint(tmp_path, "key", seconds=0)
    for stop in stops:
        left = [stop]

        def interrupt(left=left):
            left[0] -= 1
            if not left[0]:
                raise Stop

        with pytest.raises(Stop):
            trained(data, steep, checkpoint=checkpoint, after_step=interrupt)
    weights, again, remarks = trained(data, steep, checkpoint=checkpoint)
    assert same(weights, mended)
    assert again == result
    assert remarks == ["diverged after step 52; it went on from there at half the rate"]


def out_of_memory(value):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize("kind", ["plain", "dropout"])
@pytest.mark.parametrize("at", [0, 70])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_too_little_memory_gives_the_same_bytes_from_activations_computed_again(data, kind, at, precision):
    numerics = Numerics(precision=precision)
    whole, result, _ = trained(data, kind=kind, numerics=numerics)
    mended, again, remarks = trained(data, failing({at}, out_of_memory)[0], kind, numerics=numerics)
    assert same(whole, mended)
    assert again == result
    assert remarks == [
        f"ran out of memory after step {at // 52 * 52}; its activations were computed again from there on"
    ]


def test_a_disentangler_s_kernel_gives_the_same_bytes_again(data):
    teacher = nn.Conv2d(1, 4, 3, 2, 1).eval()
    whole, _, _ = trained(data, reproduce(teacher), "disentangler")
    mended, _, remarks = trained(data, failing({60}, out_of_memory, reproduce(teacher))[0], "disentangler")
    assert remarks
    assert same(whole, mended)


def test_blocks_keep_their_input_alone():
    """Counted: what autograd saves while the way forwards is taken."""
    net, x = CifarResNet(3, 1, 10), torch.randn(8, 1, 16, 16)

    def saved():
        held = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t.numel()) or t, lambda t: t):
            loss = net(x).sum()
        loss.backward()
        return sum(held), [p.grad.clone() for p in net.parameters()]

    plain, gradients = saved()
    net.zero_grad()
    with recomputing(net):
        lean, again = saved()
    assert lean < plain / 3
    assert all(map(torch.equal, gradients, again))
    assert len(blocks_of(net)) == 9
    assert not any("forward" in vars(block) for block in net.modules())


def test_a_batch_that_never_fits_is_named(data):
    with pytest.raises(
        InputError, match=r"too small for steps of 16 images, even with .*; set the schedule's batch to 8"
    ):
        trained(data, failing(set(range(5, 200)), out_of_memory)[0])


def test_other_errors_stay_what_they_are(data):
    def broken(value):
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        trained(data, failing({3}, broken)[0])


def test_asked_to_end_trainings_save_themselves_at_once(data, tmp_path):
    checkpoint, begun, going = Checkpoint(tmp_path, "key", seconds=1e9), threading.Event(), threading.Event()
    steps = []

    def after():
        steps.append(1)
        if len(steps) == 20:
            begun.set()
            assert going.wait(60)

    thread = threading.Thread(target=lambda: trained(data, checkpoint=checkpoint, after_step=after))
    thread.start()
    assert begun.wait(60)
    assert read(checkpoint) is None
    try:
        threading.Timer(0.1, going.set).start()
        assert SAVING.all_done(30)
        assert read(checkpoint)[1] >= 20
    finally:
        SAVING.asked = False
        thread.join()
    resumed, _, _ = trained(data, checkpoint=checkpoint)
    assert same(resumed, trained(data)[0])


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_checkpoint_is_none(data, tmp_path, damage):
    """Wherever the damage lies: in the header, in its words, in a weight."""
    checkpoint = Checkpoint(tmp_path, "key", seconds=0)
    with pytest.raises(InputError):
        trained(data, failing(set(range(30, 99)), out_of_memory)[0], checkpoint=checkpoint)
    path = tmp_path / "checkpoint.safetensors"
    whole = path.read_bytes()
    assert read(checkpoint) is not None
    for place in [0, 9, 20, *random.Random(0).sample(range(len(whole)), 60)]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes({"flip": bytes(flipped), "cut": whole[:place], "empty": b""}[damage])
        assert read(checkpoint) is None, place
    path.write_bytes(whole)
    assert read(checkpoint) is not None
