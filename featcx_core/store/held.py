"""What a process has in hand and no file holds, such as a notebook's network: found by the digest of its content."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from featcx_core.errors import InputError

_HELD = dict[str, Any]()


@contextlib.contextmanager
def holding(things: Mapping[str, Any]) -> Iterator[None]:
    """Inside, each thing is found by its digest, from any thread of this process."""
    _HELD.update(things)
    try:
        yield
    finally:
        for content in things:
            _HELD.pop(content, None)


def held(content: str) -> Any:
    """What has this digest.

    Raises:
        InputError: when this process does not have it.
    """
    if content not in _HELD:
        raise InputError(
            f"What was given in a notebook as {content[:12]} is not in hand any more; call analyze with the network again."
        )
    return _HELD[content]
