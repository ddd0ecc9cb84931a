"""Counts against hand formulas and PyTorch's own FLOP counter."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from featcx_core.nets.targets import BUILTIN, TargetNet
from featcx_core.training.muon import Muon
from flows.planning import cost
from flows.planning.cost import Net, Step, count_step, feature_shape, parameters, step_memory, tally

IMAGE = (3, 32, 32)
TARGET = Net.of("target", net="resnet8", in_shape=IMAGE, classes=10)


def disentangler(blocks: int, width: int = 8) -> Net:
    return Net.of("disentangler", blocks=blocks, in_shape=IMAGE, out_shape=(64, 8, 8), width=width)


def test_a_convolution_and_a_linear_layer_by_hand() -> None:
    n, c, d, h, w = 5, 3, 7, 8, 6
    conv, linear = nn.Conv2d(c, d, 3, padding=1, device="meta"), nn.Linear(11, 13, device="meta")
    images, rows = torch.empty(n, c, h, w, device="meta"), torch.empty(n, 11, device="meta")
    assert tally(lambda: conv(images), n).flops == 2 * n * d * h * w * c * 9
    assert tally(lambda: linear(rows), n).flops == 2 * n * 11 * 13


def test_the_backward_pass_takes_two_products_but_for_images_that_need_no_gradient() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1)).to("meta")
    images = torch.empty(2, 3, 8, 8, device="meta")
    first, second = (2.0 * 2 * 64 * a * b for a, b in ((3, 4), (4, 5)))
    assert tally(lambda: net(images).sum().backward(), 2).flops == 2 * first + 3 * second


def test_what_is_saved_for_the_backward_pass_by_hand() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 5, 1, bias=False)).to("meta")
    images = torch.empty(2, 3, 8, 8, device="meta")
    counted = tally(lambda: net(images).sum().backward(), 2)
    assert counted.saved == 4 * 2 * 64 * (3 + 4)  # the input of the first, and the ReLU's output once for two uses
    assert counted.largest == 4 * 2 * 64 * 5


@pytest.mark.parametrize("net", [disentangler(1), disentangler(5), TARGET], ids=["m1", "m5", "resnet8"])
def test_a_training_step_against_the_counter_of_pytorch(net: Net) -> None:
    batch = 16
    with torch.device("meta"):
        module = net.build().train()
    images = torch.empty(batch, *IMAGE, device="meta")
    with FlopCounterMode(display=False) as counter:
        module(images).sum().backward()
    counted = count_step(Step(net, (), IMAGE, batch, "adam"))
    assert counted.flops == counter.get_total_flops()
    assert parameters(net) == sum(p.numel() for p in module.parameters())


def test_teachers_add_their_forward_pass_and_depth_adds_evenly() -> None:
    alone, taught = (Step(disentangler(1), teachers, IMAGE, 16, "adam") for teachers in ((), (TARGET.part("feature"),)))
    forward = count_step(Step(TARGET.part("feature"), (), IMAGE, 16))
    assert count_step(taught).flops - count_step(alone).flops == forward.flops
    whole = count_step(Step(TARGET, (), IMAGE, 16))
    assert forward.flops + count_step(Step(TARGET.part("head"), (), (64, 8, 8), 16)).flops == whole.flops
    direct = cost._passes_of(disentangler(4), IMAGE)
    extrapolated = count_step(Step(disentangler(4), (), IMAGE, cost.FEW, "adam"))
    assert extrapolated.flops == direct.flops
    assert extrapolated.saved == pytest.approx(direct.saved, rel=1e-3)
    assert extrapolated.kernels == pytest.approx(direct.kernels + cost.BESIDE + 3)


def test_muon_against_the_counter_of_pytorch() -> None:
    net = disentangler(2)
    module = net.build()
    for p in module.parameters():
        p.grad = torch.zeros_like(p)
    with FlopCounterMode(display=False) as counter:
        Muon(module.parameters(), lr=1e-3).step()
    adam, muon = (count_step(Step(net, (), IMAGE, 16, optimiser)) for optimiser in ("adam", "muon"))  # type: ignore[arg-type]
    assert muon.flops - adam.flops == counter.get_total_flops()


@pytest.mark.parametrize("net", sorted(set(BUILTIN) - {"vgg16_bn", "resnet34"}))
def test_the_feature_shape_is_that_of_the_real_net(net: str) -> None:
    image = (3, 64, 64) if net == "resnet18" else IMAGE
    assert feature_shape(Net.of("target", net=net, in_shape=image, classes=10)) == TargetNet(net, image, 10).shape


def test_memory_grows_with_batch_depth_and_optimiser_state() -> None:
    step = Step(disentangler(1, 64), (), IMAGE, 64, "adam")
    weights = 4 * parameters(step.net)
    assert step_memory(step) > 4 * weights
    more = step_memory(step._replace(batch=128)) - 4 * weights
    assert more == pytest.approx(2 * (step_memory(step) - 4 * weights), rel=0.01)
    assert step_memory(step._replace(precision="bf16")) < step_memory(step)
    assert step_memory(step._replace(net=disentangler(2, 64))) > step_memory(step)
    assert step_memory(step._replace(optimiser=None)) < step_memory(step) / 2


def pooled_convolutions(classes: int) -> nn.Module:
    """A net whose head has no weights: a convolution to the classes, averaged over places."""
    return nn.Sequential(nn.Conv2d(3, classes, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_a_head_without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATCX_ALLOW_IMPORTS", __name__)
    net = Net.of("target", net=f"{__name__}:pooled_convolutions", in_shape=IMAGE, classes=10, layer="1")
    head = Step(net.part("head"), (), feature_shape(net), 16)
    counted = count_step(head)
    assert (parameters(head.net), counted.flops, counted.largest) == (
        0,
        0,
        4 * 16 * 10 * 32 * 32,
    )  # the feature that it is given
    assert step_memory(head) > 0
