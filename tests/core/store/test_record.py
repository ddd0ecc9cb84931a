"""What an analysis keeps comes back as it was, and is read no sooner than it is asked for."""

import pandas as pd
import pytest
import torch

from featcx_core.store.record import Record


def test_what_is_kept_comes_back(tmp_path):
    frame = pd.DataFrame({"order": [4, 7], "significance": [0.25, float("nan")]})
    tensors = {"draws": {"significance": torch.rand(5, 2).T}, "moments": {"value": torch.eye(2)}}
    Record({"significance": frame}, tensors, {"chosen_order": 7, "klasse": "größer"}).save(tmp_path)
    found = Record.load(tmp_path)
    pd.testing.assert_frame_equal(found.frames["significance"], frame)
    assert set(found.tensors) == {"draws", "moments"}
    assert torch.equal(found.tensors["draws"]["significance"], tensors["draws"]["significance"])
    assert found.numbers == {"chosen_order": 7, "klasse": "größer"}


def test_only_what_is_asked_for_is_read(tmp_path):
    Record(frames={"whole": pd.DataFrame({"order": [4]})}).save(tmp_path)
    (tmp_path / "broken.parquet").write_bytes(b"half")
    (tmp_path / "broken.safetensors").write_bytes(b"half")
    found = Record.load(tmp_path)
    assert found.frames["whole"]["order"].tolist() == [4]
    assert found.numbers == {}
    with pytest.raises(KeyError):
        found.frames["other"]
    with pytest.raises(Exception, match=r"[Pp]arquet"):
        found.frames["broken"]
