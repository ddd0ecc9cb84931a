"""A training step on a GPU as one CUDA graph: hundreds of kernels start at one call, so that Python sets no pace."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Update = Callable[[Tensor], Tensor]

WARM = 2  # updates run as they are: libraries load, optimisers make their state, nothing of which a graph may hold

log = logging.getLogger(__name__)


class Replayed:
    """`update(drawn)` → loss, captured once and then replayed on whatever is drawn for it, a small tensor on the CPU.

    All else that changes from step to step must lie in tensors on the GPU (the learning rate too), all drawn must have one
    shape, and no random numbers may be drawn inside. The kernels are those of the update itself, so the bytes are the same.
    An update that cannot be captured, since a net of the user's own waits for the device, is run as it is.
    """

    def __init__(self, update: Update) -> None:
        self.update, self.done = update, 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, drawn: Tensor) -> Tensor:
        """The loss of this update, valid until the next one."""
        self.done += 1
        if self.done == WARM + 1:
            self._capture(drawn)
        if self.graph is None:
            return self.update(drawn)
        self.drawn.copy_(drawn.pin_memory(), non_blocking=True)  # else Python would wait for the update before
        self.graph.replay()
        return self.loss

    def _capture(self, drawn: Tensor) -> None:
        graph, self.drawn = torch.cuda.CUDAGraph(), drawn.cuda()
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        untouched = generator.clone_state()
        try:
            # Other threads' stages may use their own GPUs meanwhile.
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
                self.loss = self.update(self.drawn)
            self.graph = graph
        except RuntimeError as error:
            generator.graphsafe_set_state(
                untouched
            )  # else it takes itself to be in a capture, and draws nothing any more
            log.warning("This net's training cannot be captured as a CUDA graph (%s); it runs kernel by kernel.", error)


@contextlib.contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Runs the block's kernels on a stream of its own, as capturing needs, with algorithms that give the same bytes again.

    Nothing on a CPU.
    """
    if device.type != "cuda":
        yield
        return
    torch.backends.cudnn.deterministic = True  # for good: threads share it, so none may put it back
    with torch.cuda.device(device):
        outer, inner = torch.cuda.current_stream(), torch.cuda.Stream()
        inner.wait_stream(outer)
        with torch.cuda.stream(inner):
            yield
        outer.wait_stream(inner)
