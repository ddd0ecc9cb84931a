"""A device is one place for all runs on a machine, whatever else each of them may use; who waits gets it in turn."""

import threading
import time
from types import SimpleNamespace

import pytest
import torch

from tasks import devices as places
from tasks.devices import Place, Turns, _claims, devices
from tasks.env import Env


def test_a_gpu_is_held_once_whichever_others_a_run_may_use(tmp_path):
    first, second = _claims(tmp_path, ["cuda:0"]), _claims(tmp_path, ["cuda:1"])
    assert [next(first).device, next(second).device] == ["cuda:0", "cuda:1"]
    third = _claims(tmp_path, ["cuda:0", "cuda:1", "cuda:2"])
    assert next(third).device == "cuda:2"
    first.close()
    assert next(_claims(tmp_path, ["cuda:1", "cuda:0"])).device == "cuda:0"


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs of 12 and 80 GiB."""
    sizes = {"cuda:0": 12, "cuda:1": 80}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(sizes))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda gpu: SimpleNamespace(total_memory=sizes[gpu] << 30))
    places._room.cache_clear()
    yield
    places._room.cache_clear()


def test_a_gpu_is_as_many_places_as_its_memory_has_room_for(gpus):
    assert devices(Env(store="", run="")) == ["cuda:0", "cuda:1", "cuda:1", "cuda:1"]
    assert devices(Env(store="", run="", device="cuda:0")) == ["cuda:0"]
    assert devices(Env(store="", run="", per_gpu=2)) == ["cuda:0", "cuda:1"] * 2  # empty ones first


def test_places_of_one_gpu_are_held_apart(tmp_path):
    held = [_claims(tmp_path, ["cuda:0", "cuda:1", "cuda:1"]) for _ in range(3)]
    assert [next(claims).device for claims in held] == ["cuda:0", "cuda:1", "cuda:1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cuda-0-0", "cuda-1-0", "cuda-1-1"]


def test_a_stage_that_leaves_its_gpu_goes_on_on_a_core(gpus, tmp_path, monkeypatch):
    monkeypatch.setattr(places.tempfile, "gettempdir", lambda: str(tmp_path))
    env = Env(store="", run="", device="cuda:0")
    with Place(env) as first:
        assert first.device == "cuda:0"
        first.leave_gpu()
        assert first.device == "cpu"
        with Place(env) as second:  # would wait for ever if the GPU were still held
            assert second.device == "cuda:0"
    with Place(env.model_copy(update={"device": "cpu"})) as core:
        core.leave_gpu()
        assert core.device == "cpu"


def test_cores_are_places_of_their_own(tmp_path):
    held = [_claims(tmp_path, ["cpu", "cpu"]) for _ in range(2)]
    assert [next(claims).device for claims in held] == ["cpu", "cpu"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cpu-0", "cpu-1"]


def waiting(turns, numbers, order):
    """Threads that wait for a place each, and note when they have it."""

    def stage(number):
        with turns.taken(number):
            order.append(number)

    threads = [threading.Thread(target=stage, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    while len(turns.waiting) < len(numbers):
        time.sleep(0.001)
    return threads


@pytest.mark.parametrize("places", [1, 2])
def test_who_waits_gets_a_place_in_the_recipes_order(places):
    turns, order = Turns(places), list[int]()
    turns.MOMENT = 0.0
    held = [turns.take(0) for _ in range(places)]
    threads = waiting(turns, [7, 3, 90, 5, 4], order)
    held[0]()
    for thread in threads:
        thread.join()
    assert order == [3, 4, 5, 7, 90]
    assert turns.free == places - len(held) + 1


def test_a_place_waits_a_moment_for_what_its_holder_made_possible():
    """The next of the chain comes after the place is free, and still goes before what stands far down the recipe."""
    turns, order = Turns(1), list[int]()
    turns.MOMENT = 0.5
    give_back = turns.take(4)
    far = waiting(turns, [50], order)
    give_back()
    near = threading.Thread(target=lambda: turns.take(5) and order.append(5))
    time.sleep(0.1)
    near.start()
    near.join()
    assert order == [5]
    turns._give_back(5)
    far[0].join()
    assert order == [5, 50]
