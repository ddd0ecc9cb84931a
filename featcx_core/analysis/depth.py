"""What depth adds that neither training nor width does: when an order is resolved, and the wide control."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from featcx_core.analysis.bootstrap import interval
from featcx_core.analysis.chains import Array, Chains, Figures, cross_seed, gain, gained_share, residual
from featcx_core.analysis.spread import Errors, errors

Rated = dict[str, tuple[Array, Errors]]  # figure → its value at each order, and its errors


def resolve(own: Rated, floor: Rated, confidence: float) -> list[str | None]:
    """`yes`, `no` or `negative` an order, from `cross_seed`, `gain` and `gained_share` of a target and of null targets.

    The rule. *yes*: the cross-seed significance and the gain lie above zero, and the cross-seed significance and the gained
    share above the null targets', each with its whole interval over images, chains and null targets. *negative*: the whole
    interval of the gain lies below zero: the net fits worse than the shallower one trained as long. *no*: all else: at this
    budget and width it cannot be seen, which does not mean that it is not there.

    More layers also train faster, so what they gain on a null target grows with what the first order leaves of it; a target
    leaves more. That is why the floor of the gain is a share of what was left. A null target is a net of the first order, so
    it is no floor for that order, and not needed for it. Without a gain an order can fail, but not pass: it is None where
    its cross-seed significance does not fail.
    """
    known = "gain" in own
    ends = {name: error.interval(value, confidence) for name, (value, error) in own.items()}
    lows = [ends[name][0] for name in ("cross_seed", "gain") if name in own]
    for name in ("cross_seed", "gained_share"):
        if floor and name in own:
            (value, error), (level, floor_error) = own[name], floor[name]
            above = error.minus(floor_error).interval(value - level, confidence)[0]
            lows.append(np.concatenate([ends[name][0][:1], above[1:]]))
    passed, below = np.min(lows, 0) > 0, ends["gain"][1] < 0 if known else np.zeros(len(lows[0]), bool)
    words = {True: "yes" if known else None, False: "no"}
    return ["negative" if no else words[bool(yes)] for yes, no in zip(passed, below, strict=True)]


def chain_frame(found: Chains, nulls: Sequence[Chains], confidence: float) -> pd.DataFrame:
    """A row an order: residual, cross_seed, gain, gained_share with intervals over images and chains, null, resolved.

    null and null_gained_share are the null targets' cross_seed and gained_share.

    What cannot be known (cross_seed of one chain, gain without continued nets, resolved of one chain or without null targets)
    is NaN or None.
    """
    figures = figures_of(found)
    rated = _rated(figures, found.chains - 1)
    frame = pd.DataFrame({"order": found.orders})
    for name in ("residual", "cross_seed", "gain", "gained_share"):
        known = name in rated
        value, error = rated[name] if known else rated["residual"]
        frame[name] = value if known else np.nan
        frame[f"{name}_low"], frame[f"{name}_high"] = error.interval(value, confidence) if known else (np.nan, np.nan)
    frame["cross_seed_variance"] = figures["cross_seed"].chains
    floor = floor_of(nulls) if nulls else {}
    frame["null"] = floor["cross_seed"][0] if floor else np.nan
    frame["null_gained_share"] = floor["gained_share"][0] if "gained_share" in floor else np.nan
    judged = found.chains > 1 and ("gain" in floor or len(found.orders) == 1)
    frame["resolved"] = resolve(rated, floor, confidence) if judged else None
    return frame


def floor_of(nulls: Sequence[Chains]) -> Rated:
    """What J null targets show on average, with the error that it has as a floor for one more.

    With w the mean of their variances over chains and b the variance between them, which holds w, the variance of their mean
    is taken as max(w, b) / J, and max(0, b − w), by how much null targets differ, is added: a target that has nothing beyond
    the first order would be one more draw. One null target gives no b: its floor has the error of its own chains alone.
    """
    each = [figures_of(null) for null in nulls]
    count, figures = len(each), dict[str, Figures]()
    for name in each[0]:
        own = [figures[name] for figures in each]
        values = np.stack([figure.value for figure in own])
        within = np.mean([figure.chains for figure in own], 0)
        between = values.var(0, ddof=1) if count > 1 else within
        spread = np.maximum(within, between) / count + np.maximum(0, between - within)
        figures[name] = Figures(values.mean(0), np.mean([figure.draws for figure in own], 0), spread, values)
    return _rated(figures, max(nulls[0].chains, count) - 1)


def wide_control(found: Chains, wide: Chains, width: int, confidence: float) -> pd.DataFrame:
    """One row: what the highest order of a wider, shallower chain leaves of the feature, held against the highest order.

    Columns: order and width of the wide net, residual Var[f − Φ] / Var[f] and, over the same images, difference: that
    residual less the one of `beside`, the highest order. Intervals are over images and chains; of one chain over images.
    """
    ours, theirs = residual(wide), residual(found)
    parts = {
        "residual": ours,
        "difference": Figures(
            ours.value[-1] - theirs.value, ours.draws[:, -1:] - theirs.draws, ours.chains[-1] + theirs.chains, ours.each
        ),
    }
    row: dict[str, object] = {"order": wide.orders[-1], "width": width, "beside": found.orders[-1]}
    for name, figure in parts.items():
        if wide.chains > 1:
            value, error = _rated({name: figure}, (wide.chains - 1) * (1 + (name == "difference")))[name]
            low, high = (float(end[-1]) for end in error.interval(value, confidence))
        else:
            low, high = interval(figure.draws[:, -1], confidence)
        row |= {name: float(figure.value[-1]), f"{name}_low": low, f"{name}_high": high}
    return pd.DataFrame([row])


def figures_of(found: Chains) -> dict[str, Figures]:
    """All that the chains tell: residual, cross_seed, and where shallower nets were trained on gain and gained_share."""
    known = [residual, cross_seed] + ([gain, gained_share] if found.continued or len(found.orders) == 1 else [])
    return {figure.__name__: figure(found) for figure in known}


def _rated(figures: dict[str, Figures], freedom: int) -> Rated:
    """Each figure with its errors, whose chains' part is moderated over all of them (`spread`)."""
    images = np.stack([figure.draws.var(0, ddof=1) for figure in figures.values()])
    error = errors(images, np.stack([figure.chains for figure in figures.values()]), max(1, freedom))
    each = zip(figures.items(), error.error, error.freedom, strict=True)
    return {name: (figure.value, Errors(e, d)) for (name, figure), e, d in each}
