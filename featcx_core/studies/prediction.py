"""Predicts a net's performance from its feature components, beside what its sample count alone predicts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.model_selection import LeaveOneGroupOut, LeaveOneOut, ShuffleSplit

from featcx_core.errors import InputError

Array = NDArray[np.float64]

SHARES = ("reliable_share", "unreliable_share")
CROSS_SEED = ("reliable_cross_seed", "unreliable_cross_seed")
DESCRIPTION = ("target", "arch", "samples", "seed")
GROUPS = ("arch", "samples")


class Published(NamedTuple):
    """The paper's four numbers; `r2` is a fraction, the errors are in the unit of the predicted column."""

    r2: float
    rmse: float
    split_train_mae: float
    split_test_mae: float


class HeldOut(NamedTuple):
    """Scores of predictions for rows that the fit did not see, pooled; `r2` is against the mean of all rows."""

    r2: float
    mae: float


class LogSamplesBaseline(NamedTuple):
    """R² of a line in log(samples), and leave-one-out R² of a parabola in it."""

    r2: float
    leave_one_out_r2: float
    by_arch_r2: float | None
    by_samples_r2: float | None
    quadratic_leave_one_out_r2: float


class Partial(NamedTuple):
    """What the shares add to a baseline, both fitted on all rows: (SSE_base − SSE_both) / SSE_base, and what chance adds.

    Attributes:
        r2: the fraction of the baseline's squared error that the shares remove.
        chance: the mean of the same over permutations of the baseline's residuals (Freedman & Lane 1983,
            doi:10.1080/07350015.1983.10509354): predictors of pure noise remove as much, 0.3 with 25 rows and eight of them.
        p: the part of permutations that remove as much or more.
    """

    r2: float
    chance: float
    p: float


class Combined(NamedTuple):
    """The components' shares and log(samples) together."""

    leave_one_out_r2: float


@dataclass(frozen=True)
class Prediction:
    """What `predict_performance` found; None stands for what the table cannot tell.

    `over_line` and `over_parabola` are what the shares add to a line, or a parabola, in log(samples).

    `leave_one_out` leaves out one cell at a time, the targets of one architecture and sample count: other seeds in it would
    tell the answer. Where there is one cell alone, it leaves out one target.

    `scores` has one row a (model, split) with `r2` and `mae`, and `held_out` one row a (target, model, split) with the
    `measured` and the `predicted` value. The models are `shares`, `log_samples`, `quadratic` and `combined`; the splits
    `leave_one_out`, `by_arch` and `by_samples`.
    """

    rows: int
    predictors: int
    published: Published
    leave_one_out: HeldOut
    by_arch: HeldOut | None
    by_samples: HeldOut | None
    baseline_log_samples: LogSamplesBaseline
    combined: Combined
    over_line: Partial | None
    over_parabola: Partial | None
    scores: pd.DataFrame = field(repr=False, compare=False)
    held_out: pd.DataFrame = field(repr=False, compare=False)

    @property
    def r2(self) -> float:
        """R² of the shares on the rows they were fitted to."""
        return self.published.r2

    @property
    def partial_r2(self) -> float | None:
        """The fraction of the squared error of a line in log(samples) that the shares remove."""
        return self.over_line.r2 if self.over_line else None

    @property
    def rmse(self) -> float:
        """Root mean squared error on the rows that were fitted to, in the unit of the predicted column."""
        return self.published.rmse

    def as_dict(self) -> dict[str, Any]:
        """The object that `featcx predict --json` writes."""
        parts = ("published", "leave_one_out", "by_arch", "by_samples", "baseline_log_samples", "combined")
        told = {name: part._asdict() if (part := getattr(self, name)) is not None else None for name in parts}
        names, line = ("partial_r2", "partial_r2_by_chance", "partial_p"), self.over_line
        added = dict(zip(names, line or (None, None, None), strict=True))
        return {"rows": self.rows, "predictors": self.predictors, **told, **added}


def predict_performance(
    frame: pd.DataFrame,
    target: str = "test_accuracy",
    groups: Sequence[str] = GROUPS,
    splits: int = 1000,
    seed: int = 0,
    orders: Iterable[int] | None = None,
) -> Prediction:
    """Regress the performance of target nets on Var[c^(l),reli]/Var[f] and Var[c^(l),unreli]/Var[f], l in `orders`.

    Ordinary least squares with intercept, one row a target net, as in Ren et al., ICML 2021 (arXiv:2006.15920). The
    paper fits and scores the same rows and splits them at random; since the sample count moves both the shares and the
    accuracy, this also holds out rows, architectures and sample counts, and fits log(samples) for comparison.

    A fit whose rows do not determine it (fewer rows than coefficients, or a column constant within a fold) takes the
    solution of least norm over standardised columns.

    Args:
        frame: one row a (target, order): `target`, `arch`, `samples`, `seed`, `order`, `reliable_share`,
            `unreliable_share` (fractions of Var[f]) and the column to predict, equal in all rows of a target; where it has
            `reliable_cross_seed` and `unreliable_cross_seed` throughout, these are taken for the shares.
        target: the column to predict, `test_accuracy` (a fraction) or `test_loss`; its unit is that of every error.
        groups: which of `arch` and `samples` to leave out, one level at a time; the scores of a group that is not
            named, or has a single level, are None.
        splits: number of random splits into 80% of the rows for the fit and 20% for the test.
        seed: of those splits.
        orders: the orders whose shares are predictors; None takes all in the table.

    Raises:
        InputError: the table lacks columns, targets, orders or finite values, or has columns without variation.

    >>> import numpy as np, pandas as pd, featcx_core as fx
    >>> rng, n = np.random.default_rng(0), 12
    >>> shares = rng.random((n, 2))
    >>> nets = {"target": range(n), "arch": ["a", "b"] * 6, "samples": [100, 200, 300] * 4, "seed": 0, "order": 4}
    >>> frame = pd.DataFrame(nets)
    >>> frame["reliable_share"], frame["unreliable_share"] = shares.T
    >>> frame["test_accuracy"] = 0.5 + 0.3 * shares[:, 0]
    >>> round(fx.predict_performance(frame, splits=10).published.r2, 6)
    1.0
    """
    if unknown := [group for group in groups if group not in GROUPS]:
        raise InputError(f"There is no group {_names(unknown)}: groups can hold 'arch' and 'samples'.")
    if splits < 1:
        raise InputError(f"The number of random splits is {splits}: give at least 1.")
    nets, shares, measured = _pivot(between_chains(frame), target, orders)

    log_samples = _standardise(np.log(nets[["samples"]].to_numpy(dtype=np.float64)))
    parabola = np.hstack([log_samples, _standardise(log_samples**2)])
    combined = np.hstack([shares, log_samples])
    models = {"shares": shares, "log_samples": log_samples, "quadratic": parabola, "combined": combined}
    cells = nets.groupby(["arch", "samples"], observed=True).ngroup()
    alone = LeaveOneOut().split(shares) if cells.nunique() == 1 else LeaveOneGroupOut().split(shares, groups=cells)
    folds = {"leave_one_out": list(alone)}
    for group in groups:
        if nets[group].nunique() > 1:
            codes = pd.factorize(nets[group])[0]
            folds[f"by_{group}"] = list(LeaveOneGroupOut().split(shares, groups=codes))

    scores: dict[tuple[str, str], HeldOut] = {}
    held_out: list[pd.DataFrame] = []
    for model, x in models.items():
        for split, parts in folds.items():
            predicted = np.empty_like(measured)
            for train, test in parts:
                predicted[test] = _predict(x[train], measured[train], x[test])
            scores[model, split] = HeldOut(r2_score(measured, predicted), mean_absolute_error(measured, predicted))
            held_out.append(nets.assign(model=model, split=split, measured=measured, predicted=predicted))

    def r2(model: str, split: str) -> float | None:
        return scores[model, split].r2 if split in folds else None

    fit = _predict(shares, measured, shares)
    line = _predict(log_samples, measured, log_samples)
    return Prediction(
        rows=len(nets),
        predictors=shares.shape[1],
        published=Published(
            r2_score(measured, fit),
            root_mean_squared_error(measured, fit),
            *_random_splits(shares, measured, splits, seed),
        ),
        leave_one_out=scores["shares", "leave_one_out"],
        by_arch=scores.get(("shares", "by_arch")),
        by_samples=scores.get(("shares", "by_samples")),
        baseline_log_samples=LogSamplesBaseline(
            r2_score(measured, line),
            scores["log_samples", "leave_one_out"].r2,
            r2("log_samples", "by_arch"),
            r2("log_samples", "by_samples"),
            scores["quadratic", "leave_one_out"].r2,
        ),
        combined=Combined(scores["combined", "leave_one_out"].r2),
        over_line=_partial(measured, log_samples, shares, seed),
        over_parabola=_partial(measured, parabola, shares, seed),
        scores=pd.DataFrame([(*key, *score) for key, score in scores.items()], columns=["model", "split", "r2", "mae"]),
        held_out=pd.concat(held_out, ignore_index=True),
    )


def between_chains(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with what two chains of disentanglers share of each part as the shares, where it tells that throughout."""
    if not set(CROSS_SEED) <= set(frame) or frame[list(CROSS_SEED)].isna().any(axis=None):
        return frame
    return frame.assign(**{share: frame[column] for share, column in zip(SHARES, CROSS_SEED, strict=True)})


def _pivot(frame: pd.DataFrame, target: str, orders: Iterable[int] | None) -> tuple[pd.DataFrame, Array, Array]:
    """The n targets' descriptions, their (n, 2·orders) standardised shares and their (n,) values to predict."""
    table, chosen = _checked(frame, target, orders)
    by_target = table.groupby("target", observed=True)
    nets = by_target[list(DESCRIPTION[1:])].first().reset_index()
    measured = by_target[target].first().to_numpy(dtype=np.float64)
    wide = table.pivot(index="target", columns="order", values=list(SHARES))
    columns = {(share, order): wide[share, order].to_numpy(dtype=np.float64) for share in SHARES for order in chosen}

    if _constant(measured):
        raise InputError(f"{target!r} is the same for every target, so nothing can be predicted: add other targets.")
    if flat := [f"{share} of order {order}" for (share, order), values in columns.items() if _constant(values)]:
        raise InputError(f"The same for every target: {_names(flat)}. Choose other orders, or add other targets.")
    if len(nets) < len(columns) + 2:
        raise InputError(
            f"{len(nets)} targets are too few for {len(columns)} predictors: "
            f"give at least {len(columns) + 2} targets, or choose fewer orders, such as --orders {chosen[0]}."
        )
    return nets, _standardise(np.column_stack(list(columns.values()))), measured


def _checked(frame: pd.DataFrame, target: str, orders: Iterable[int] | None) -> tuple[pd.DataFrame, list[int]]:
    """The table's needed columns and chosen orders, with numbers as floats and one row for every (target, order)."""
    needed = [*DESCRIPTION, "order", *SHARES]
    if missing := [column for column in needed if column not in frame.columns]:
        raise InputError(f"The table lacks the columns {_names(missing)}: add them.")
    if target in needed or target not in frame.columns:
        others = [str(column) for column in frame.columns if column not in needed]
        raise InputError(f"{target!r} is no column that can be predicted: choose among {_names(others) or 'none'}.")
    if frame.empty:
        raise InputError("The table has no rows: give one for every target and order.")

    table = frame[[*needed, target]].reset_index(drop=True)
    numeric = ["order", "samples", *SHARES, target]
    for name in numeric:
        values = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        table[name] = np.where(np.isfinite(values), values, np.nan)
    if not (table["order"] % 1 == 0).all():
        raise InputError("The column 'order' must hold whole numbers: correct it.")
    known = sorted({int(order) for order in table["order"]})
    chosen = known if orders is None else sorted(set(orders))
    if not chosen or not set(chosen) <= set(known):
        absent = _names(sorted(set(chosen) - set(known)))
        told = f"The table has no order {absent}" if absent else "No order was chosen"
        raise InputError(f"{told}: choose among {_names(known)}.")
    everyone = set(table["target"].dropna())
    table = table[table["order"].isin(chosen)]

    bad = table[["target", "arch", *numeric]].isna()
    if bad.to_numpy().any():
        where = _names(table.loc[bad.any(axis=1), "target"].unique())
        raise InputError(
            f"Missing or not finite: {_names(bad.columns[bad.any()])} of target {where}. "
            "Correct these values, or leave these targets out."
        )
    if not (table["samples"] > 0).all():
        raise InputError("The column 'samples' must be positive, since its logarithm is a baseline: correct it.")
    if (again := table.duplicated(["target", "order"])).any():
        twice = _names(table.loc[again, "target"].unique())
        raise InputError(f"Targets with an order twice: {twice}. Give every net a name of its own in 'target'.")
    has = set(zip(table["target"], table["order"], strict=True))
    if gaps := sorted({(name, order) for name in everyone for order in chosen} - has):
        lacking = _names(f"{order} of {name}" for name, order in gaps)
        raise InputError(f"Orders without a row: {lacking}. Add them, or choose orders that all targets have.")
    varies = table.groupby("target", observed=True)[[*DESCRIPTION[1:], target]].nunique(dropna=False).gt(1).any()
    if varies.any():
        raise InputError(f"Different within a target: {_names(varies.index[varies])}. Give its rows the same value.")
    return table, chosen


def _predict(x: Array, y: Array, at: Array) -> Array:
    """Least squares of y (n,) on x (n, p) with intercept, evaluated at the rows of `at`."""
    centre = x.mean(axis=0)
    left, size, right = np.linalg.svd(x - centre, full_matrices=False)
    # The columns have unit variance over the whole table, so that the cut-off can be absolute: one relative to the
    # largest singular value would take the rounding error of a column that is constant within a fold for a signal.
    kept = size > 1e-10 * np.sqrt(len(x))
    slope = right[kept].T @ (left[:, kept].T @ (y - y.mean()) / size[kept])
    predicted: Array = y.mean() + (at - centre) @ slope
    return predicted


def _random_splits(x: Array, y: Array, splits: int, seed: int) -> tuple[float, float]:
    """Mean absolute error in the fitted 80% and in the other 20% of the rows, averaged over random splits."""
    errors = np.empty((splits, 2))
    for row, (train, test) in zip(errors, ShuffleSplit(splits, test_size=0.2, random_state=seed).split(x), strict=True):
        wrong = np.abs(y - _predict(x[train], y[train], x))
        row[:] = wrong[train].mean(), wrong[test].mean()
    return float(errors[:, 0].mean()), float(errors[:, 1].mean())


def _partial(y: Array, base: Array, added: Array, seed: int, permutations: int = 999) -> Partial | None:
    """What `added` columns explain beyond `base`; None where the base is exact, within rounding."""
    identity = np.eye(len(y))
    left_base, left_both = (
        identity - np.column_stack([_predict(x, unit, x) for unit in identity])
        for x in (base, np.hstack([base, added]))
    )
    residual = left_base @ y
    if np.sum(residual**2) <= 1e-20 * np.sum((y - y.mean()) ** 2):
        return None
    rng = np.random.default_rng(seed)
    shuffled = np.column_stack([residual, *(rng.permutation(residual) for _ in range(permutations))])
    sse_base, sse_both = (np.sum((left @ shuffled) ** 2, axis=0) for left in (left_base, left_both))
    r2 = 1 - sse_both / sse_base
    return Partial(float(r2[0]), float(r2[1:].mean()), float(np.mean(r2 >= r2[0] - 1e-12)))


def _standardise(x: Array) -> Array:
    """Columns with mean 0 and variance 1; zeros where a column is constant."""
    centred = x - x.mean(axis=0)
    flat = [_constant(column) for column in x.T]
    return np.where(flat, 0.0, centred / np.where(flat, 1.0, x.std(axis=0)))


def _constant(values: Array) -> bool:
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def _names(values: Iterable[object]) -> str:
    told = [str(value) for value in values]
    return ", ".join(told[:8]) + (f" and {len(told) - 8} more" if len(told) > 8 else "")
