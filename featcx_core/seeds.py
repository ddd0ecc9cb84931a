"""Seeds: every stage derives its own from the root seed and its identity, so adding a stage shifts no other."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from featcx_core.specs import RunSpec

_GLOBAL_RNG = threading.RLock()


def derive_seed(root: int, *identity: object) -> int:
    """A 63-bit seed for the stage named by `identity`, a pure function of its arguments."""
    text = "/".join(map(str, (root, *identity)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class Seeds:
    """The seeds of a run's stages, by what they are for.

    `seed` moves subset, target and disentanglers; which rows are kept, and the bootstrap's draws, belong to the data set, so
    that targets on it compare.
    """

    def __init__(self, spec: RunSpec) -> None:
        own, shared = spec.seed, spec.dataset.split_seed
        self._own = own
        self.subset, self.target = derive_seed(own, "subset"), derive_seed(own, "target")
        self.pruned, self.quantised = derive_seed(own, "pruned"), derive_seed(own, "quantised")
        self.learner = derive_seed(own, "learner")
        self.rows, self.bootstrap = derive_seed(shared, "rows"), derive_seed(shared, "bootstrap")
        self.floor, self.teacher = (derive_seed(spec.exemplary.seeds[0], name) for name in ("floor", "teacher"))

    def disentangler(self, blocks: int, chain: int = 0) -> int:
        """Of a chain's net."""
        return self._in_chain("disentangler", blocks, chain)

    def trunk(self, blocks: int, chain: int = 0) -> int:
        """Of a chain's trunk and of its cycle."""
        return self._in_chain("trunk", blocks, chain)

    def task(self, number: int) -> int:
        """The root of all seeds of one random task."""
        return derive_seed(self._own, "task", number)

    def weights(self, depth: int) -> int:
        """Of a random task net."""
        return derive_seed(self._own, "weights", depth)

    def _in_chain(self, noun: str, blocks: int, chain: int) -> int:
        return derive_seed(self._own, noun, blocks, *([chain] if chain else []))


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's global generator seeded inside the block and restored after it; one thread at a time.

    `nn.Module` constructors draw from the global generator, which all threads of a process share.
    """
    gpus = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with _GLOBAL_RNG, torch.random.fork_rng(devices=gpus):
        torch.manual_seed(seed)  # of the CPU and of every GPU in use
        yield


def no_draws() -> contextlib.AbstractContextManager[object]:
    """Nobody draws from a global generator in `seeded` or `Seeded` inside the block."""
    return _GLOBAL_RNG


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
