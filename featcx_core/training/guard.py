"""What a training does about its own faults: it goes back to its last good state, once, and goes on in another way."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from featcx_core.errors import InputError
from featcx_core.training.checkpoint import Checkpoint, load, read, tensors_of, write
from featcx_core.training.recompute import recomputing

LONGEST = 500  # steps between two looks at the loss, where an epoch is longer
SELDOM = 50  # steps between two good states at least, since each is a copy
GOOD = "good."  # what names begin with in a checkpoint


class Guard:
    """The last good state of a training, and what has been done since it began.

    A state is good when its loss is finite, and its weights are; good ones are taken at fixed steps, so that a training that
    was interrupted goes back to the same one.

    Args:
        model, optimiser, running: what is trained, and the sum of its losses since the history's last entry.
        epoch: steps of an epoch, after which a loss that is not finite is seen.
        on_remark: told what has been done.
    """

    def __init__(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        running: Tensor,
        epoch: int,
        on_remark: Callable[[str], None] | None,
    ) -> None:
        self.own = (model, optimiser, running)
        self.every = min(epoch, LONGEST)
        self.seldom = self.every * math.ceil(SELDOM / self.every)
        self.rate, self.remark = 1.0, on_remark or (lambda text: None)
        self.memory = contextlib.ExitStack()
        self.recomputes = False
        self.told = list[str]()
        self.good: tuple[dict[str, Tensor], int, list[Any]] = ({}, 0, [])

    def begin(self, checkpoint: Checkpoint | None) -> tuple[int, list[Any]]:
        """(steps done, history) of the checkpoint if there is one, else of the start."""
        found = None if checkpoint is None else read(checkpoint)
        if found is None:
            self.keep(0, [[], []])
            return 0, [[], []]
        tensors, done, (history, good_done, good_history, self.rate, self.told) = found
        good = {name.removeprefix(GOOD): value for name, value in tensors.items() if name.startswith(GOOD)}
        self.good = (good, good_done, good_history)
        load({name: value for name, value in tensors.items() if not name.startswith(GOOD)}, *self.own)
        for text in self.told:
            self.remark(text)
        return done, history

    def save(self, checkpoint: Checkpoint, done: int, history: list[Any]) -> None:
        """Saves the training with its last good state."""
        tensors, good_done, good_history = self.good
        beside = {f"{GOOD}{name}": value for name, value in tensors.items()}
        meta = [history, good_done, good_history, self.rate, self.told]
        write(checkpoint, tensors_of(*self.own) | beside, done, meta)

    def keep(self, done: int, history: list[Any]) -> None:
        """This is a good state."""
        tensors = {name: value.detach().clone() for name, value in tensors_of(*self.own).items()}
        self.good = (tensors, done, [list(part) for part in history])

    def is_good(self, weights: bool) -> bool:
        """Whether the loss since the last look is finite, and, if asked, the weights are."""
        model, _, running = self.own
        looked_at = [running, *(model.parameters() if weights else ())]
        return bool(torch.stack([value.detach().isfinite().all() for value in looked_at]).all())

    def diverged(self) -> tuple[int, list[Any]]:
        """Back to the last good state, from which it goes on at half the rate.

        Raises:
            InputError: the second time.
        """
        if self.rate < 1:
            raise InputError(
                "The training diverged: its loss is not finite; lower the schedule's lr, or set precision=fp32. It did "
                "so again after going on from its last good state at half the rate."
            )
        self.rate = 0.5
        return self._back("diverged after step {}; it went on from there at half the rate")

    def out_of_memory(self, batch: int, error: BaseException) -> tuple[int, list[Any]]:
        """Back to the last good state, from which activations are computed again rather than kept: the same bytes.

        Raises:
            InputError: where they are already.
        """
        if self.recomputes:
            raise InputError(
                f"The memory is too small for steps of {batch} images, even with activations computed again on the way "
                f"back; set the schedule's batch to {max(1, batch // 2)} or less, "
                "or, on a GPU that trainings share, runtime.per_gpu to 1."
            ) from error
        self.recomputes = True
        self.memory.enter_context(recomputing(self.own[0]))
        return self._back("ran out of memory after step {}; its activations were computed again from there on")

    def _back(self, what: str) -> tuple[int, list[Any]]:
        tensors, done, history = self.good
        load(tensors, *self.own)
        self.told = [*self.told, what.format(done)]
        self.remark(self.told[-1])
        return done, [list(part) for part in history]
