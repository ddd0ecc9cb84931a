"""When the stages of a DAG run, on so many devices."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


class Timed(Protocol):
    """A stage: places in the list of those that it waits for, whether it needs a device, seconds."""

    inputs: tuple[int, ...]
    computes: bool
    seconds: float


@dataclass
class _Queue:
    """Stages by what they wait for."""

    stages: Sequence[Timed]
    missing: list[int] = field(init=False)
    users: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.missing, self.users = [len(s.inputs) for s in self.stages], [[] for _ in self.stages]
        for number, stage in enumerate(self.stages):
            for source in stage.inputs:
                self.users[source].append(number)

    def released(self, number: int) -> list[int]:
        """Stages that wait for nothing any more once this one is done."""
        for user in self.users[number]:
            self.missing[user] -= 1
        return [user for user in self.users[number] if self.missing[user] == 0]


def side_by_side(stages: Sequence[Timed], places: int, beside: float) -> float:
    """Seconds of the DAG on so many devices: whenever one is free, the first stage submitted that can start does.

    Args:
        beside: how many times longer a stage takes while another runs.
    """
    queue, clock = _Queue(stages), 0.0
    ready = [n for n, missing in enumerate(queue.missing) if missing == 0]
    heapq.heapify(ready)
    running: dict[int, float] = {}
    while ready or running:
        waiting = []
        while ready:
            number = heapq.heappop(ready)
            busy = sum(stages[n].computes for n in running)
            if stages[number].computes and stages[number].seconds and busy >= places:
                waiting.append(number)
            else:
                running[number] = stages[number].seconds
        slow = beside if sum(stages[n].computes for n in running) > 1 else 1.0
        first = min(running.values())
        clock += first * slow
        running = {n: left - first for n, left in running.items()}
        for number in [n for n, left in running.items() if left <= 0]:
            del running[number]
            waiting += queue.released(number)
        ready = waiting
        heapq.heapify(ready)
    return clock
