"""The order of things when a step is captured, with CUDA's own part played by stand-ins; tests/gpu has the real one."""

import contextlib
import logging

import pytest
import torch

from featcx_core.training import replay
from featcx_core.training.replay import Replayed, own_stream


class Graph:
    """What a CUDA graph does: it keeps what is called while capturing and calls it again."""

    recording = None

    def __init__(self):
        self.calls = []

    def replay(self):
        for call in self.calls:
            call()


class Generator:
    def __init__(self):
        self.state = "clean"

    def clone_state(self):
        return self.state

    def graphsafe_set_state(self, state):
        self.state = state


@pytest.fixture
def cuda(monkeypatch):
    """torch.cuda, as far as Replayed uses it, on the CPU."""
    generator = Generator()

    @contextlib.contextmanager
    def capture(graph, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"  # other GPUs' threads go on
        Graph.recording, generator.state = graph, "capturing"
        try:
            yield
        finally:
            Graph.recording = None
        generator.state = "clean"  # not after an error: torch leaves it so

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "default_generators", [generator])
    monkeypatch.setattr(torch.Tensor, "cuda", torch.Tensor.clone)
    monkeypatch.setattr(Replayed, "possible", True)
    yield generator
    Graph.recording = None


def test_what_is_drawn_reaches_every_replay(cuda):
    seen, python = [], []
    total = torch.zeros(())

    def update(drawn):
        python.append(1)

        def kernels():
            total.add_(drawn.sum())
            seen.append(drawn.clone())

        if Graph.recording is not None:
            Graph.recording.calls.append(kernels)  # captured, not run
        else:
            kernels()
        return total

    advance = Replayed(update)
    batches = [torch.tensor([i, i + 1]) for i in range(7)]
    for batch in batches:
        advance(batch)
    assert len(python) == replay.WARM + 1
    assert torch.equal(torch.stack(seen), torch.stack(batches))
    assert total == sum(map(torch.sum, batches))


def test_an_update_that_cannot_be_captured_runs_as_it_is(cuda, caplog):
    seen = []

    def update(drawn):
        if Graph.recording is not None:
            raise RuntimeError("operation not permitted when stream is capturing")
        seen.append(int(drawn))
        return drawn

    advance = Replayed(update)
    with caplog.at_level(logging.WARNING):
        for i in range(5):
            Graph.recording = None
            assert advance(torch.tensor(i)) == i
    assert seen == [0, 1, 2, 3, 4]
    assert caplog.text.count("could not be captured as a CUDA graph (operation not permitted") == 1
    assert cuda.state == "clean"
    later = []
    other = Replayed(lambda drawn: later.append(Graph.recording) or drawn)
    for i in range(5):
        other(torch.tensor(i))
    assert later == [None] * 5  # torch may not be able to capture any more


def test_a_cpu_needs_no_stream(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch.cuda, "Stream", None)
    with own_stream(torch.device("cpu")):
        assert not torch.backends.cudnn.deterministic
