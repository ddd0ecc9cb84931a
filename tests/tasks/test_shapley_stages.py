"""The Shapley stages on shards: exact up to fourteen orders, sampled beyond."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from featcx_core.analysis.components import ComponentTable, extract
from featcx_core.analysis.significance import measure_significance
from featcx_core.game import values as shapley
from featcx_core.game.values import coalition_losses, shapley_values
from featcx_core.nets.targets import TargetNet
from featcx_core.nets.weights import save_network
from featcx_core.report.facets.shapley import read_shapley
from featcx_core.specs import AnalysisSpec
from featcx_core.store.record import Record
from tasks import analyse


def write_inputs(root, digits, players):
    """Components, target and significance as their stages leave them, with made-up Φ of any number of orders."""
    torch.manual_seed(0)
    net = TargetNet("resnet8", digits.shape, 10).eval()
    save_network(net, root / "target")
    shares = torch.rand(players, generator=torch.Generator().manual_seed(1)).cumsum(0) / players
    nets = {
        3 * (i + 1) + 1: lambda x, i=i: net.feature(x) * torch.cos(i * net.feature(x)) * shares[i]
        for i in range(players)
    }
    for k, split in enumerate(analyse.SPLITS):
        rows = torch.arange(40 * k, 40 * (k + 1))
        extract(
            net.feature, nets, digits.test_images[rows], digits.test_labels[rows], rows, root / "components" / split,
            normalise=digits.normalise, device=torch.device("cpu"), part_rows=25,
        )  # fmt: skip
    tables = {split: ComponentTable.open(root / "components" / split) for split in analyse.SPLITS}
    moments = measure_significance(tables, bootstrap=100, confidence=0.95, seed=0, device="cpu").moments
    (root / "significance").mkdir()
    Record(tensors={"moments": moments._asdict()}).save(root / "significance")
    return net, tables


@pytest.mark.parametrize("players", [3, 15])
def test_shards_make_the_table_of_effectiveness(tmp_path, digits, players, monkeypatch):
    net, tables = write_inputs(tmp_path, digits, players)

    def run(stage, name, **arguments):
        work = SimpleNamespace(folder=tmp_path / name, device=torch.device("cpu"), path=lambda ref: tmp_path / ref)
        work.record = lambda ref: Record.load(tmp_path / ref)
        work.folder.mkdir()
        return stage.body(work, **arguments)

    shards = {split: [f"{split} {part}" for part in range(2)] for split in ("seen", "test")}
    for split, names in shards.items():
        for part, name in enumerate(names):
            run(analyse.shapley, name, components="components", target="target", split=split, part=part)
    ends = run(
        analyse.effectiveness, "effectiveness", components="components", significance="significance", **shards,
        settings=AnalysisSpec(bootstrap=100), seed=0,
    )  # fmt: skip
    found = Record.load(tmp_path / "effectiveness")
    table = found.frames["effectiveness"].set_index("order")
    assert table.shapley_train.sum() == pytest.approx(ends["train_loss_empty"] - ends["train_loss_full"], abs=1e-9)
    assert table.shapley_test.sum() == pytest.approx(ends["test_loss_empty"] - ends["test_loss_full"], abs=1e-9)
    assert found.numbers == ends
    assert len(found.frames["interactions"]) == (2 * 3 if players == 3 else 0)
    values = found.tensors["values"]["train"]
    monkeypatch.setattr(shapley, "EXACT_PLAYERS", 15)  # 32,768 coalitions of 40 samples: the oracle
    exact = shapley_values(coalition_losses(tables["seen"], net.head))
    if players == 3:
        assert torch.equal(values, exact)
        return
    errors = torch.cat([Record.load(tmp_path / name).tensors["game"]["errors"] for name in shards["seen"]])
    off = (values.mean(0) - exact.mean(0)).abs()
    assert (off < 4.5 * errors.square().sum(0).sqrt() / len(errors)).all()
    assert errors.max() < exact.abs().max()
    np.testing.assert_allclose(table.shapley_train_sampling, errors.square().sum(0).sqrt() / len(errors))
    assert (table.shapley_test_sampling > 0).all()
    assert "coalitions were sampled" in read_shapley({"effectiveness": table.reset_index()})
