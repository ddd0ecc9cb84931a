"""Muon: orthogonalised steps for kernels, Adam for the rest."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from featcx_core.training.muon import Muon, _orthogonalised


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (1, 5, 5)])
def test_orthogonalised_keeps_the_singular_vectors_and_brings_the_values_near_one(shape):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = _orthogonalised(x)
    u, _, vh = torch.linalg.svd(x, full_matrices=False)
    inner = u.mT @ y @ vh.mT
    off = inner - torch.diag_embed(torch.diagonal(inner, dim1=1, dim2=2))
    assert off.abs().max() < 1e-5
    values = torch.diagonal(inner, dim1=1, dim2=2)
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_what_is_no_kernel_takes_adams_step():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1))
    other = copy.deepcopy(net)
    x = torch.randn(8, 2, 6, 6)
    for model, make in ((net, Muon), (other, torch.optim.Adam)):
        optimiser = make(model.parameters(), lr=0.01)
        model(x).square().mean().backward()
        optimiser.step()
    for (name, mine), theirs in zip(net.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs) == (name != "0.weight"), name
