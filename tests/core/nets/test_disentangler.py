"""The disentangler's number of ReLU layers, its shapes, and warm starts."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from featcx_core.data.images import Augmented
from featcx_core.nets.disentangler import Disentangler, strides_for
from featcx_core.nets.unit import Unit
from featcx_core.specs import ScheduleSpec
from featcx_core.training.teaching import train_disentangler


def randomised(net, seed=0):
    """Weights and running statistics as training might leave them: nothing is at its initial value."""
    rng = torch.Generator().manual_seed(seed)
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            value.copy_(
                torch.rand(value.shape, generator=rng) + 0.5
                if "var" in name
                else torch.randn(value.shape, generator=rng) / 8
            )
    return net.eval()


@pytest.mark.parametrize("blocks", [1, 2, 3, 8])
@pytest.mark.parametrize("image", [32, 224])
def test_as_many_relus_as_its_order(blocks, image, monkeypatch):
    """Counted as they are called, whatever they are written as; and nothing else in the net is nonlinear."""
    calls = []
    plain = F.relu
    monkeypatch.setattr(F, "relu", lambda x, inplace=False: calls.append(x.shape) or plain(x))
    with torch.device("meta"):
        net = Disentangler(blocks, (3, image, image), (16, 8, 8) if image == 32 else (16, 7, 7), width=4).eval()
    net(torch.empty(2, 3, image, image, device="meta"))
    assert len(calls) == net.order == 3 * blocks + 1
    kinds = {type(module) for module in net.modules() if not list(module.children())}
    assert kinds <= {nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AdaptiveAvgPool2d, Unit}


def test_without_its_relus_the_net_is_affine(monkeypatch):
    net = randomised(Disentangler(2, (3, 16, 16), (5, 4, 4), width=4)).double()
    a, b = torch.randn(2, 3, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(net(a) + net(b), net(a + b) + net(0 * a))
    monkeypatch.setattr(F, "relu", lambda x, inplace=False: x)
    torch.testing.assert_close(net(a) + net(b), net(a + b) + net(0 * a))


@pytest.mark.parametrize(
    ("image", "feature"),
    [
        ((1, 8, 8), (64, 2, 2)),
        ((1, 28, 28), (64, 7, 7)),
        ((3, 32, 32), (64, 8, 8)),
        ((3, 33, 33), (64, 9, 9)),
        ((3, 31, 31), (64, 8, 8)),
        ((3, 30, 30), (10, 5, 5)),
        ((3, 40, 40), (10, 13, 13)),
        ((3, 32, 24), (10, 8, 6)),
        ((3, 32, 48), (10, 8, 10)),
        ((3, 32, 32), (10, 32, 32)),
        ((3, 32, 32), (10, 1, 1)),
        ((3, 64, 64), (10, 2, 2)),
        ((3, 224, 224), (512, 7, 7)),
        ((3, 224, 224), (512, 14, 14)),
        ((3, 227, 227), (256, 13, 13)),
        ((3, 8, 8), (4, 11, 11)),
    ],
)
def test_the_output_has_the_features_shape(image, feature):
    with torch.device("meta"):
        net = Disentangler(2, image, feature, width=4).eval()
        assert net(torch.empty(3, *image)).shape == (3, *feature)


@pytest.mark.parametrize(("image", "feature"), [(8, 2), (28, 7), (32, 8)])
def test_cifar_nets_have_a_plain_stem_and_two_strides(image, feature):
    assert strides_for(image, feature) == (False, (1, 2, 2))
    net = Disentangler(1, (3, image, image), (64, feature, feature))
    assert len(net.stem) == 3
    assert net.stem[0].kernel_size == (3, 3)
    assert net.stem[0].stride == (1, 1)
    assert [stage[0].conv.stride for stage in net.stages] == [(1, 1), (2, 2), (2, 2)]
    assert net.stages[2](torch.zeros(1, 256, feature * 2, feature * 2)).shape[-1] == feature  # nothing is left to pool


def test_published_widths_and_depth():
    net = Disentangler(32, (3, 32, 32), (64, 8, 8), width=1)
    assert net.order == 97
    with torch.device("meta"):
        net = Disentangler(4, (3, 32, 32), (64, 8, 8))
    assert [[block.conv.out_channels for block in stage] for stage in net.stages] == [[128] * 4, [256] * 4, [512] * 4]
    assert net.readout.kernel_size == (1, 1)
    assert net.stem[0].out_channels == 128


def test_published_stem_for_large_images():
    with torch.device("meta"):
        net = Disentangler(1, (3, 224, 224), (512, 7, 7))
        first, norm, relu, pool = net.stem
        assert (first.kernel_size, first.stride, first.out_channels) == ((7, 7), (2, 2), 128)
        assert isinstance(norm, nn.BatchNorm2d)
        assert isinstance(relu, nn.ReLU)
        assert isinstance(pool, nn.MaxPool2d)
        assert pool.stride == 2
        assert [stage[0].conv.stride for stage in net.stages] == [(2, 2)] * 3
        x = net.stem(torch.empty(1, 3, 224, 224))
        assert x.shape == (1, 128, 56, 56)
        for stage in net.stages:
            x = stage(x)
    assert x.shape == (1, 512, 7, 7)


def test_a_block_is_relu_of_norm_of_conv_plus_the_shortcut():
    net = randomised(Disentangler(1, (3, 16, 16), (5, 4, 4), width=4))
    block = net.stages[1][0]
    x = torch.randn(2, 4, 16, 16)
    shortcut = torch.zeros(2, 8, 8, 8)
    shortcut[:, 2:6] = x[:, :, ::2, ::2]
    torch.testing.assert_close(block(x), (block.norm(block.conv(x)) + shortcut).clamp_min(0))


@pytest.mark.parametrize("identity", [True, False])
def test_warm_start_copies_the_stem_the_readout_and_the_first_blocks(identity):
    small = randomised(Disentangler(2, (3, 16, 16), (5, 4, 4), width=4))
    large = Disentangler(5, (3, 16, 16), (5, 4, 4), width=4)
    before = {name: value.clone() for name, value in large.state_dict().items()}
    large.warm_start(small, identity=identity)
    theirs = small.state_dict()
    for name, value in large.state_dict().items():
        if name in theirs:
            assert torch.equal(value, theirs[name]), name
        elif identity and name.endswith("norm.weight"):
            assert (value == 0).all(), name
        else:
            assert torch.equal(value, before[name]), name
    added = [n for n in before if n not in theirs and n.endswith("conv.weight")]
    assert len(added) == 9
    assert all(before[name].std() > 0 for name in added)


@pytest.mark.parametrize(
    ("image", "feature"), [((1, 8, 8), (6, 2, 2)), ((3, 64, 64), (6, 2, 2)), ((3, 16, 16), (6, 5, 5))]
)
def test_identity_start_computes_what_the_shallower_net_does(image, feature):
    small = randomised(Disentangler(1, image, feature, width=4))
    large = Disentangler(4, image, feature, width=4).eval()
    large.warm_start(small, identity=True)
    x = torch.randn(3, *image, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(large(x), small(x))
        random = Disentangler(4, image, feature, width=4).eval()
        random.warm_start(small, identity=False)
        assert not torch.allclose(random(x), small(x))


def test_added_blocks_learn_from_an_identity_start(digits):
    """The scale of zero does not hold them: its gradient is not zero."""
    net = Disentangler(2, digits.shape, (6, 2, 2), width=4)
    net.warm_start(randomised(Disentangler(1, digits.shape, (6, 2, 2), width=4)), identity=True)
    teacher = nn.Sequential(nn.Conv2d(1, 6, 4, 4)).eval()
    schedule = ScheduleSpec(draws=96, batch=32)
    result = train_disentangler(net, teacher, Augmented(digits, digits.pool), schedule)
    assert (net.stages[0][1].norm.weight != 0).all()
    assert result.drawn[-1] == 96


def test_it_learns_to_reproduce_a_feature(digits):
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Conv2d(1, 6, 4, 4), nn.ReLU()).eval()
    net = Disentangler(1, digits.shape, (6, 2, 2), width=8)
    schedule = ScheduleSpec(draws=10_000, batch=64, lr=3e-3, lr_end=3e-5)
    result = train_disentangler(net, teacher, Augmented(digits, digits.pool), schedule)
    images, _ = Augmented(digits, digits.validation).batch(torch.arange(100), torch.Generator().manual_seed(0))
    with torch.no_grad():
        missed = (net(images) - teacher(images)).pow(2).mean() / teacher(images).var(0).mean()
    assert missed < 0.5  # 0.36 when written
    assert result.loss[-1] < 0.2 * result.loss[0]
    assert not net.training


def test_config_builds_another_of_its_shape():
    net = Disentangler(3, (3, 16, 16), (5, 4, 4), width=4)
    other = Disentangler(**net.config)
    assert {n: v.shape for n, v in net.state_dict().items()} == {n: v.shape for n, v in other.state_dict().items()}


def test_no_blocks_will_not_do():
    with pytest.raises(ValueError, match="1 or more"):
        Disentangler(0, (3, 16, 16), (5, 4, 4))
