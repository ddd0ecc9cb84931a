"""A net that is looked at comes back as it went in: torchvision's classifiers, one a family."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

from featcx_core.nets.split import split_net
from featcx_core.notebook.given import own_copy

# name → side of an image; the smallest of each family, whose others differ from it in depth and width
NETS = {
    "alexnet": 64, "convnext_tiny": 32, "densenet121": 32, "efficientnet_b0": 32, "efficientnet_v2_s": 32, "googlenet": 32,
    "inception_v3": 75, "maxvit_t": 224, "mnasnet0_5": 32, "mobilenet_v2": 32, "mobilenet_v3_small": 32, "regnet_x_400mf": 32,
    "regnet_y_400mf": 32, "resnet18": 32, "resnext50_32x4d": 32, "shufflenet_v2_x0_5": 32, "squeezenet1_0": 32, "swin_t": 32,
    "swin_v2_t": 64, "vgg11_bn": 32, "vit_b_16": 224, "wide_resnet50_2": 32,
}  # fmt: skip


def state_of(net: nn.Module) -> object:
    """All that an owner could miss: bytes, addresses, flags, modes, hooks."""
    tensors = [*net.named_parameters(), *net.named_buffers()]
    return (
        [(n, t.data_ptr(), hash(t.detach().numpy().tobytes()), t.requires_grad, t.device, t.grad) for n, t in tensors],
        [
            (n, m.training, getattr(m, "inplace", None), len(m._forward_hooks), len(m._forward_pre_hooks), *vars(m))
            for n, m in net.named_modules()
        ],
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_torchvisions_nets_come_back_as_they_went_in(name):
    quick = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    net = models.get_model(name, weights=None, num_classes=3, **quick).train()
    next(net.parameters()).requires_grad_(False)
    handle = net.register_forward_hook(lambda *_: None)
    before = state_of(net)
    split = split_net(own_copy(net), None, False, (3, NETS[name], NETS[name]))
    with torch.no_grad():
        split.head(split.feature(torch.zeros(2, 3, NETS[name], NETS[name])))
    assert state_of(net) == before
    handle.remove()


def test_every_family_of_torchvision_is_there():
    families = {models.get_model_builder(name).__module__ for name in models.list_models(module=models)}
    assert {models.get_model_builder(name).__module__ for name in NETS} == families
    assert len(NETS) == 22
