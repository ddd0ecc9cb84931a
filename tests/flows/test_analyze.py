"""A network in hand: what comes out, what stays as it was, what is refused."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import featcx_core as fx
from featcx_core.data.images import Dataset
from featcx_core.errors import InputError
from featcx_core.notebook.given import as_dataset, pair_of

QUICK = {"orders": (4, 7), "draws": 640, "width": 2, "rows": 40, "bootstrap": 100, "progress": False}
LEAN = QUICK | {"chains": 1, "continuation": False}  # where the protocol is not what is asked


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(64, 3),
    )


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randint(256, (200, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.fixture(scope="module")
def labels() -> Tensor:
    return torch.arange(200) % 3


@pytest.fixture(scope="module")
def analysis(images: Tensor, labels: Tensor) -> fx.Analysis:
    return fx.analyze(small_net(), "1", images, labels, seen=range(100), **QUICK)


def test_components_and_residual_make_up_the_feature_of_the_net(analysis, images):
    table = analysis.components["pool"]
    maps = torch.cat([stack for stack, _ in table.stacked()])
    pool = images[torch.isin(torch.arange(200), torch.arange(200))]
    given = as_dataset(images, torch.arange(200) % 3, None, range(100))
    x = given.data.normalise(given.data.train_images[table.samples()])
    torch.testing.assert_close(maps.sum(1), small_net().eval()[:2](x), atol=1e-4, rtol=1e-4)
    assert len(pool) == 200


def test_orders_have_the_columns_of_json_and_significance_by_definition(analysis):
    orders = analysis.orders
    assert orders.order.tolist() == [4, 7]
    maps = torch.cat([stack for stack, _ in analysis.components["pool"].stacked()]).double()
    whole = maps.sum(1).var(0, correction=0).sum()
    wanted = [float(maps[:, i].var(0, correction=0).sum() / whole) for i in (0, 1)]
    np.testing.assert_allclose(orders.significance, wanted, rtol=1e-5)
    assert orders.overfitting.notna().all()
    assert orders.cross_seed.notna().all()
    assert orders.gain.notna().all()
    assert orders.null.notna().all()
    assert set(orders.resolved) <= {"yes", "no", "negative"}


def test_it_shows_itself_and_writes_a_report(analysis, tmp_path):
    shown = analysis._repr_html_()
    assert shown.count("<img ") >= 3
    assert "Be careful" in shown
    assert "held out" in analysis.summary()
    page = analysis.report(tmp_path / "out")
    assert page.read_text().count("<h2") >= 3
    assert analysis.figure("significance").axes
    with pytest.raises(InputError, match="did you mean 'significance'"):
        analysis.figure("signifcance")
    assert set(analysis.disentanglers) == {4, 7}


def test_without_seen_over_fitting_is_left_out_with_the_reason(images, labels, tmp_path):
    found = fx.analyze(small_net(), "1", images, labels, test=(images[:40], labels[:40]), **LEAN)
    assert found.orders.overfitting.isna().all()
    assert found.orders.effectiveness.notna().all()
    assert "seen=" in found.summary()
    assert "φ(seen) is not above zero" not in found.summary()
    found.report(tmp_path)
    with pytest.raises(InputError, match="seen="):
        found.figure("overfitting")
    assert "seen=" in found._repr_html_()


def test_floats_are_taken_as_the_net_takes_them(images, labels, analysis):
    """The same images, normalised by hand, give the same feature."""
    data = as_dataset(images, labels, None, range(100)).data
    x = (images.float() / 255 - data.mean[:, None, None]) / data.std[:, None, None]
    found = fx.analyze(small_net(), "1", x, labels, seen=range(100), preprocess="none", **LEAN)
    f, g = (torch.cat([s.sum(1) for s, _ in a.components["test"].stacked()]) for a in (found, analysis))
    torch.testing.assert_close(f, g, atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="FloatDataset"):
        Dataset(**{**vars(data), "train_images": x, "test_images": x})


def test_preprocess_stands_between_pixels_and_the_net(images, labels):
    found = fx.analyze(small_net(), "1", images, labels, preprocess={"mean": [0.25], "std": [0.5]}, **LEAN)
    table = found.components["test"]
    given = as_dataset(images, labels, None, None).data
    x = (given.test_images[table.samples()].float() / 255 - 0.25) / 0.5
    total = torch.cat([s.sum(1) for s, _ in table.stacked()])
    torch.testing.assert_close(total, small_net().eval()[:2](x), atol=1e-4, rtol=1e-4)


def test_the_owners_net_comes_back_as_it_went_in(images, labels):
    net, calls = small_net().train(), []
    net[0].weight.requires_grad_(False)
    net[4].register_forward_hook(lambda *_: calls.append(1) if net.training else None)
    before = state_of(net)
    fx.analyze(net, "1", images, labels, **LEAN)
    assert state_of(net) == before


def state_of(net: nn.Module) -> object:
    """All that an owner could miss: bytes, addresses, flags, modes, hooks."""
    tensors = [*net.named_parameters(), *net.named_buffers()]
    return (
        [
            (n, t.data_ptr(), t.detach().cpu().numpy().tobytes(), t.requires_grad, t.device, t.grad is None)
            for n, t in tensors
        ],
        [
            (n, m.training, getattr(m, "inplace", None), len(m._forward_hooks), "forward" in vars(m))
            for n, m in net.named_modules()
        ],
    )


def test_a_loader_and_a_data_set_of_pairs_stand_for_images_and_labels(images, labels):
    pairs = torch.utils.data.TensorDataset(images, labels)
    for given in (pairs, torch.utils.data.DataLoader(pairs, 32)):
        x, y = pair_of(given)
        assert torch.equal(x, images)
        assert torch.equal(y, labels)
    x, y = pair_of(images.numpy(), labels.numpy())
    assert torch.equal(x, images)
    assert torch.equal(y, labels)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"images": torch.zeros(200, 8, 8, 3)}, "channels last"),
        ({"images": torch.zeros(200, 1, 8, 8, dtype=torch.int32)}, "uint8 pixels, or floats"),
        ({"images": torch.full((200, 1, 8, 8), float("nan"))}, "image 0"),
        ({"images": torch.zeros(200, 3, 8, 8, dtype=torch.uint8)}, "cannot take images of 3×8×8"),
        ({"labels": torch.arange(100)}, "one class number for each of 200 images"),
        ({"labels": torch.arange(200) % 5}, "label 4, but the net has 3 classes"),
        ({"seen": "all"}, "give test="),
        ({"seen": [200]}, "0 to 199"),
        ({"orders": (4, 8)}, "order 8"),
        ({"orders": (7, 4)}, "larger than the one before"),
        ({"layer": "7"}, "no layer '7'"),
        ({"preprocess": "imagnet"}, "pool, none, imagenet"),
        ({"net": lambda x: x}, "torch.nn.Module"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_next_step(images, labels, change, says):
    given = {"net": small_net(), "layer": "1", "images": images, "labels": labels} | LEAN | change
    with pytest.raises(InputError, match=says):
        fx.analyze(**given)


def test_prefect_is_never_imported():
    script = (
        "import sys; sys.modules['prefect'] = None; import featcx_core as fx, torch; from torch import nn;"
        "net = nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.Flatten(), nn.Linear(32, 2));"
        "x, y = torch.randint(256, (120, 1, 8, 8), dtype=torch.uint8), torch.arange(120) % 2;"
        f"print(len(fx.analyze(net, '0', x, y, **{LEAN!r}).orders))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.stdout == "2\n", done.stderr[-2000:]


def test_a_copy_has_nothing_of_the_owner(images):
    from featcx_core.notebook.given import own_copy

    net = small_net().train()
    taken = own_copy(net)
    with torch.no_grad():
        taken[0].weight.zero_()
    assert net[0].weight.abs().sum() > 0
    assert net.training
    assert not taken.training
    assert copy.deepcopy(net)[2].inplace
