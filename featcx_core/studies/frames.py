"""A sweep's tidy table as the frames of its report: checked, sorted, averaged over seeds, claims and prediction."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from featcx_core.errors import InputError
from featcx_core.metrics import METRICS, word, yes
from featcx_core.studies import measures
from featcx_core.studies.claims import assess
from featcx_core.studies.measures import spread
from featcx_core.studies.prediction import Prediction, predict_performance
from featcx_core.wording import Row, significance_of, unresolved

IDENTITY = ("target", "arch", "samples", "seed", "order")
SCORES = ("train_accuracy", "test_accuracy", "train_loss", "test_loss", "feature_variance")
TARGET = ("depth", *SCORES, "chosen_order", "gain", "gain_low", "gain_high")
BY_ORDER = {
    section: tuple(metric.name for metric in METRICS if metric.sweep == section)
    for section in dict.fromkeys(metric.sweep for metric in METRICS if metric.sweep)
}
BY_ORDER["overfitting"] += ("shapley_train",)  # whose sign says whether the ratio has a reading
TOLD = [metric for metric in METRICS if metric.told]
VALUES = (
    *TARGET,
    *(metric.name for metric in TOLD if metric.show not in (yes, word)),
    *(f"{metric.name}_{end}" for metric in TOLD if metric.interval for end in ("low", "high")),
)
FLAGS = (*(metric.name for metric in TOLD if metric.show is yes), "chosen")
PERFORMANCE = {"test_accuracy": "test accuracy", "test_loss": "test loss"}
MODELS = {
    "shares": "reliable and unreliable shares",
    "log_samples": "log(samples) alone",
    "quadratic": "a parabola in log(samples)",
    "combined": "shares and log(samples)",
}
OVER = ["group", "samples", "order"]
LAYER = "target.layer"
Notes = dict[str, str]


def frames_of(
    table: pd.DataFrame, fields: Sequence[str], links: Mapping[str, str], confidence: float
) -> tuple[dict[str, pd.DataFrame], Notes]:
    """The report's frames, and why a frame is missing.

    Args:
        table: see `featcx_core.report.sweep.page.write_sweep_report`.
        fields: columns of further varied settings.
        links: target → address of its own report.
        confidence: of intervals over seeds, a fraction.

    Returns:
        sweep (the table, sorted, with `group`), targets (a row a target), a frame an analysis (a row a (group, samples,
        order): mean over seeds and their range, `seeds`), profile (where layers vary), claim_1 to claim_4, mean_reliability,
        distances, peaks, slopes, and prediction and held_out. No frames for a table without rows.
    """
    if table.empty:
        return {}, {}
    sweep = checked(table, fields)
    frames = {"sweep": sweep, "targets": _targets(sweep, links)}
    for name, columns in BY_ORDER.items():
        if sweep[name].notna().any():
            frames[name] = over_seeds(sweep, tuple(column for column in columns if sweep[column].notna().any()))
    if LAYER in fields and sweep[LAYER].nunique() > 1:
        frames["profile"] = profile(sweep, fields, list(dict.fromkeys(table[LAYER])))
    claims = assess(sweep, confidence)
    frames |= {f"claim_{k}": own.reset_index(drop=True) for k, own in claims.groupby(claims["statement"].str[0])}
    frames |= {
        "distances": measures.distances(sweep),
        "slopes": measures.overfitting_slopes(sweep),
        "peaks": measures.peaks(sweep),
    }
    frames["mean_reliability"] = measures.targets_of(sweep, []).assign(
        **{name: _mean_reliability(sweep, name) for name in ("reliability", "decodability")}
    )
    found, notes = _prediction(sweep)
    return frames | found, notes


def checked(table: pd.DataFrame, fields: Sequence[str]) -> pd.DataFrame:
    """The table with numbers as floats, absent analyses as NaN, `group`, and rows in an order of their own.

    Raises:
        InputError: for missing columns or a (target, order) that is there twice.
    """
    needed = [*IDENTITY, *fields]
    if missing := [name for name in needed if name not in table]:
        raise InputError(f"The sweep's table lacks the columns {', '.join(missing)}: add them.")
    sweep = table.reindex(columns=list(dict.fromkeys([*needed, *VALUES, *FLAGS, *table]))).reset_index(drop=True)
    for name in VALUES:
        sweep[name] = pd.to_numeric(sweep[name], errors="coerce").astype(float)
    for name in FLAGS:
        sweep[name] = sweep[name].eq(True).fillna(False).astype(bool)
    for name in ("samples", "seed", "order"):
        sweep[name] = sweep[name].astype(int)
    if (again := sweep.duplicated(["target", "order"])).any():
        names = ", ".join(sorted(set(sweep.loc[again, "target"].astype(str))))
        raise InputError(f"The sweep's table has an order twice: {names}. Give every target a name of its own.")
    if (again := sweep.duplicated([*IDENTITY[1:], *fields])).any():
        names = ", ".join(sorted(set(sweep.loc[again, "target"].astype(str))))
        raise InputError(
            f"Architecture, samples, seed and fields are those of another target: {names}. Name what differs."
        )
    shown = [field for field in fields if sweep[field].nunique(dropna=False) > 1]
    sweep["group"] = [_group(row, shown) for row in sweep.to_dict("records")]
    rank = {group: i for i, group in enumerate(sorted(set(sweep["group"]), key=natural))}
    place = sweep.assign(rank=sweep["group"].map(rank))
    return place.sort_values(["rank", "samples", "seed", "target", "order"], ignore_index=True).drop(columns="rank")


def _group(row: Row, fields: Sequence[str]) -> str:
    """'resnet8 (width 16)': the architecture and each field that varies, by the last part of its path."""
    short = [field.rpartition(".")[2] for field in fields]
    names = [name if short.count(name) == 1 else field for name, field in zip(short, fields, strict=True)]
    settings = ", ".join(f"{name} {row[field]}" for name, field in zip(names, fields, strict=True))
    return f"{row['arch']} ({settings})" if settings else str(row["arch"])


def profile(sweep: pd.DataFrame, fields: Sequence[str], layers: Sequence[str]) -> pd.DataFrame:
    """How complexity grows through a net: a row a (net, layer, order), the layers in the order in which they were given.

    Returns:
        net (architecture, further fields and samples), layer, place (of the layer, from 0), order, significance (what chains
        share, or as published where there is one chain), residual and resolved (share of the seeds that resolve the order,
        NaN where none was judged), each a mean over `seeds`.
    """
    shown = [field for field in fields if field != LAYER and sweep[field].nunique(dropna=False) > 1]
    several = sweep["samples"].nunique() > 1
    rows = sweep.to_dict("records")
    judged = {"yes": 1.0, "no": 0.0, "negative": 0.0}
    resolved = sweep["resolved"] if "resolved" in sweep else pd.Series([None] * len(sweep))
    told = pd.DataFrame(
        {
            "net": [_group(row, shown) + (f", n = {row['samples']:,}" if several else "") for row in rows],
            "layer": sweep[LAYER],
            "place": sweep[LAYER].map(list(layers).index),
            "order": sweep["order"],
            "significance": sweep[significance_of(sweep)],
            "residual": sweep["residual"],
            "resolved": resolved.map(judged).astype(float),
            "seeds": sweep["seed"],
        }
    )
    by = ["net", "place", "layer", "order"]
    means = {name: (name, "mean") for name in ("significance", "residual", "resolved")}
    found = told.groupby(by, sort=False).agg(**means, seeds=("seeds", "nunique")).reset_index()
    return found.sort_values(["net", "place", "order"], ignore_index=True, kind="stable")


def natural(text: str) -> list[tuple[bool, float, str]]:
    """A key that sorts resnet8 before resnet20."""
    parts = re.findall(r"\d+(?:\.\d+)?|\D+", text)
    return [(part[0].isdigit(), float(part) if part[0].isdigit() else 0.0, part) for part in parts]


def over_seeds(sweep: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Means over seeds with the lowest and highest seed; a single seed has its target's own interval, or none.

    Of the over-fitting level only stable values count; `unstable` says how many do not.
    """
    rows = sweep.assign(overfitting=sweep["overfitting"].where(sweep["overfitting_stable"]))
    found = spread(rows, OVER, list(columns))
    sizes = rows.assign(unstable=~rows["overfitting_stable"], own=rows[columns[0]].notna())
    counted = sizes.groupby(OVER, sort=True).agg(seeds=("own", "sum"), unstable=("unstable", "sum")).reset_index()
    found = found.merge(counted, on=OVER)
    if "resolved" in rows:  # a mean is resolved where it is in each of its targets
        open_ = rows.assign(resolved=unresolved(rows)).groupby(OVER)["resolved"].any().reset_index()
        found = found.merge(open_.assign(resolved=np.where(open_["resolved"], "no", None)), on=OVER)  # type: ignore[call-overload]
    single = found["seeds"] < 2
    for name in columns:
        own = [f"{name}_low", f"{name}_high"]
        if set(own) <= set(rows):
            known = found[OVER].merge(
                rows.dropna(subset=name)[[*OVER, *own]].drop_duplicates(OVER), on=OVER, how="left"
            )
            found.loc[single, own] = known.loc[single, own].to_numpy()
        else:
            found.loc[single, own] = math.nan
    if "overfitting" not in columns:
        found = found.drop(columns="unstable")
    first = sweep.drop_duplicates("group")["group"].tolist()
    place = found.assign(rank=found["group"].map(first.index)).sort_values(["rank", "samples", "order"])
    return place.drop(columns="rank").reset_index(drop=True)


def _targets(sweep: pd.DataFrame, links: Mapping[str, str]) -> pd.DataFrame:
    """A row a target, with the accuracy that Φ of its chosen order reaches."""
    found = measures.targets_of(sweep, list(TARGET))
    chosen = sweep[sweep["order"] == sweep["chosen_order"]].set_index("target")["substituted_accuracy"]
    return found.assign(
        substituted_accuracy=found["target"].map(chosen),
        residual_rises=found["target"].map(sweep.groupby("target")["residual_rises"].any()),
        report=[links.get(str(target), "") for target in found["target"]],
    )


def _mean_reliability(sweep: pd.DataFrame, name: str) -> list[float]:
    found = measures.mean_reliability(sweep, name).set_index("target")["value"]
    return [float(found.get(target, math.nan)) for target in sweep["target"].unique()]


def _prediction(sweep: pd.DataFrame) -> tuple[dict[str, pd.DataFrame], Notes]:
    """Test accuracy and loss from the shares of every order, or why they cannot be predicted."""
    shares = ["reliable_share", "unreliable_share"]
    lacking = set(sweep[sweep[shares].isna().any(axis=1)]["target"])
    known = sweep[~sweep["target"].isin(lacking)]
    targets, need = known["target"].nunique(), 2 * sweep["order"].nunique() + 2
    if targets < need:
        left = f" ({len(lacking)} without reliable and unreliable shares left out)" if lacking else ""
        return {}, {
            "prediction": f"It takes {need} targets to fit {need - 2} shares (two an order); there are {targets}{left}: "
            f"add {need - targets} by further sizes, seeds or architectures, or take fewer orders."
        }
    scores, held, notes = [], [], Notes()
    for column, performance in PERFORMANCE.items():
        try:
            found = predict_performance(known, column)
        except InputError as error:
            notes["prediction"] = str(error)
            continue
        scores.append(_scores(found).assign(performance=performance))
        held.append(found.held_out.assign(performance=performance))
    if not scores:
        return {}, notes
    return {"prediction": pd.concat(scores, ignore_index=True), "held_out": pd.concat(held, ignore_index=True)}, {}


def _scores(found: Prediction) -> pd.DataFrame:
    """A row a model: R² of the fit, R² and mean absolute error when held out, and what the shares add to log(samples)."""
    wide = found.scores.pivot(index="model", columns="split", values=["r2", "mae"])
    rows = {
        (f"{split}_{score}"): wide[score, split]
        for split in ("leave_one_out", "by_arch", "by_samples")
        for score in ("r2", "mae")
        if (score, split) in wide
    }
    frame = pd.DataFrame(rows).reindex(["shares", "log_samples", "quadratic", "combined"])
    frame.insert(0, "r2", [found.r2, found.baseline_log_samples.r2, math.nan, math.nan])
    over = [None, found.over_line, found.over_parabola, None]
    for column, part in (("partial_r2", "r2"), ("partial_r2_by_chance", "chance"), ("partial_p", "p")):
        frame[column] = [getattr(partial, part) if partial else math.nan for partial in over]
    told = frame.astype(float).assign(targets=found.rows).rename_axis("model").reset_index()
    return told.assign(predictors=told["model"].map(MODELS))
