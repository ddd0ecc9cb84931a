"""A device is one place for all runs on a machine, whatever else each of them may use."""

from tasks.devices import _claims


def test_a_gpu_is_held_once_whichever_others_a_run_may_use(tmp_path):
    first, second = _claims(tmp_path, ["cuda:0"]), _claims(tmp_path, ["cuda:1"])
    assert [next(first).device, next(second).device] == ["cuda:0", "cuda:1"]
    third = _claims(tmp_path, ["cuda:0", "cuda:1", "cuda:2"])
    assert next(third).device == "cuda:2"
    first.close()
    assert next(_claims(tmp_path, ["cuda:1", "cuda:0"])).device == "cuda:0"


def test_cores_are_places_of_their_own(tmp_path):
    held = [_claims(tmp_path, ["cpu", "cpu"]) for _ in range(2)]
    assert [next(claims).device for claims in held] == ["cpu", "cpu"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cpu-0", "cpu-1"]
