"""BatchNorm, shortcut and ReLU in one kernel, against PyTorch's own operations in float64."""

import shutil

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from featcx_core.nets import normed
from featcx_core.nets.disentangler import Disentangler
from featcx_core.nets.normed import norm_add_relu

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2.0**-8}


@pytest.fixture
def counted(monkeypatch):
    """How often the kernel was used."""
    uses, apply = [], normed._NormAddRelu.apply
    monkeypatch.setattr(normed._NormAddRelu, "apply", lambda *args: uses.append(1) or apply(*args))
    return uses


def maps(shape, seed, dtype=torch.float32, scale=1.0, shift=0.0):
    values = scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + shift
    return values.to(dtype).contiguous(memory_format=torch.channels_last)


def fresh(channels):
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        rng = torch.Generator().manual_seed(7)
        norm.weight.normal_(generator=rng)
        norm.bias.normal_(generator=rng)
    return norm


def everything(function, norm, x, shortcut, grad):
    """Output, gradients and running statistics, in float64."""
    x = x.clone().requires_grad_()
    shortcut = None if shortcut is None else shortcut.clone().requires_grad_()
    y = function(norm, x, shortcut)
    y.backward(grad)
    found = [y, x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]
    found += [] if shortcut is None else [shortcut.grad]
    return [value.detach().double() for value in found]


def plain(norm, x, shortcut):
    y = norm(x)
    return F.relu(y if shortcut is None else y + shortcut)


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@given(channels=st.sampled_from([8, 16, 24, 48]), n=st.integers(1, 9), h=st.integers(1, 11), seed=st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_values_gradients_and_statistics(dtype, beside, channels, n, h, seed):
    if n * h == 1:
        return  # BatchNorm takes no single value
    shape = (n, channels, h, h + 3)
    x, grad = maps(shape, seed, dtype, scale=3, shift=20), maps(shape, seed + 1, dtype)
    shortcut = maps(shape, seed + 2, dtype) if beside else None
    found = everything(norm_add_relu, fresh(channels), x, shortcut, grad)
    # Where the sum is within rounding of zero the float64 gradient may be on the other side of the ReLU.
    double = [None if t is None else t.double() for t in (x, shortcut, grad)]
    wanted = everything(plain, fresh(channels).double(), *double)
    near = wanted[0].abs() < 1e-5
    for got, want in zip(found, wanted, strict=True):
        if got.shape == near.shape:
            got, want = (torch.where(near, 0.0, t) for t in (got, want))
        assert float((got - want).norm()) <= ROUNDING[dtype] * float(want.norm()) + 1e-5


def test_threads_do_not_change_the_digits():
    x, grad, shortcut = (maps((20, 16, 13, 13), seed, torch.bfloat16) for seed in range(3))
    one = everything(norm_add_relu, fresh(16), x, shortcut, grad)
    torch.set_num_threads(2)
    two = everything(norm_add_relu, fresh(16), x, shortcut, grad)
    assert all(map(torch.equal, one, two))


def test_a_nan_stays_one():
    x = maps((4, 8, 3, 3), 0)
    x[1, 2, 0, 0] = float("nan")
    for dtype in (torch.float32, torch.bfloat16):
        y = norm_add_relu(fresh(8), x.to(dtype))
        assert y[:, 2].isnan().all()
        assert not y[:, [0, 1, 3, 4, 5, 6, 7]].isnan().any()


def test_large_means_do_not_cancel():
    """A variance of 1 about a mean of 1,000: E x² − (E x)² in float32 would keep two digits of it."""
    x = maps((16, 8, 8, 8), 0, shift=1000)
    norm = nn.BatchNorm2d(8, momentum=1.0)
    norm_add_relu(norm, x)
    torch.testing.assert_close(norm.running_var, x.double().var((0, 2, 3)).float(), rtol=1e-4, atol=0)


def test_what_does_not_suit_the_kernel_is_left_to_pytorch(counted):
    x = maps((4, 16, 5, 5), 0)
    cases = {
        "evaluation": (nn.BatchNorm2d(16).eval(), x),
        "no weights": (nn.BatchNorm2d(16, affine=False), x),
        "channels": (nn.BatchNorm2d(12), maps((4, 12, 5, 5), 0)),
        "layout": (nn.BatchNorm2d(16), x.contiguous()),
        "type": (nn.BatchNorm2d(16).double(), x.double()),
        "average of all": (nn.BatchNorm2d(16, momentum=None), x),
    }
    for norm, maps_ in cases.values():
        assert torch.equal(norm_add_relu(norm, maps_), F.relu(norm(maps_)))
    assert not counted
    norm_add_relu(nn.BatchNorm2d(16), x)
    assert len(counted) == 1


def test_without_a_compiler_it_is_pytorch(monkeypatch, counted):
    monkeypatch.setattr(normed, "kernel", lambda name: None)
    x, shortcut = maps((4, 16, 5, 5), 0), maps((4, 16, 5, 5), 1)
    assert torch.equal(norm_add_relu(nn.BatchNorm2d(16), x, shortcut), F.relu(nn.BatchNorm2d(16)(x) + shortcut))
    assert not counted


def test_every_relu_of_a_disentangler_goes_through_it(counted, monkeypatch):
    net = Disentangler(2, (3, 16, 16), (10, 4, 4), width=8).train().to(memory_format=torch.channels_last)
    images = maps((6, 3, 16, 16), 0)
    found = net(images)
    found.square().mean().backward()
    assert len(counted) == net.order
    own = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    monkeypatch.setattr(normed, "kernel", lambda name: None)
    torch.testing.assert_close(net(images), found, rtol=1e-4, atol=1e-5)
    found = net(images)
    found.square().mean().backward()
    for parameter, grad in zip(net.parameters(), own, strict=True):
        torch.testing.assert_close(parameter.grad, grad, rtol=1e-3, atol=1e-5)
