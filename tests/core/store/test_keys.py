"""Keys are pure functions of what an artifact is made from."""

import hashlib
from pathlib import Path

import pytest

from featcx_core.store.keys import artifact_key, digest

PARTS = {
    "stage": "target",
    "spec": {"net": "resnet8", "samples": 200, "schedule": {"lr": 1e-3}, "layer": None, "sizes": [1, 2]},
    "inputs": {"data": "ab" * 32},
    "code": "cd" * 32,
}


def test_a_key_is_64_hex_digits():
    key = artifact_key(**PARTS)
    assert len(key) == 64
    int(key, 16)


def test_the_order_of_fields_does_not_matter():
    spec = dict(reversed(PARTS["spec"].items()))
    assert artifact_key(**PARTS | {"spec": spec}) == artifact_key(**PARTS)
    spec = PARTS["spec"] | {"sizes": (1, 2)}  # JSON knows lists alone
    assert artifact_key(**PARTS | {"spec": spec}) == artifact_key(**PARTS)


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "disentangler"},
        {"spec": PARTS["spec"] | {"samples": 201}},
        {"spec": PARTS["spec"] | {"schedule": {"lr": 1.0000000001e-3}}},
        {"spec": PARTS["spec"] | {"layer": ""}},
        {"spec": PARTS["spec"] | {"sizes": [2, 1]}},
        {"spec": PARTS["spec"] | {"more": None}},
        {"inputs": {"data": "ab" * 31 + "ac"}},
        {"inputs": {"other": "ab" * 32}},
        {"inputs": {}},
        {"code": "cd" * 31 + "ce"},
        {"spec": PARTS["inputs"], "inputs": PARTS["spec"]},
    ],
)
def test_a_key_moves_with_each_of_its_parts(change):
    assert artifact_key(**PARTS | change) != artifact_key(**PARTS)


def test_what_json_cannot_hold_is_refused():
    for value in (float("nan"), float("inf"), {1, 2}, Path("x")):
        with pytest.raises((ValueError, TypeError)):
            digest({"value": value})


def test_the_key_is_the_same_in_every_process():
    """A constant: whoever changes how keys are made sees here that every stored artifact becomes a miss."""
    text = '{"code":"0","inputs":{},"spec":{"name":"Φ","source":"digits"},"stage":"data"}'
    key = artifact_key("data", {"source": "digits", "name": "Φ"}, {}, "0")
    assert key == hashlib.sha256(text.encode()).hexdigest()
    assert key == "ed49078fba24dd8c8eb1916d1fa24029970c930e6a17e5226b7ce0928d43cb98"
