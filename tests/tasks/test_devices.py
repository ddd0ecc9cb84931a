"""A device is one place for all runs on a machine, whatever else each of them may use; who waits gets it in turn."""

import threading
import time

import pytest

from tasks.devices import Turns, _claims


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
