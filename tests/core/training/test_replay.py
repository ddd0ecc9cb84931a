"""The order of things when a step is captured, with CUDA's own part played by stand-ins; tests/gpu has the real one."""

import contextlib
import logging

import pytest
import torch

from featcx_core.training import replay
from featcx_core.training.replay import Replayed, own_stream
from tests.core.training.test_fit import same


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


STEPS = 30
REPLAYED = (
    STEPS - 1 - replay.WARM
)  # the first step shows whether the loss draws random numbers, WARM more are run as they are


def assert_same_captured_or_not(train, replays, monkeypatch):
    """A training of STEPS steps, (weights, history), comes to the same bytes whether its steps are captured or not.

    `replays` grows by one for each replay; how many there must be is reckoned before anything is patched.
    """
    captured, history = train()
    assert len(replays) == REPLAYED
    monkeypatch.setattr(replay, "WARM", 10**9)
    plain, same_history = train()
    assert len(replays) == REPLAYED
    assert same(captured, plain)
    assert history == same_history


def toy(fault):
    """A training of one weight through Replayed; a fault of the graph makes it end elsewhere, or never be captured."""
    weight, history = torch.zeros(()), []

    def update(drawn):
        static = drawn.clone() if fault == "stale" else drawn

        def kernels():
            weight.mul_(0.9).add_(static.float().sum())

        if Graph.recording is None:
            kernels()
        elif fault == "never":
            raise RuntimeError("operation not permitted when stream is capturing")
        else:
            Graph.recording.calls.extend([kernels] * (2 if fault == "twice" else 1))
        return weight

    advance = Replayed(update)
    for step in range(STEPS):
        drawn = torch.tensor([step, step + 1])
        history.append(float((update if step == 0 else advance)(drawn)))
    return {"weight": weight.clone()}, history


@pytest.mark.parametrize("fault", ["", "stale", "twice", "never"])
def test_what_holds_captured_against_plain_training_finds_faults(cuda, fault, monkeypatch):
    """The check of tests/gpu, where a graph can be at fault: replayed on old samples, its kernels twice, or not captured."""
    replays, replay_ = [], Graph.replay
    monkeypatch.setattr(Graph, "replay", lambda graph: replays.append(1) or replay_(graph))
    with pytest.raises(AssertionError) if fault else contextlib.nullcontext():
        assert_same_captured_or_not(lambda: toy(fault), replays, monkeypatch)


def test_a_cpu_needs_no_stream(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch.cuda, "Stream", None)
    with own_stream(torch.device("cpu")):
        assert not torch.backends.cudnn.deterministic
