"""What a reader must know before reading a figure, in sentences: functions from frames to flags, none where all is well."""

from __future__ import annotations

from featcx_core.significance import GAP_FLAG, NOT_LEARNED
from featcx_core.wording import Frames, listed, number, percent, records


def rising_residual(frames: Frames) -> list[str]:
    """Orders that fit worse than a shallower one."""
    rows = [row for row in records(frames, "significance") if row["residual_rises"]]
    return [
        f"The residual rises at order {row['order']} ({percent(row['residual'])}): it fits worse than a shallower order, "
        "which is a failure of optimisation, not a finding."
        for row in rows
    ]


def not_learned(frames: Frames) -> list[str]:
    """A feature of which even the deepest order reaches next to nothing."""
    last = records(frames, "significance")[-1]
    if last["residual"] < NOT_LEARNED:
        return []
    return [
        f"Order {last['order']}, the highest, misses {percent(last['residual'])} of the feature: it is not learned at this "
        "budget and width, which does not mean that it is complex."
    ]


def wide_gap(frames: Frames) -> list[str]:
    """Splits whose residual the test residual exceeds by more than the flag's share."""
    frame, found = frames["splits"], list[str]()
    if "gap" not in frame:
        return []
    for split, rows in frame[frame["gap_flag"]].groupby("split", sort=False):
        orders = listed(rows["order"].tolist())
        found.append(
            f"The test residual exceeds that of the {split} images by up to {percent(float(rows['gap'].max()))} ({orders}), "
            f"more than {GAP_FLAG:.0%}; such a gap can pass for over-fitting."
        )
    return found


def above_one(frames: Frames) -> list[str]:
    """Orders where a 'reliable part' varies more than what it is a part of."""
    found = []
    reasons = {
        "reliability": ("Var[Φ reli] / Var[Φ]", "the trunk is trained apart from Φ and may vary more than it"),
        "component_ratio": ("Var[c reli] / Var[c]", "separately trained trunks do not nest"),
    }
    for name, (noun, reason) in reasons.items():
        rows = [row for row in records(frames, "reliability") if row[name] > 1] if "reliability" in frames else []
        if rows:
            top = max(row[name] for row in rows)
            found.append(
                f"{noun} is above 1 at {listed(row['order'] for row in rows)} (up to {number(top)}): {reason}, so read "
                "it as a ratio, not as a share."
            )
    return found


def unstable_overfitting(frames: Frames) -> list[str]:
    """Orders whose over-fitting level cannot be read."""
    rows = [row for row in records(frames, "effectiveness") if not row["overfitting_stable"]]
    low = [row["order"] for row in rows if row["shapley_train"] > 0]
    none = [row["order"] for row in rows if not row["shapley_train"] > 0]
    found = []
    if low:
        found.append(
            f"The over-fitting level is unstable at {listed(low)}: φ(seen) lies within three standard errors of zero, so "
            "the ratio's interval may be unbounded."
        )
    if none:
        found.append(f"The over-fitting level has no reading at {listed(none)}, where φ(seen) is not above zero.")
    return found
