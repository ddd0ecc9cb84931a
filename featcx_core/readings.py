"""What the tables of one run say, in words: sentences for the report, each number taken from a frame.

A sentence ranks two orders only where their intervals are apart, and speaks of this run alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from featcx_core.comparison import changes
from featcx_core.errors import InputError
from featcx_core.significance import GAP_FLAG
from featcx_core.wording import (
    Frames,
    counts,
    listed,
    number,
    one_sentence,
    percent,
    ranked,
    reached,
    records,
    top_row,
    with_interval,
)

# METHOD.md §8: findings and reference rows.
PAPER = {
    "comparison": "The paper reports that distillation makes features more reliable and more effective, and that compression "
    "touches mostly low orders and leaves reliability alone.",
    "significance": "The paper has most at low orders and little beyond: for ResNet-20 on 2,000 CIFAR-10 images it gives "
    ".372 .299 .101 .031 .017 .016 at orders 4, 7, 13, 25, 49, 97 (other data, nets and training budgets, so compare "
    "shapes, not values).",
    "residuals": "The paper gives one residual an order and none a split: for ResNet-20 on 2,000 CIFAR-10 images it falls "
    "from .585 at order 4 to .117 at order 97.",
    "covariance": "The paper gives no covariances; in its row for ResNet-20 on 2,000 images the significances and the "
    "last residual sum to .953, so there too a part lies between components.",
    "reliability": "The paper gives ratios of .754 .529 .423 .399 .460 .362 at orders 4 to 97 for ResNet-20 on 2,000 "
    "images and no decodability; its ratio depends on where the training of the cycle's maps stops, so expect to differ.",
    "shapley": "The paper states its findings on two ratios of these values, effectiveness and over-fitting level, which "
    "the next sections give.",
    "interactions": "The paper gives no interactions; a loss that levels off draws them below zero even between parts that "
    "have nothing in common, so read which are strongest rather than their sign.",
    "maps": "In the paper's figures simple components show the object's outline, complex ones details and noise.",
    "energy": "The paper gives no such maps.",
    "effectiveness": "In the paper effectiveness peaks at orders of about half the target's depth.",
    "overfitting": "The paper compares training-set sizes, which a single run cannot: there more samples lower the "
    "over-fitting of low orders and not of high ones.",
    "substitution": "The paper gains up to about 5 points, middle orders most (ResNet-20 on 2,000 images: 56.2% to 60.8% "
    "at order 7), with the best order read off the test set and, as here, disentanglers that see more images than the "
    "target does.",
}


def coverage_words(frames: Frames, spec: Mapping[str, Any]) -> str:
    """One sentence: what the intervals cover, and over how many images."""
    analysis = spec.get("analysis", {})
    level = f"{100 * analysis['confidence']:g}% " if "confidence" in analysis else ""
    draws = f" ({analysis['bootstrap']:,} draws)" if "bootstrap" in analysis else ""
    n = ", ".join(f"{rows:,} {split}" for split, rows in counts(frames).items())
    return (
        f"Values in brackets are {level}bootstrap intervals{draws} over images: they cover which images were drawn, not "
        "the training procedure, which takes several seeds, and are not adjusted for the number of orders; "
        f"n = {n or 'an unknown number of'} images."
    )


def summary(frames: Frames, chosen_order: int | None, notes: Mapping[str, str]) -> tuple[str, str, str]:
    """Three sentences: simple against complex, effective and over-fitted orders, substitution."""

    def missing(name: str, noun: str) -> str:
        return one_sentence(f"{noun}: {notes.get(name, 'not computed in this run')}")

    first, second, third = missing("significance", "Significance"), missing("effectiveness", "Effectiveness"), ""
    if "significance" in frames:
        first = _simple_and_complex(frames)
    if "effectiveness" in frames:
        second = f"{_effective(frames).capitalize()}; {_overfitted(frames)}."
    if {"substitution", "substitution_splits"} <= set(frames):
        third = substitution(frames, chosen_order)
    return first, second, third or missing("substitution", "Substitution")


def _simple_and_complex(frames: Frames) -> str:
    rows, explained = records(frames, "significance"), reached(frames["significance"]).to_dict("records")
    left = with_interval(rows[-1], "residual")
    if len(rows) == 1:
        return (
            f"In this run order {rows[0]['order']}, the only one tried, explains {with_interval(explained[0], 'reached')} "
            f"of the feature's variance and leaves {left}."
        )
    half = len(rows) // 2
    below, above = rows[half - 1], [row["order"] for row in rows[half:]]
    return (
        f"In this run {with_interval(explained[half - 1], 'reached')} of the feature's variance is simple (explained up to "
        f"order {below['order']}, the lower {half} of {len(rows)} orders tried), {listed(above)} (complex) "
        f"{'adds' if len(above) == 1 else 'add'} {percent(below['residual'] - rows[-1]['residual'])}, and {left} stays "
        "unexplained."
    )


def _effective(frames: Frames) -> str:
    rows = records(frames, "effectiveness")
    top, tied = top_row(rows, "effectiveness")
    effective = [row["order"] for row in rows if row["effectiveness_low"] > 0]
    if not effective:
        return "no order's effectiveness is told apart from zero"
    return (
        f"{listed(effective)} {'is' if len(effective) == 1 else 'are'} effective (interval above zero), order "
        f"{top['order']} most at {with_interval(top, 'effectiveness', number)}, {ranked(rows, tied)}"
    )


def _overfitted(frames: Frames) -> str:
    """Which orders' over-fitting level lies above or below zero, and where it cannot be told or read."""
    groups: dict[str, list[int]] = {
        f"{verb} at": []
        for verb in ("is above zero", "is below zero", "is not told apart from zero", "is too unstable to read")
    }
    above, below, open_, unstable = groups.values()
    for row in records(frames, "effectiveness"):
        if not row["overfitting_stable"]:
            unstable.append(row["order"])
        elif row["overfitting_low"] > 0:
            above.append(row["order"])
        else:
            (below if row["overfitting_high"] < 0 else open_).append(row["order"])
    parts = [f"{verb} {listed(orders)}" for verb, orders in groups.items() if orders]
    return "over-fitting " + (parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}")


def significance(frames: Frames) -> str:
    """The largest component and what all explain together."""
    rows, last = records(frames, "significance"), reached(frames["significance"]).to_dict("records")[-1]
    top, tied = top_row(rows, "significance")
    return (
        f"In this run the most significant component is that of order {top['order']} with "
        f"{with_interval(top, 'significance')} of Var[f], {ranked(rows, tied)}, and up to order {last['order']} the "
        f"disentanglers explain {with_interval(last, 'reached')} of the feature's variance (the sum of the explained "
        f"increments; the significances sum to {percent(sum(row['significance'] for row in rows))}, since parts covary)."
    )


def residuals(frames: Frames) -> str:
    """The largest gaps between the test residual and those of other splits."""
    frame = frames["splits"]
    if "gap" not in frame:
        return "In this run no test images were analysed, so there is no gap to read."
    parts = []
    for split in ("pool", "seen", "validation"):
        rows = frame[frame["split"] == split].to_dict("records")
        if rows:
            top = max(rows, key=lambda row: float(row["gap"]))
            parts.append(f"{percent(top['gap'])} ({split}, order {top['order']})")
    flagged = "some gaps pass" if bool(frame["gap_flag"].any()) else "no gap passes"
    return f"In this run the test residual exceeds the other splits' by at most {', '.join(parts)}; {flagged} {GAP_FLAG:.0%}."


def covariance(frames: Frames) -> str:
    """The largest covariance between two parts, and the shares of variance and covariance that together are one."""
    frame = frames["covariance"]
    between = frame[frame["a"] != frame["b"]].to_dict("records")
    top = max(between, key=lambda row: abs(float(row["covariance"])))
    own = frame[frame["a"] == frame["b"]].set_index("a")["covariance"]
    residual, between_all = float(own["residual"]), sum(float(row["covariance"]) for row in between)
    names = [f"order {name}" if str(name).isdigit() else f"the {name}" for name in (top["a"], top["b"])]
    return (
        f"In this run the largest covariance between two parts is {percent(top['covariance'])} of Var[f], between "
        f"{names[0]} and {names[1]}; the significances of all orders sum to {percent(float(own.sum()) - residual)}, the "
        f"last residual is {percent(residual)}, twice the covariances between parts sum to {percent(between_all)}, and "
        f"together they are {percent(float(own.sum()) + between_all)} of Var[f]."
    )


def shapley(frames: Frames) -> str:
    """Total loss decrease on seen and test images, and the component with the largest part in it."""
    rows = records(frames, "effectiveness")
    seen, test = (sum(row[f"shapley_{kind}"] for row in rows) for kind in ("train", "test"))
    top, tied = top_row(rows, "shapley_train")
    sampled = ""
    if "shapley_train_sampling" in top:
        worst = max(float(row[f"shapley_{kind}_sampling"]) for row in rows for kind in ("train", "test"))
        sampled = f"; coalitions were sampled, which leaves a standard error of at most {number(worst)} nats an order"
    return (
        f"In this run the components together lower the loss by {number(seen)} nats on seen and {number(test)} nats on "
        f"test images, that of order {top['order']} most with {with_interval(top, 'shapley_train', number)} nats on seen "
        f"images, {ranked(rows, tied)}{sampled}."
    )


def interactions(frames: Frames) -> str:
    """The strongest interaction on seen images, and how many lie clearly above and below zero on each split."""
    rows = records(frames, "interactions")
    if not rows:
        return (
            "In this run no pair of orders was measured: it takes two orders, and above 14 coalitions are only sampled."
        )
    top = max((row for row in rows if row["split"] == "seen"), key=lambda row: abs(float(row["interaction"])))
    parts = []
    for split in ("seen", "test"):
        own = [row for row in rows if row["split"] == split]
        above, below = sum(row["interaction_low"] > 0 for row in own), sum(row["interaction_high"] < 0 for row in own)
        parts.append(f"on {split} images {above} lie above zero and {below} below")
    change = "more" if top["interaction"] > 0 else "less"
    return (
        f"In this run the strongest interaction on seen images is that of {listed([top['a'], top['b']])} with "
        f"{with_interval(top, 'interaction', number)} nats (they lower the loss {change} together than apart), and of "
        f"{len(rows) // 2} pairs {', '.join(parts)}, judged by intervals not adjusted for their number."
    )


def effectiveness(frames: Frames) -> str:
    """Which orders are effective and which most."""
    return f"In this run {_effective(frames)}, in nats of loss per unit of √Var[c]."


def overfitting(frames: Frames) -> str:
    """Where over-fitting is seen, and the highest stable level."""
    stable = [row for row in records(frames, "effectiveness") if row["overfitting_stable"]]
    if not stable:
        return f"In this run {_overfitted(frames)}."
    top, tied = top_row(stable, "overfitting")
    return (
        f"In this run {_overfitted(frames)}; the highest stable level is {with_interval(top, 'overfitting')} at order "
        f"{top['order']}, {ranked(stable, tied)}."
    )


def substitution(frames: Frames, chosen_order: int | None) -> str:
    """What the chosen order gains or loses on test images, beside the error that their number leaves."""
    if chosen_order is None:
        return "In this run no order was chosen for substitution."
    orders = {row["order"]: row for row in records(frames, "substitution")}
    if chosen_order not in orders:
        raise InputError(f"Order {chosen_order} is not in the substitution table; choose among {[*orders]}.")
    own = {row["split"]: row for row in records(frames, "substitution_splits")}
    test, accuracy = own["test"], orders[chosen_order]["substituted_accuracy"]
    gain = f"{100 * (accuracy - test['accuracy']):+.1f}".replace("-", "−")
    return (
        f"In this run order {chosen_order}, chosen on {own['validation']['rows']:,} validation images, changes accuracy by "
        f"{gain} points on {test['rows']:,} test images ({percent(test['accuracy'])} with f, {percent(accuracy)} with Φ)"
        f"{_paired(frames)}."
    )


def _paired(frames: Frames) -> str:
    """The gain over the same images, and that of the control that saw only the target's own samples."""
    words = []
    for name, what in (
        ("gain", "image by image the gain"),
        ("control_gain", "for disentanglers that saw only the target's own images it"),
    ):
        if name in frames:
            row = records(frames, name)[0]
            ends = f"[{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]".replace("-", "−")
            gain = f"{100 * row['gain']:+.1f}".replace("-", "−")
            words.append(f"{what} is {gain} points {ends} (McNemar p = {row['p']:.2g})")
    return "".join(f"; {part}" for part in words)


def comparison(frames: Frames) -> str:
    """What each variant changed, by the adjusted p-values, and claim 5 of the paper."""
    frame = frames["comparison"]
    said = {
        name: [text[0].lower() + text[1:].rstrip(".") for text in changes(frame, name)]
        for name in frame["variant"].unique()
    }
    parts = [f"{name}: {', '.join(sentences)}" for name, sentences in said.items()]
    count = int(frame["adjusted_over"].iloc[0])
    return f"In this run, p-values adjusted over {count} comparisons (Holm), {'; '.join(parts)}."


def reliability(frames: Frames) -> str:
    """The range of the reliability ratio, and where decodability passes the floor of an untrained net."""
    parts = []
    if "reliability" in frames:
        rows = sorted(records(frames, "reliability"), key=lambda row: float(row["reliability"]))
        ends = [f"{with_interval(row, 'reliability', number)} at order {row['order']}" for row in (rows[0], rows[-1])]
        parts.append(f"the reliability ratio runs from {' to '.join(ends)}")
    if "decodability" in frames:
        rows = [row for row in records(frames, "decodability") if row["quantity"] == "component"]
        top, tied = top_row(rows, "decodability")
        above = [row["order"] for row in rows if row["decodability_low"] > row["floor_high"]]
        parts.append(
            f"the most decodable component is that of order {top['order']} ({with_interval(top, 'decodability')}, "
            f"{ranked(rows, tied)}), and decodability lies above the untrained net's floor at "
            f"{listed(above) if above else 'no order'}"
        )
    return f"In this run {'; '.join(parts)}."
