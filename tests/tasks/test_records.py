"""Prefect's records say what the store says, whatever a stranger has written into them."""

import base64
import json
import os
import pickle
from typing import Any

from prefect._internal.result_records import ResultRecord

from featcx_core.store.artifacts import ArtifactRef, Store
from tasks.cached import records, write_record
from tasks.env import Env


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["BOMB"],)


def test_a_record_from_a_stranger_is_replaced_and_never_read(tmp_path, monkeypatch):
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    store, ref = Store(tmp_path / "s"), ArtifactRef(stage="data", key="k", digest="d")
    folder = records(Env(store=str(store.root), run="r"))
    path = folder / "data-k"
    write_record(folder, path.name, ref)
    honest = json.loads(path.read_text())
    stranger = honest | {"result": base64.b64encode(pickle.dumps(Bomb())).decode()}
    stranger["metadata"] = honest["metadata"] | {"serializer": {"type": "pickle", "picklelib": "cloudpickle"}}
    path.write_text(json.dumps(stranger))
    assert any("serializer" in damage.reason for damage in store.verify())
    write_record(folder, path.name, ref)
    assert ResultRecord.deserialize(path.read_bytes()).result == ref
    assert json.loads(path.read_text()) == honest
    path.unlink()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path.symlink_to(victim)
    write_record(folder, path.name, ref)
    assert victim.read_text() == "precious"
    assert not path.is_symlink()
    write_record(folder, path.name, None)
    assert not path.exists()
    assert not (tmp_path / "exploded").exists()
