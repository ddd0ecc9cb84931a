"""Any net cut at any layer: head∘feature is the net, whatever the feature's shape and however the net is written."""

import pytest
import torch
from torch import nn

from featcx_core.errors import InputError
from featcx_core.nets.calls import default_layer, example, stages
from featcx_core.nets.disentangler import Disentangler
from featcx_core.nets.split import split_net
from featcx_core.nets.targets import build_net

SHAPE = (3, 16, 16)


class Tokens(nn.Module):
    """A class token and 4×4 patches of width 12 through two layers; the head reads the class token."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 12, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 12))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(12, 2, 24, batch_first=True, dropout=0.1) for _ in range(2)
        )
        self.norm, self.fc = nn.LayerNorm(12), nn.Linear(12, 5)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return self.fc(self.norm(x)[:, 0])


class ChannelsLast(nn.Module):
    """Maps as rows × columns × channels, 4×4×4: only what the layers declare tells channels from rows."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 4, 4), nn.LayerNorm(4)
        self.mix, self.fc = nn.Linear(4, 4), nn.Linear(4, 5)

    def forward(self, x):
        x = self.norm(self.stem(x).permute(0, 2, 3, 1))
        return self.fc(self.mix(x).relu().mean((1, 2)))


class Branching(nn.Module):
    """Control flow on values, which no graph shows; its answer is a dict with logits."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 3, 2), nn.Linear(6, 5)

    def forward(self, x):
        x = self.first(x)
        x = x.relu() if float(x.detach().abs().sum()) >= 0 else x
        return {"logits": self.last(x.mean((2, 3))), "other": None}


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.act, self.fc = (
            nn.Conv2d(3, 6, 3, 2),
            nn.Conv2d(6, 6, 3),
            nn.ReLU(inplace=True),
            nn.Linear(6, 5),
        )

    def forward(self, x):
        return self.fc(self.act(self.b(self.act(self.a(x)))).mean((2, 3)))


def images(n=4):
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(3))


def logits(out):
    return out["logits"] if isinstance(out, dict) else out


@pytest.mark.parametrize(
    ("make", "layer", "shape", "layout"),
    [
        (Tokens, "blocks.1", (12, 17, 1), "td"),
        (Tokens, "norm", (12, 17, 1), "td"),
        (Tokens, "embed", (12, 4, 4), "chw"),
        (ChannelsLast, "norm", (4, 4, 4), "hwc"),
        (ChannelsLast, "mix", (4, 4, 4), "hwc"),
        (ChannelsLast, "stem", (4, 4, 4), "chw"),
        (Branching, "first", (6, 7, 7), "chw"),
        (Reused, "act#1", (6, 7, 7), "chw"),
        (Reused, "act#2", (6, 5, 5), "chw"),
    ],
)
def test_the_halves_are_the_whole_and_the_owner_s_net_is_as_it_was(make, layer, shape, layout):
    torch.manual_seed(0)
    net, x = make().train(), images()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    split = split_net(net, layer, False, SHAPE)
    assert (split.shape, split.layout) == (shape, layout)
    assert split.error < 1e-5
    with torch.no_grad():
        f = split.feature(x)
        assert f.shape == (4, *shape)
        whole = logits(make_eval(net)(x))
        torch.testing.assert_close(split.head(f), whole, rtol=1e-4, atol=1e-5)
        mixed = split.head(f.flip(0))  # the head reads the feature alone
        torch.testing.assert_close(mixed, whole.flip(0), rtol=1e-4, atol=1e-5)
    net.train()
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(m.training for m in net.modules())
    assert all(m.inplace for m in net.modules() if isinstance(m, nn.ReLU) and make is Reused)


def make_eval(net):
    return net.eval()


def test_tokens_that_the_layer_gives_are_kept_one_by_one():
    torch.manual_seed(0)
    net, x = Tokens().eval(), images()
    kept = []
    handle = net.blocks[1].register_forward_hook(lambda m, i, o: kept.append(o))
    with torch.no_grad():
        net(x)
        handle.remove()
        f = split_net(net, "blocks.1", False, SHAPE).feature(x)
    torch.testing.assert_close(f[:, :, :, 0].transpose(1, 2), kept[0])


def test_a_layer_that_is_called_twice_must_be_named_with_its_call():
    with pytest.raises(InputError, match=r"act#1.*act#2"):
        split_net(Reused(), "act", False, SHAPE)


def test_a_layout_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"target\.layout = 'td' does not fit layer 'norm', which gives 4×4×4"):
        split_net(ChannelsLast(), "norm", False, SHAPE, "td")
    asked = split_net(ChannelsLast(), "norm", False, SHAPE, "chw")
    assert asked.layout == "chw"


def test_a_wrong_layer_lists_the_layers_with_their_shapes():
    with pytest.raises(InputError, match=r"no layer 'block\.1'"):
        split_net(Tokens(), "block.1", False, SHAPE)


@pytest.mark.parametrize(("shape", "grid"), [((12, 17, 1), (4, 4)), ((12, 16, 1), (4, 4)), ((10, 1, 1), None)])
def test_a_disentangler_gives_tokens_and_vectors(shape, grid):
    net = Disentangler(1, SHAPE, shape, width=4, grid=grid) if grid else Disentangler(1, SHAPE, shape, width=4)
    assert net(images()).shape == (4, *shape)


@pytest.mark.parametrize(
    ("net", "found"),
    [
        ("resnet20", ["stem", "stages.0", "stages.1", "stages.2"]),
        ("torchvision:resnet18", ["layer1", "layer2", "layer3", "layer4"]),
        ("torchvision:vgg11", [f"features.{i}" for i in (1, 4, 9, 14, 19)]),  # the last ReLU before each pooling
        ("timm:regnety_002", ["stem", "s1", "s2", "s3", "s4"]),
    ],
)
def test_the_stages_of_a_net_are_those_of_its_paper(net, found):
    model = build_net(net, 3, 10, {}).eval()
    assert stages(model, example(model, (3, 64, 64))) == found


def test_the_blocks_of_a_row_are_its_stages_and_each_can_be_cut():
    net = Tokens().eval()
    found = stages(net, example(net, SHAPE))
    assert found == ["blocks.0", "blocks.1"]
    for layer in found:
        assert split_net(net, layer, False, SHAPE).shape == (12, 17, 1)


class HeadInParts(nn.Module):
    """The parts of the head are called one by one, never the head; blocks stand in a list that is no module's call."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(6, 6, 3), nn.ReLU()) for _ in range(2))
        self.head = nn.ModuleDict({"pool": nn.AdaptiveAvgPool2d(1), "fc": nn.Linear(6, 5)})

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head["fc"](self.head["pool"](x).flatten(1))


class DropAfterPooling(HeadInParts):
    """What is pooled goes on as maps of one place, through a dropout."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        x = self.blocks[1](self.blocks[0](self.stem(x)))
        return self.head["fc"](self.drop(self.head["pool"](x)).flatten(1))


class Pair(nn.Module):
    """Patches and a class token go through the layer together and leave it apart."""

    def __init__(self):
        super().__init__()
        self.layers = nn.TransformerEncoderLayer(12, 2, 24, batch_first=True)

    def forward(self, pair):
        patches, token = pair
        x = self.layers(torch.cat([token, patches], 1))
        return x[:, 1:], x[:, :1]


class TokenAlone(Tokens):
    """What `forward_features` gives is one token, without places; the layer before it gives two tensors."""

    def __init__(self):
        super().__init__()
        self.blocks = Pair()

    def forward_features(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        return self.norm(self.blocks((x, self.token.expand(len(x), -1, -1)))[1])

    def forward(self, x):
        return self.fc(self.forward_features(x)[:, 0])


class Scales(nn.Module):
    """Two maps of different size, of which a token each is joined: no map has all that the head needs."""

    def __init__(self):
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 12, 3, 2), nn.Conv2d(12, 12, 3, 2)
        self.join, self.fc = nn.Conv1d(2, 1, 1), nn.Linear(12, 5)

    def forward_features(self, x):
        x = self.fine(x)
        return [x, self.coarse(x.relu())]

    def forward(self, x):
        joined = self.join(torch.stack([part.mean((2, 3)) for part in self.forward_features(x)], 1))
        return self.fc(joined.squeeze(1))


class HeadTwice(Tokens):
    """Two layers of the head read the features, through an identity."""

    def __init__(self):
        super().__init__()
        self.drop, self.second = nn.Dropout(0.1), nn.Linear(12, 5)

    def forward_features(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        return self.norm(self.blocks[1](self.blocks[0](x)))

    def forward(self, x):
        x = self.forward_features(x)
        return self.fc(self.drop(x.mean(1))) + self.second(self.drop(x)).amax(1)


@pytest.mark.parametrize(
    ("make", "layer", "shape", "layout"),
    [
        (HeadInParts, "blocks.1", (6, 3, 3), "chw"),
        (DropAfterPooling, "blocks.1", (6, 3, 3), "chw"),
        (Tokens, "norm", (12, 17, 1), "td"),
        (TokenAlone, "blocks.layers", (12, 17, 1), "td"),
        (Scales, "join", (12, 1, 1), "td"),
        (HeadTwice, "norm", (12, 16, 1), "td"),
        (lambda: nn.Sequential(HeadInParts()), "0.blocks.1", (6, 3, 3), "chw"),
    ],
)
def test_what_stands_before_the_head(make, layer, shape, layout):
    torch.manual_seed(0)
    split = split_net(make(), None, False, SHAPE)
    assert (split.layer, split.shape, split.layout) == (layer, shape, layout)


@pytest.mark.parametrize(
    ("name", "layer", "options"),
    [
        ("poolformer_s12", "stages", {}),
        ("pit_ti_224", "transformers.2.blocks", {"img_size": 64}),
        ("coat_tiny", "head_drop", {"img_size": 64}),
        ("volo_d1_224", "norm", {"img_size": 64}),
        ("vit_tiny_patch16_224", "norm", {"img_size": 64}),
        ("convnext_atto", "stages", {}),
    ],
)
def test_what_stands_before_the_head_of_timm_s_nets(name, layer, options):
    net = build_net(f"timm:{name}", 3, 5, options).eval()
    assert default_layer(net, example(net, (3, 64, 64))) == layer
