"""What a command cannot use it refuses in a sentence, and leaves nothing in the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import typed


def refused(folder: Path, *arguments: str) -> str:
    """Types a command in a folder without a store: the sentence with which it ends."""
    done = typed(*arguments, "--store", "store", cwd=folder)
    assert (done.code, done.out) == (2, ""), done.err
    assert "Traceback" not in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (folder / "store").exists()
    return done.err


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
PLAN = {
    "an unknown preset": (["minst"], "did you mean 'mnist'?"),
    "a count that the classes do not divide": (["digits", "--set", "target.samples=205"], "take 200 or 210"),
    "such a count in a sweep": (["digits", "--sizes", "200,205"], "take 200 or 210"),
    "no devices": (["digits", "--devices", "0"], "above 0"),
    "a protocol that is a table": (
        ["digits", "--set", "disentangler.protocol={}"],
        "it should be 'fast' or 'published'",
    ),
    "a table for a list": (["digits", "--set", "disentangler.draws={}"], "it should be a list, such as 1,2,4"),
    "a word for a list of numbers": (["digits", "--set", "disentangler.blocks=deep"], "it should be a valid integer"),
    "a negative rate": (["digits", "--rate", "-1"], "above 0"),
}


@pytest.mark.parametrize("case", RUN)
def test_a_run(case: str, tmp_path: Path) -> None:
    arguments, sentence = RUN[case]
    assert sentence in refused(tmp_path, "run", *arguments)


@pytest.mark.parametrize("case", SWEEP)
def test_a_sweep(case: str, tmp_path: Path) -> None:
    arguments, sentence = SWEEP[case]
    assert sentence in refused(tmp_path, "sweep", "digits", *arguments)


@pytest.mark.parametrize("case", COMPLEXITY)
def test_a_check_of_the_method(case: str, tmp_path: Path) -> None:
    arguments, sentence = COMPLEXITY[case]
    assert sentence in refused(tmp_path, "complexity", "digits", *arguments)


@pytest.mark.parametrize("case", PLAN)
def test_a_plan(case: str, tmp_path: Path) -> None:
    arguments, sentence = PLAN[case]
    assert sentence in refused(tmp_path, "plan", *arguments)


@pytest.mark.parametrize("text", [b"\x80eed = 1", b"seed = ", b"seed = " + b"[" * 100_000, b"\xff\xfes\x00"])
def test_a_file_of_settings_that_is_none(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(text)
    assert "mine.toml is not valid TOML" in refused(tmp_path, "run", "digits", "--config", "mine.toml")
