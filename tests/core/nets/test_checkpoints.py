"""Weights as people's trainings leave them, and files that are none."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from featcx_core.errors import InputError
from featcx_core.nets.checkpoints import fitted, read_checkpoint


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 5))


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.", "model._orig_mod.", "module.model."])
@pytest.mark.parametrize("nest", [None, "state_dict", "model", "model_state_dict", "model_ema"])
def test_nests_and_prefixes(tmp_path, prefix, nest):
    own = net().state_dict()
    named = {f"{prefix}{name}": value for name, value in own.items() if not name.endswith("num_batches_tracked")}
    stored = named if nest is None else {nest: named, "epoch": 3, "optimizer": {"state": {}}}
    torch.save(stored, tmp_path / "w.pt")
    found = fitted(read_checkpoint(tmp_path / "w.pt"), own, tmp_path / "w.pt")
    assert all(torch.equal(found[name], own[name]) for name in own)


def test_safetensors_and_half_precision(tmp_path):
    own = net().state_dict()
    save_file(
        {name: value.half() if value.is_floating_point() else value for name, value in own.items()}, tmp_path / "w"
    )
    found = fitted(read_checkpoint(tmp_path / "w"), own, tmp_path / "w")
    assert all(found[name].dtype == own[name].dtype for name in own)
    torch.testing.assert_close(found["0.weight"], own["0.weight"], atol=1e-3, rtol=1e-2)


def test_what_does_not_fit_is_listed(tmp_path):
    own = net().state_dict()
    with pytest.raises(
        InputError, match=r"missing: '0\.weight', '0\.bias', '1\.weight', '1\.bias', '1\.running_mean' and 3 more"
    ):
        fitted({"x": torch.ones(1)}, own, tmp_path)
    with pytest.raises(InputError, match=r"not the net's: 'more'"):
        fitted(own | {"more": torch.ones(1)}, own, tmp_path)
    with pytest.raises(InputError, match=r"of another shape: '0\.bias \(3 where the net has 4\)'"):
        fitted(own | {"0.bias": torch.ones(3)}, own, tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path, value):
    own = net().state_dict()
    with pytest.raises(InputError, match=r"not finite .*'3\.bias'"):
        fitted(own | {"3.bias": torch.full((5,), value)}, own, tmp_path)


class Bomb:
    def __reduce__(self):
        return print, ("exploded",)


def test_nothing_is_unpickled(tmp_path, capsys):
    for name, stored in (("a", {"state_dict": net().state_dict(), "hooks": Bomb()}), ("b", net())):
        torch.save(stored, tmp_path / name)
        with pytest.raises(InputError, match="holds more than tensors, which featcx does not unpickle"):
            read_checkpoint(tmp_path / name)
    (tmp_path / "c").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match="c "):
        read_checkpoint(tmp_path / "c")
    assert "exploded" not in capsys.readouterr().out


def test_files_that_are_none(tmp_path):
    torch.save(net().state_dict(), tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    for name, text in {"cut": data[: len(data) // 2], "empty": b"", "text": b"hello, I am no weights"}.items():
        (tmp_path / name).write_bytes(text)
        with pytest.raises(InputError, match=f"{name} (cannot be read|is damaged|holds)"):
            read_checkpoint(tmp_path / name)
    with pytest.raises(InputError, match="There is no checkpoint"):
        read_checkpoint(tmp_path / "nowhere")
    torch.save({"epoch": 3}, tmp_path / "none")
    with pytest.raises(InputError, match="holds no state dict"):
        read_checkpoint(tmp_path / "none")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_is_cut_anywhere_is_told(tmp_path, zipped):
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in range(2, len(whole) - 30, 31):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"copy|give a file|holds"):
            read_checkpoint(path)


def test_an_archive_of_several_disks_is_refused(tmp_path):
    """Python's own `is_zipfile` raises there; the fuzzer found it."""
    locator, end = b"PK\x06\x07" + bytes(12) + (2).to_bytes(4, "little"), b"PK\x05\x06" + bytes(18)
    (tmp_path / "net.pt").write_bytes(bytes(100) + locator + end)
    with pytest.raises(InputError, match=r"net\.pt"):
        read_checkpoint(tmp_path / "net.pt")
