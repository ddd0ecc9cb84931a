"""How often verdicts on the paper's claims err and find, over sweeps whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd

from featcx_core.studies.claims import KEPT, RELIABLY, STATEMENTS, estimate, verdict
from featcx_core.studies.frames import checked
from featcx_core.studies.judging import AGREES, DISAGREES, OPEN, UNMEASURED
from tests.made_sweeps import made

TRIALS = 200
LIMIT = 0.05 + 2 * np.sqrt(0.05 * 0.95 / TRIALS)
DIRECTED = ("1a", "1b", "3a", "4a", "4b")


def verdicts(change, noise: float, arch: str = "resnet14", trials: int = TRIALS) -> dict[str, list[str]]:
    """Of each statement over sweeps with fresh noise on what `change` makes of the noiseless sweep: a group a trial."""
    still, rng = made(sign=0, noise=1e-9, archs=(arch,)), np.random.default_rng(1)
    truth = checked(still.assign(**change(still, np.log2(still["samples"] / 100))), ())
    table = pd.concat(
        [truth.assign(group=str(i), target=f"{i}-" + truth["target"]) for i in range(trials)], ignore_index=True
    )
    for column in ("reliability", "decodability", "overfitting", "effectiveness", "substituted_accuracy"):
        table[column] += noise * rng.standard_normal(len(table))
    targets = table["target"].astype("category").cat.codes.to_numpy()
    table["gain"] += (noise * rng.standard_normal(targets.max() + 1))[targets]
    table["significance"] *= np.exp(noise * rng.standard_normal(len(table)))
    for end, sign in (("low", -1), ("high", 1)):
        table[f"effectiveness_{end}"] = table["effectiveness"] + sign * 2 * noise
    found = {}
    for statement in STATEMENTS:
        values = statement.measure(table).dropna(subset="value")
        parts = dict(iter(values.groupby("group")))
        nothing = values.iloc[:0]
        found[statement.name] = [
            verdict(estimate(parts.get(str(i), nothing), 0.95), statement.regions) for i in range(trials)
        ]
    return found


def share(verdicts_: list[str], verdict: str) -> float:
    return verdicts_.count(verdict) / len(verdicts_)


def nothing(table, doublings):
    """No effect: a flat profile of effectiveness, no slope, no gain."""
    return {"effectiveness": 0.1, "gain": 0.0, "substituted_accuracy": table["test_accuracy"]}


def claimed(table, doublings):
    """The paper's claims, with effects of twice the margins and more."""
    best = 0.5 - 0.2 * np.abs(np.log(table["order"] / (table["depth"] / 2)))
    high = table["order"] > 7
    return {
        "reliability": table["reliability"] + 3 * RELIABLY * doublings,
        "decodability": table["decodability"] + 3 * RELIABLY * doublings,
        "overfitting": table["overfitting"] - np.where(high, 0.0, 3 * KEPT * doublings),
        "effectiveness": best,
        "gain": 0.03,
        "substituted_accuracy": table["test_accuracy"] + table["order"].map({4: 0.0, 7: 0.03, 13: 0.03, 25: 0.0}),
    }


def test_without_an_effect_each_verdict_errs_in_at_most_a_twentieth():
    found = verdicts(nothing, 0.01)
    for name in DIRECTED:
        assert share(found[name], AGREES) <= LIMIT, name
    for name in ("1c", "3b"):  # that nothing changes is what they say
        assert share(found[name], DISAGREES) <= LIMIT, name
    assert share(found["2"], AGREES) <= LIMIT
    assert share(found["2"], DISAGREES) <= LIMIT, "a flat profile has no peak"


def test_effects_of_three_margins_are_found_and_hardly_ever_denied():
    found = verdicts(claimed, 0.004)
    for name, told in found.items():
        assert share(told, AGREES) > 0.8, name
        assert share(told, DISAGREES) == 0, name


def test_much_noise_is_no_verdict():
    found = verdicts(nothing, 0.3, trials=60)
    for name in (*DIRECTED, "3b"):
        assert share(found[name], OPEN) > 0.85, name


def test_a_net_of_seven_layers_is_not_asked_where_its_effectiveness_peaks():
    for change in (nothing, claimed):
        assert set(verdicts(change, 0.002, "resnet8", trials=20)["2"]) == {UNMEASURED}
