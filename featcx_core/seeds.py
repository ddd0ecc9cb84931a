"""Seeds: every stage derives its own from the root seed and its identity, so adding a stage shifts no other."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator

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


def generator(seed: int) -> torch.Generator:
    """A CPU generator: the stream is the same whatever device the samples then go to."""
    return torch.Generator().manual_seed(seed)
