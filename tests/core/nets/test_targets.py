"""Target nets: published sizes, and the two halves of any net make the whole."""

import importlib
import sys
import textwrap
import threading

import pytest
import torch
import torch.nn.functional as F

from featcx_core.data.images import Augmented, balanced_subset
from featcx_core.errors import InputError
from featcx_core.nets.kinds import load_network
from featcx_core.nets.targets import BUILTIN, TargetNet, build_net, check_net
from featcx_core.nets.weights import load_weights, save_network
from featcx_core.seeds import seeded
from featcx_core.specs import ScheduleSpec
from featcx_core.training.teaching import score_target, train_target

CPU = torch.device("cpu")


def randomised(net, seed=0):
    """Weights and running statistics as training might leave them."""
    rng = torch.Generator().manual_seed(seed)
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            value.uniform_(-0.1, 0.1, generator=rng)
            if "var" in name or ("weight" in name and value.ndim == 1):
                value += 1
    return net.eval()


def assert_halves_make_the_whole(net, x):
    with torch.no_grad():
        feature = net.feature(x)
        kept = feature.clone()
        logits, again = net.head(feature), net.head(feature)
    assert feature.shape[1:] == net.shape
    assert torch.equal(feature, kept), "the head overwrites the feature"
    assert torch.equal(logits, again)
    with torch.no_grad():
        torch.testing.assert_close(logits, net(x))
    assert logits.shape == (len(x), net.classes)


@pytest.mark.parametrize(("net", "parameters"), [("resnet20", 269_722), ("resnet32", 464_154), ("resnet44", 658_586)])
def test_published_parameter_counts(net, parameters):
    """0.27, 0.46 and 0.66 million (He et al. 2016, table 6); exact for option A, which has no weights in shortcuts."""
    with torch.device("meta"):
        assert sum(p.numel() for p in build_net(net, 3, 10).parameters()) == parameters


@pytest.mark.parametrize("depth", [8, 14, 20, 32, 44])
def test_cifar_nets_have_the_depth_of_their_name(depth):
    with torch.device("meta"):
        net = build_net(f"resnet{depth}", 3, 10)
    weighted = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(weighted) == depth


@pytest.mark.parametrize("name", ["resnet8", "resnet14", "resnet20", "resnet32", "resnet44"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_cifar_nets_split_before_their_last_relu(name, shape):
    net = randomised(TargetNet(name, shape, 10))
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    assert net.shape == (64, shape[1] // 4, shape[2] // 4)
    assert_halves_make_the_whole(net, x)
    with torch.no_grad():
        feature = net.feature(x)
        assert (feature < 0).any()  # before the ReLU
        assert torch.equal(F.relu(feature), net.model.stages(net.model.stem(x)))
        torch.testing.assert_close(net.head(feature), net.model.head(F.relu(feature)))


@pytest.mark.parametrize(
    ("name", "shape"), [("resnet18", (512, 2, 2)), ("resnet34", (512, 2, 2)), ("vgg16_bn", (512, 2, 2))]
)
def test_torchvision_nets_split_before_their_last_relu(name, shape):
    with torch.device("meta"):
        net = TargetNet(name, (3, 64, 64), 7)
    net = randomised(net.to_empty(device="cpu"))
    assert net.shape == shape
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert_halves_make_the_whole(net, x)
    with torch.no_grad():
        assert (net.feature(x) < 0).any()


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "vgg16_bn"])
def test_published_feature_of_large_images(name):
    with torch.device("meta"):
        net = TargetNet(name, (3, 224, 224), 200).eval()
        assert net.shape == (512, 7, 7)
        assert net(torch.empty(1, 3, 224, 224)).shape == (1, 200)
    first = next(m for m in net.modules() if isinstance(m, torch.nn.Conv2d))
    assert first.stride == (2, 2)


def test_torchvision_nets_take_colour():
    with torch.device("meta"), pytest.raises(InputError, match="takes colour images; choose a CIFAR ResNet"):
        TargetNet("resnet18", (1, 224, 224), 10)


def test_the_halves_share_the_nets_weights(digits):
    net = randomised(TargetNet("resnet8", digits.shape, 10))
    x = digits.normalise(digits.test_images[:4])
    with torch.no_grad():
        before = net.feature(x)
        net.load_state_dict(randomised(TargetNet("resnet8", digits.shape, 10), seed=1).state_dict())
        assert not torch.allclose(net.feature(x), before)
    assert_halves_make_the_whole(net, x)
    assert not any(name.startswith("_halves") for name in net.state_dict())
    assert_halves_make_the_whole(net.double(), x.double())


CUSTOM = """
import torch
import torch.nn.functional as F
from torch import nn

class Plain(nn.Module):
    def __init__(self, classes, width=6, forward="relu"):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.activation = nn.ReLU(inplace=True)
        self.unused = nn.ReLU()
        self.scale = nn.Parameter(torch.full((width, 1, 1), 1.5))
        self.last = nn.Linear(width, classes)
        self.kind = forward

    def after(self, x):
        if self.kind == "relu":
            return F.relu(x)
        if self.kind == "module":
            return self.activation(x)
        if self.kind == "inplace":
            return F.relu(x, inplace=True)
        if self.kind == "positional":
            return F.relu(x, True)
        if self.kind == "underscore":
            return F.relu_(x)
        if self.kind == "torch":
            return torch.relu_(x)
        if self.kind == "method":
            return x.relu_()
        if self.kind == "arithmetic":
            x += 1
            return x.mul_(2)
        x.relu_()
        return x

    def forward(self, x):
        x = self.second(self.first(x))
        return self.last((self.after(x) * self.scale).mean((2, 3)))

class Bypass(Plain):
    def forward(self, x):
        a = self.first(x)
        return self.last((self.second(a) + a).mean((2, 3)))

class FromInput(Plain):
    def forward(self, x):
        return self.last(self.second(self.first(x)).mean((2, 3)) + x.mean())

class Dropped(Plain):
    def forward(self, x):
        x = F.dropout(F.relu(self.second(self.first(x))), 0.5, self.training)
        return self.last(x.mean((2, 3)))

class Branching(Plain):
    def forward(self, x):
        return self.last(self.first(x).mean((2, 3))) if x.sum() > 0 else self.last(x.mean((2, 3)))

def plain(classes, **options):
    return Plain(classes, **options)
"""


@pytest.fixture
def mynets(tmp_path, monkeypatch):
    """A user's own module of nets, allowed to be imported."""
    (tmp_path / "featcx_test_nets.py").write_text(textwrap.dedent(CUSTOM))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("FEATCX_ALLOW_IMPORTS", "other.module, featcx_test_nets")
    importlib.invalidate_caches()
    yield "featcx_test_nets"
    sys.modules.pop("featcx_test_nets", None)


def custom_net(module, name="plain", layer="second", pre_relu=None, **options):
    return randomised(TargetNet(f"{module}:{name}", (3, 8, 8), 5, layer, pre_relu, options))


IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layer", ["first", "first.0", "first.1", "second", "activation"])
def test_a_custom_net_splits_at_a_named_layer(mynets, layer):
    net = custom_net(mynets, layer=layer, forward="module")
    seen = []
    module = net.model.get_submodule(layer)
    hook = module.register_forward_hook(lambda module, given, result: seen.append(result.clone()))
    with torch.no_grad():
        net(IMAGES)
        hook.remove()
        torch.testing.assert_close(net.feature(IMAGES), seen[0])  # that module's output
    assert_halves_make_the_whole(net, IMAGES)


def test_options_reach_a_custom_net(mynets):
    assert custom_net(mynets, width=9).shape == (9, 8, 8)


def test_pre_relu_takes_the_input_of_the_final_relu(mynets):
    net = custom_net(mynets, layer="first", pre_relu=True)
    with torch.no_grad():
        torch.testing.assert_close(net.feature(IMAGES), net.model.first[1](net.model.first[0](IMAGES)))
    assert_halves_make_the_whole(net, IMAGES)


@pytest.mark.parametrize(
    "forward",
    ["relu", "module", "inplace", "positional", "underscore", "torch", "method", "arithmetic", "statement"],
)
def test_in_place_calls_do_not_overwrite_the_feature(mynets, forward):
    net = custom_net(mynets, forward=forward)
    x = IMAGES.clone()
    expected = randomised(build_net(f"{mynets}:plain", 3, 5, {"forward": forward}))  # the net as its author wrote it
    with torch.no_grad():
        torch.testing.assert_close(net(x), expected(x))
        assert (net.feature(x) < 0).any()
    assert_halves_make_the_whole(net, x)
    assert torch.equal(x, IMAGES)


def test_functional_dropout_is_off_in_both_halves(mynets):
    net = custom_net(mynets, "Dropped")
    net.train()
    net.eval()
    assert_halves_make_the_whole(net, IMAGES)


@pytest.mark.parametrize("name", ["Bypass", "FromInput"])
def test_what_bypasses_the_layer_is_refused(mynets, name):
    with pytest.raises(InputError, match="bypasses layer 'second'; choose a later layer"):
        custom_net(mynets, name)


@pytest.mark.parametrize(
    ("layer", "hint"), [("secnd", "did you mean 'second'"), ("activatoin", "did you mean 'activation'")]
)
def test_an_unknown_layer_names_the_nearest(mynets, layer, hint):
    with pytest.raises(InputError, match=f"no layer '{layer}'; {hint}"):
        custom_net(mynets, layer=layer)


def test_layers_that_will_not_do(mynets):
    with pytest.raises(InputError, match="is not used in the net's forward pass"):
        custom_net(mynets, layer="unused")
    with pytest.raises(InputError, match=r"has no ReLU; set target\.pre_relu=false"):
        custom_net(mynets, layer="second", pre_relu=True)


def test_a_vector_is_a_feature_of_one_place(mynets):
    net = custom_net(mynets, layer="last")
    assert net.shape[1:] == (1, 1)
    assert_halves_make_the_whole(net, IMAGES)


def test_a_net_of_its_own_flow_of_control_is_cut_by_another_way(mynets):
    """torch.fx cannot follow a branch on values; what cannot be traced is run whole."""
    with pytest.raises(InputError, match="is not used in the net's forward pass"):
        custom_net(mynets, "Branching")


def test_imports_need_permission(mynets, monkeypatch):
    monkeypatch.setenv("FEATCX_ALLOW_IMPORTS", "other.module")
    with pytest.raises(InputError, match="add featcx_test_nets to FEATCX_ALLOW_IMPORTS"):
        custom_net(mynets)
    monkeypatch.delenv("FEATCX_ALLOW_IMPORTS")
    with pytest.raises(InputError, match="may not import; add os to FEATCX_ALLOW_IMPORTS"):
        check_net("os:system")
    assert "featcx_test_nets" not in sys.modules


def test_permitted_imports_that_are_not_there(mynets):
    with pytest.raises(InputError, match=r"cannot be loaded .* give module:function"):
        custom_net(mynets, "nothing")
    with pytest.raises(InputError, match=r"cannot be loaded .* give module:function"):
        check_net("other.module:net")


def test_an_unknown_net_names_the_nearest():
    with pytest.raises(InputError, match="no net 'resnet9'; did you mean 'resnet"):
        check_net("resnet9")
    for name in BUILTIN:
        check_net(name)


def test_save_and_load(tmp_path, mynets):
    for net in (randomised(TargetNet("resnet8", (3, 8, 8), 5)), custom_net(mynets, width=7, forward="method")):
        save_network(net, tmp_path)
        loaded = load_network(tmp_path, TargetNet)
        with torch.no_grad():
            assert torch.equal(net(IMAGES), loaded(IMAGES))
            assert torch.equal(net.feature(IMAGES), loaded.feature(IMAGES))
        assert not loaded.training


def test_loading_a_net_does_not_shift_one_made_in_another_thread(tmp_path):
    """Constructors draw from a generator that all threads of a process share."""
    save_network(TargetNet("resnet8", (3, 8, 8), 5), tmp_path)
    done = threading.Event()

    def keep_loading():
        while not done.is_set():
            load_network(tmp_path, TargetNet)

    other = threading.Thread(target=keep_loading)
    other.start()
    try:
        weights = []
        for _ in range(10):
            with seeded(3):
                weights.append(build_net("resnet20", 3, 10).state_dict())
    finally:
        done.set()
        other.join()
    assert all(torch.equal(state[name], weights[0][name]) for state in weights for name in state)


def test_weights_of_another_net_are_refused(tmp_path):
    save_network(TargetNet("resnet8", (3, 8, 8), 5), tmp_path)
    path = tmp_path / "weights.safetensors"
    with pytest.raises(InputError, match="checkpoint of another network"):
        load_weights(TargetNet("resnet14", (3, 8, 8), 5), path)
    with pytest.raises(InputError, match=r"of another shape: 'model\.head\.2\.weight \(5×64 where the net has 6×64\)'"):
        load_weights(TargetNet("resnet8", (3, 8, 8), 6), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        load_weights(TargetNet("resnet8", (3, 8, 8), 5), path)


def test_training_a_target_and_its_scores(digits):
    torch.manual_seed(0)
    net = TargetNet("resnet8", digits.shape, 10)
    seen = balanced_subset(digits.train_labels, digits.pool, 100, 0)
    schedule = ScheduleSpec(draws=6400, batch=64, lr=3e-3, lr_end=3e-4)
    history = train_target(net, Augmented(digits, seen), schedule)
    assert set(history) == {"drawn", "loss"}
    scores = score_target(net, digits, seen, CPU)
    with torch.no_grad():
        logits = net(digits.normalise(digits.test_images))
    assert scores["test_accuracy"] == pytest.approx(float((logits.argmax(1) == digits.test_labels).double().mean()))
    assert scores["test_loss"] == pytest.approx(float(F.cross_entropy(logits, digits.test_labels)), rel=1e-4)
    assert scores["train_accuracy"] > 0.9
    assert scores["test_accuracy"] > 0.6
    assert_halves_make_the_whole(net, digits.normalise(digits.test_images[:8]))
