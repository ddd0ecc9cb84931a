"""Reading ahead: the next batch is read by a thread while this one is computed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def read_ahead(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """The items in their order, up to `depth` of them taken in advance by a thread of their own.

    What the source raises is raised here, after the items before it. A consumer that stops early ends the thread.
    """
    waiting: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(ended: bool, item: T | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return waiting.put((ended, item), timeout=0.1)
            except queue.Full:
                continue

    def fill() -> None:
        try:
            for item in items:
                put(False, item)
                if stopped.is_set():
                    return
            put(True, None)
        except BaseException as error:  # whatever it is, it belongs to the consumer
            put(True, error)

    thread = threading.Thread(target=fill, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            ended, item = waiting.get()
            if ended:
                if isinstance(item, BaseException):
                    raise item
                return
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
