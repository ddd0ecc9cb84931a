"""What a command cannot use it refuses in a sentence, and leaves nothing in the store."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from flows.cli import main
from flows.running.embedded import PrefectServer
from tests.e2e.conftest import clean_environment

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Refused]:
    """Types a command in this process, in a folder without a store: the sentence with which it ends."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(PrefectServer, "_start", lambda _: "")  # which starts while the input is read
    monkeypatch.chdir(tmp_path)

    def typed(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["featcx", *arguments, "--store", "store"])
        with pytest.raises(SystemExit) as left:
            main()
        told = capsys.readouterr().err
        assert left.value.code == 2, told
        assert "Traceback" not in told
        assert len(told.strip().splitlines()) == 1
        assert not (tmp_path / "store").exists()
        return told

    with patch.dict(os.environ, clean_environment(), clear=True):
        yield typed
    for number, handler in handlers.items():
        signal.signal(number, handler)


RUN = {
    "an unknown preset": (["minst"], "did you mean 'mnist'?"),
    "an unknown field": (["digits", "--set", "target.sample=3"], "did you mean 'samples'?"),
    "a count that the classes do not divide": (["digits", "--set", "target.samples=205"], "take 200 or 210"),
    "a count beyond the pool": (["digits", "--set", "target.samples=5000"], "more than the pool holds"),
    "no orders": (["digits", "--set", "disentangler.blocks=[]"], "at least one block count"),
    "orders that fall": (["digits", "--set", "disentangler.blocks=4,2"], "each larger than the one before"),
    "a device that is not there": (["digits", "--device", "cuda:7"], "There is no device 'cuda:7'"),
    "an unknown net": (["digits", "--set", "target.net=resnet9"], "There is no net 'resnet9'"),
    "an unknown source": (["digits", "--set", "dataset.source=mnits"], "did you mean 'mnist'?"),
    "a source folder that is not there": (
        ["digits", "--set", "dataset.source=parquet:nowhere"],
        "There is no folder 'nowhere'",
    ),
    "a sparsity of one": (["digits", "--set", "variants.pruned.sparsity=1"], "less than 1"),
    "too many bits": (["digits", "--set", "variants.quantised.bits=17"], "less than or equal to 16"),
    "an unknown layer": (["digits", "--set", "target.layer=stages.7"], "The net has no layer 'stages.7'"),
    "code that is not allowed": (["digits", "--set", "target.net=os:system"], "FEATCX_ALLOW_IMPORTS"),
    "an unknown option": (["digits", "--nope"], "No such option"),
    "results that cannot be written": (["digits", "--json", "/dev/null/results.json"], "name a file in a folder of"),
    "a GPU on Ray": (["digits", "--runner", "ray", "--device", "cuda:1"], "use the device cuda"),
    "a missing checkpoint": (["digits", "--set", "target.checkpoint=none.safetensors"], "There is no checkpoint"),
}
SWEEP = {
    "no size": (["--sizes", ""], "empty value"),
    "a size twice": (["--sizes", "100,100"], "lists resnet8-n100-s0 twice"),
    "a size that is no number": (["--sizes", "100,x"], "'x' is not a whole number"),
    "a size of none": (["--sizes", "0"], "'0' is not a whole number of 1 or more"),
    "a size beyond the pool": (
        ["--sizes", "100000"],
        "resnet8-n100000-s0: target.samples = 100000 is more than the pool",
    ),
    "an unknown field": (["--over", "disentangler.widht=8,16"], "did you mean 'width'"),
    "a field without values": (["--over", "disentangler.width"], "no field and values"),
    "a field with an option of its own": (["--over", "seed=0,1"], "--seeds"),
    "a value twice": (["--over", "disentangler.width=8,8.0"], "twice"),
    "a field that changes nothing": (["--over", "complexity.blocks=2,3"], "changes no result"),
    "an unknown net": (["--archs", "resnet9"], "resnet9"),
}
COMPLEXITY = {
    "a single depth": (["--set", "complexity.depths=[3]"], "at least two depths"),
    "a seed twice": (["--set", "complexity.seeds=1,1"], "none twice"),
    "an unknown field": (["--set", "complexity.depth=0,2"], "did you mean 'depths'?"),
    "a device that is not there": (["--device", "cuda:7"], "There is no device 'cuda:7'"),
}


@pytest.mark.parametrize("case", RUN)
def test_a_run(case: str, refused: Refused) -> None:
    arguments, sentence = RUN[case]
    assert sentence in refused("run", *arguments)


@pytest.mark.parametrize("case", SWEEP)
def test_a_sweep(case: str, refused: Refused) -> None:
    arguments, sentence = SWEEP[case]
    assert sentence in refused("sweep", "digits", *arguments)


@pytest.mark.parametrize("case", COMPLEXITY)
def test_a_check_of_the_method(case: str, refused: Refused) -> None:
    arguments, sentence = COMPLEXITY[case]
    assert sentence in refused("complexity", "digits", *arguments)
