"""Seeds: every stage derives its own from the root seed and its identity, so adding a stage shifts no other."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from typing import Any

import torch

_GLOBAL_RNG = threading.RLock()


def derive_seed(root: int, *identity: object) -> int:
    """A 63-bit seed for the stage named by `identity`, a pure function of its arguments."""
    text = "/".join(map(str, (root, *identity)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's global generator seeded inside the block and restored after it; one thread at a time.

    `nn.Module` constructors draw from the global generator, which all threads of a process share.
    """
    gpus = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with _GLOBAL_RNG, torch.random.fork_rng(devices=gpus):
        torch.manual_seed(seed)  # of the CPU and of every GPU in use
        yield


class Seeded(contextlib.AbstractContextManager["Seeded"]):
    """`seeded` as an object: afterwards `drew` says whether the block drew numbers from a global generator.

    Args:
        seed: see `seeded`.
        device: where the block computes.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._context, self._device, self.drew = seeded(seed), device, False

    def __enter__(self) -> Seeded:
        self._context.__enter__()
        self._before = self._states()
        return self

    def __exit__(self, *error: Any) -> None:
        self.drew = not all(map(torch.equal, self._before, self._states()))
        self._context.__exit__(*error)

    def _states(self) -> list[torch.Tensor]:
        own = [torch.cuda.get_rng_state(self._device)] if self._device.type == "cuda" else []
        return [torch.get_rng_state(), *own]


def generator(seed: int) -> torch.Generator:
    """A CPU generator: the stream is the same whatever device the samples then go to."""
    return torch.Generator().manual_seed(seed)
