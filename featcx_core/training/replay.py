"""A training step on a GPU as one CUDA graph: hundreds of kernels start at one call, so that Python sets no pace."""

from __future__ import annotations

import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from featcx_core.seeds import no_draws

Update = Callable[..., Tensor]

WARM = 2  # updates run as they are: libraries load, optimisers make their state, nothing of which a graph may hold

log = logging.getLogger(__name__)


class Replayed:
    """`update(*fetched)` → loss, captured once and then replayed on whatever is fetched for it, pinned tensors.

    All else that changes from step to step must lie in tensors on the GPU (the learning rate too), all fetched must have one
    shape, and no random numbers may be drawn inside. The kernels are those of the update itself, so the bytes are the same.
    An update that cannot be captured, since a net of the user's own waits for the device, is run as it is, and so are all
    later ones of the process: after an error torch's allocator may take the capture to be still under way.
    """

    possible = True

    def __init__(self, update: Update) -> None:
        self.update, self.done = update, 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *fetched: Tensor) -> Tensor:
        """The loss of this update, valid until the next one."""
        self.done += 1
        if self.done == WARM + 1:
            # Torch allows one capture at a time in a process; a draw meanwhile, in another training, would end in an error.
            with no_draws():
                if Replayed.possible:
                    self._capture(fetched)
        if self.graph is None:
            return self.update(*fetched)
        for kept, given in zip(self.fetched, fetched, strict=True):
            kept.copy_(given, non_blocking=True)
        self.graph.replay()
        return self.loss

    def _capture(self, fetched: tuple[Tensor, ...]) -> None:
        graph, self.fetched = torch.cuda.CUDAGraph(), [part.cuda() for part in fetched]
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        untouched = generator.clone_state()
        try:
            # Other threads' stages may use this GPU or others meanwhile.
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
                self.loss = self.update(*self.fetched)
            self.graph = graph
        except RuntimeError as error:
            # Else the generator, too, would take itself to be in a capture, and draw nothing any more.
            generator.graphsafe_set_state(untouched)
            Replayed.possible = False
            log.warning(
                "A training step could not be captured as a CUDA graph (%s); this process trains kernel by kernel.",
                error,
            )


@contextlib.contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Runs the block's kernels on a stream apart from the default one, as capturing needs, and from those of trainings
    beside it. Nothing on a CPU.
    """
    if device.type != "cuda":
        yield
        return
    reproducible(device)
    with torch.cuda.device(device):
        # The last one that came free: what a training has freed the next can use.
        free = _STREAMS[torch.cuda.current_device()]
        outer, inner = torch.cuda.current_stream(), free.pop() if free else torch.cuda.Stream()
        inner.wait_stream(outer)
        try:
            with torch.cuda.stream(inner):
                yield
        finally:
            outer.wait_stream(inner)
            free.append(inner)


_STREAMS: dict[int, list[torch.cuda.Stream]] = defaultdict(list)  # a GPU's, that no training uses at present


def reproducible(device: torch.device) -> None:
    """Has cuDNN take the algorithms that give the same bytes again; for good, since all threads share the setting."""
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
