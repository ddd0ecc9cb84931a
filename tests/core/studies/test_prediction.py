"""Performance prediction against closed forms, scikit-learn, and tables whose answer is known."""

import json
import math
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import LeaveOneGroupOut, LeaveOneOut, ShuffleSplit, cross_val_predict

from featcx_core.errors import InputError
from featcx_core.studies.prediction import SHARES, Prediction, predict_performance

ORDERS = (4, 7, 13, 25)
ARCHS = ("resnet8", "resnet14", "resnet20", "resnet32", "resnet44")
SIZES = (200, 500, 1000, 2000, 5000)


def table(performance, seed=0, orders=ORDERS, archs=ARCHS, sizes=SIZES, shares=None):
    """One net an (arch, size); `performance(shares, samples)` gives the accuracies from (n, 2·orders) and (n,)."""
    nets = [(arch, size) for arch in archs for size in sizes]
    if shares is None:
        shares = np.random.default_rng(seed).uniform(0.05, 0.5, (len(nets), 2 * len(orders)))
    accuracy = performance(shares, np.array([size for _, size in nets], dtype=float))
    rows = [
        {
            "target": f"{arch}-{size}",
            "arch": arch,
            "samples": size,
            "seed": 0,
            "order": order,
            "reliable_share": shares[i, k],
            "unreliable_share": shares[i, len(orders) + k],
            "test_accuracy": accuracy[i],
            "test_loss": 2.0 - accuracy[i],
        }
        for i, (arch, size) in enumerate(nets)
        for k, order in enumerate(orders)
    ]
    return pd.DataFrame(rows)


def noisy(shares, samples):
    """A mix of sample count, shares and noise, as a sweep gives."""
    noise = np.random.default_rng(99).normal(0, 0.01, len(samples))
    return 0.1 + 0.07 * np.log(samples) + 0.1 * shares[:, 0] - 0.1 * shares[:, -1] + noise


def wide(frame):
    """The regression's own input, by another way: predictors, log-samples and measured values in order of target."""
    blocks = [frame[frame["order"] == order].sort_values("target") for order in sorted(frame["order"].unique())]
    x = np.column_stack([block[share] for share in SHARES for block in blocks])
    return x, np.log(blocks[0][["samples"]].to_numpy(float)), blocks[0]["test_accuracy"].to_numpy(), blocks[0]


def r2(y, predicted):
    return 1 - np.sum((y - predicted) ** 2) / np.sum((y - y.mean()) ** 2)


def sse(x, y):
    design = np.column_stack([np.ones(len(y)), x])
    return np.sum((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2)


def flat(prediction: Prediction) -> dict[str, float | None]:
    return pd.json_normalize(prediction.as_dict()).iloc[0].to_dict()


def test_exact_linear_table_is_predicted_without_error():
    weights = np.linspace(-0.5, 0.5, 2 * len(ORDERS))
    found = predict_performance(table(lambda shares, samples: 0.4 + shares @ weights))
    assert (found.rows, found.predictors) == (25, 8)
    assert found.r2 == pytest.approx(1)
    for scores in (found.leave_one_out, found.by_arch, found.by_samples):
        assert scores.r2 == pytest.approx(1)
        assert scores.mae == pytest.approx(0, abs=1e-12)
    assert found.published[1:] == pytest.approx((0, 0, 0), abs=1e-12)
    assert found.combined.leave_one_out_r2 == pytest.approx(1)
    assert found.partial_r2 == pytest.approx(1)
    assert found.over_parabola.r2 == pytest.approx(1)


def test_leave_one_out_is_the_hat_matrix_identity():
    frame = table(noisy)
    x, _, y, _ = wide(frame)
    design = np.column_stack([np.ones(len(y)), x])
    hat = design @ np.linalg.pinv(design)
    residuals = (y - hat @ y) / (1 - np.diag(hat))
    found = predict_performance(frame)
    assert found.leave_one_out.mae == pytest.approx(np.abs(residuals).mean(), rel=1e-9)
    assert found.leave_one_out.r2 == pytest.approx(r2(y, y - residuals), rel=1e-9)
    rows = found.held_out.query("model == 'shares' and split == 'leave_one_out'")
    np.testing.assert_allclose(rows["measured"] - rows["predicted"], residuals, atol=1e-12)


def test_every_score_agrees_with_scikit_learn():
    frame = table(noisy)
    x, log_n, y, nets = wide(frame)
    found = predict_performance(frame, splits=40, seed=3)

    fit = LinearRegression().fit(x, y).predict(x)
    assert found.r2 == pytest.approx(r2(y, fit))
    assert found.rmse == pytest.approx(math.sqrt(np.mean((y - fit) ** 2)))
    errors = []
    for train, test in ShuffleSplit(40, test_size=0.2, random_state=3).split(x):
        wrong = np.abs(y - LinearRegression().fit(x[train], y[train]).predict(x))
        errors.append((wrong[train].mean(), wrong[test].mean()))
    assert found.published[2:] == pytest.approx(tuple(np.mean(errors, axis=0)))

    models = {
        "shares": x,
        "log_samples": log_n,
        "quadratic": np.hstack([log_n, log_n**2]),
        "combined": np.hstack([x, log_n]),
    }
    splits = {
        "leave_one_out": (LeaveOneOut(), None),
        "by_arch": (LeaveOneGroupOut(), nets["arch"]),
        "by_samples": (LeaveOneGroupOut(), nets["samples"]),
    }
    scores = found.scores.set_index(["model", "split"])
    assert len(scores) == 12
    for model, design in models.items():
        for split, (folds, groups) in splits.items():
            predicted = cross_val_predict(LinearRegression(), design, y, cv=folds, groups=groups)
            wanted = (r2(y, predicted), np.abs(y - predicted).mean())
            assert tuple(scores.loc[(model, split)]) == pytest.approx(wanted, rel=1e-7), (model, split)
    assert found.by_arch == tuple(scores.loc[("shares", "by_arch")])
    assert found.by_samples == tuple(scores.loc[("shares", "by_samples")])
    assert found.baseline_log_samples == pytest.approx(
        (
            LinearRegression().fit(log_n, y).score(log_n, y),
            *scores.loc["log_samples"].loc[["leave_one_out", "by_arch", "by_samples"], "r2"],
            scores.loc[("quadratic", "leave_one_out"), "r2"],
        )
    )
    assert found.combined.leave_one_out_r2 == scores.loc[("combined", "leave_one_out"), "r2"]


def test_partial_r2_is_its_definition():
    frame = table(noisy)
    x, log_n, y, _ = wide(frame)
    found = predict_performance(frame, splits=1)
    for base, value in ((log_n, found.partial_r2), (np.hstack([log_n, log_n**2]), found.over_parabola.r2)):
        assert value == pytest.approx((sse(base, y) - sse(np.hstack([base, x]), y)) / sse(base, y), rel=1e-8)


def test_what_noise_adds_to_the_baseline_is_chance():
    """Predictors of noise: about p / (n − 2) of the error by chance, and p-values that are uniform."""
    found = [
        predict_performance(
            table(lambda x, n, s=s: np.random.default_rng(s).normal(size=25), s + 100), splits=1
        ).over_line
        for s in range(60)
    ]
    assert np.mean([f.chance for f in found]) == pytest.approx(8 / 23, abs=0.02)
    assert np.mean([f.r2 for f in found]) == pytest.approx(8 / 23, abs=0.06)
    assert np.mean([f.p <= 0.05 for f in found]) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 60)
    told = predict_performance(table(lambda x, n: x[:, 0] + 0.1 * np.log(n)), splits=1).over_line
    assert told.p < 0.01


def test_seeds_of_the_left_out_cell_do_not_tell_its_answer():
    """Accuracy is a cell's own number: its other seeds would know it, other cells do not."""
    frame = pd.concat([table(noisy, seed).assign(seed=seed) for seed in (1, 2, 3)])
    frame["target"] = frame["target"] + "-s" + frame["seed"].astype(str)
    cells = frame.groupby(["arch", "samples"]).ngroup()
    frame["test_accuracy"] = np.random.default_rng(0).normal(size=cells.max() + 1)[cells]
    for share in ("reliable_share", "unreliable_share"):
        frame[share] = frame["test_accuracy"] * frame["order"] + 0.01 * frame[share]
    rows = predict_performance(frame, splits=1).held_out.query("model == 'shares' and split == 'leave_one_out'")
    for (arch, samples), own in rows.groupby(["arch", "samples"]):
        x, _, y, nets = wide(frame)
        inside = ((nets["arch"] == arch) & (nets["samples"] == samples)).to_numpy()
        fit = LinearRegression().fit(x[~inside], y[~inside])
        np.testing.assert_allclose(own["predicted"], fit.predict(x[inside]), atol=1e-6)


def test_pure_noise_scores_below_zero_out_of_sample_though_not_in_sample():
    found = [
        predict_performance(
            table(lambda shares, samples, s=s: np.random.default_rng(s).normal(size=25), s + 100), splits=20
        )
        for s in range(10)
    ]
    assert np.mean([f.r2 for f in found]) == pytest.approx(8 / 24, abs=0.15)  # E[R²] = p / (n − 1)
    for split in ("leave_one_out", "by_arch", "by_samples"):
        assert np.mean([getattr(f, split).r2 for f in found]) < -0.2
    assert np.mean([f.published.split_test_mae - f.published.split_train_mae for f in found]) > 0.2


def test_accuracy_linear_in_log_samples_leaves_nothing_to_the_shares():
    found = predict_performance(table(lambda shares, samples: 0.1 + 0.08 * np.log(samples)), splits=5)
    assert found.baseline_log_samples == pytest.approx((1, 1, 1, 1, 1))
    assert found.combined.leave_one_out_r2 == pytest.approx(1)
    assert found.leave_one_out.r2 < 0.5
    assert found.partial_r2 is None
    assert found.over_parabola is None


def test_accuracy_quadratic_in_log_samples_is_the_parabolas():
    found = predict_performance(table(lambda shares, samples: 0.5 - 0.05 * (np.log(samples) - 7) ** 2), splits=5)
    assert found.baseline_log_samples.quadratic_leave_one_out_r2 == pytest.approx(1)
    assert found.baseline_log_samples.r2 < 0.9
    assert found.partial_r2 is not None
    assert found.over_parabola is None


def test_single_sample_count():
    one_size = {"archs": [f"net{i}" for i in range(12)], "sizes": [500]}
    found = predict_performance(table(lambda x, n: x[:, 0] + np.sin(37 * x[:, 1]), **one_size), splits=50)
    assert found.by_samples is None
    assert found.by_arch == pytest.approx(found.leave_one_out)  # every architecture occurs once
    baseline = found.baseline_log_samples
    assert baseline.by_samples_r2 is None
    assert baseline.r2 == pytest.approx(0)
    assert baseline.leave_one_out_r2 == pytest.approx(1 - (12 / 11) ** 2)  # each row against the mean of the others
    assert found.partial_r2 == pytest.approx(found.r2)
    assert found.combined.leave_one_out_r2 == pytest.approx(found.leave_one_out.r2)
    assert set(found.scores["split"]) == {"leave_one_out", "by_arch"}


def test_single_architecture_and_groups_that_are_not_asked_for():
    alone = {"orders": (4,), "archs": ["resnet8"], "sizes": (100, 200, 300, 500, 900)}
    found = predict_performance(table(noisy, **alone), splits=5)
    assert found.by_arch is None
    assert found.baseline_log_samples.by_arch_r2 is None
    assert found.by_samples == pytest.approx(found.leave_one_out)
    unasked = predict_performance(table(noisy), groups=("arch",), splits=5)
    assert unasked.by_samples is None
    assert unasked.baseline_log_samples.by_samples_r2 is None
    assert unasked.by_arch is not None


def test_a_fold_that_does_not_determine_the_fit_stays_bounded():
    """Two sample counts: with one left out, log(samples) is constant and the baseline is the mean of the others."""
    frame = table(noisy, archs=[f"net{i}" for i in range(10)], sizes=(300, 700))
    found = predict_performance(frame, splits=200)
    rows = found.held_out.query("model == 'log_samples' and split == 'by_samples'")
    means = rows.groupby("samples")["measured"].mean()
    np.testing.assert_allclose(rows["predicted"], rows["samples"].map({300: means[700], 700: means[300]}))
    assert np.isfinite(found.held_out["predicted"]).all()
    assert found.held_out["predicted"].abs().max() < 10


def test_dict_is_the_documented_json():
    told = predict_performance(table(noisy), splits=10).as_dict()
    shape = {name: list(part) if isinstance(part, dict) else None for name, part in told.items()}
    assert shape == {
        "rows": None,
        "predictors": None,
        "published": ["r2", "rmse", "split_train_mae", "split_test_mae"],
        "leave_one_out": ["r2", "mae"],
        "by_arch": ["r2", "mae"],
        "by_samples": ["r2", "mae"],
        "baseline_log_samples": [
            "r2",
            "leave_one_out_r2",
            "by_arch_r2",
            "by_samples_r2",
            "quadratic_leave_one_out_r2",
        ],
        "combined": ["leave_one_out_r2"],
        "partial_r2": None,
        "partial_r2_by_chance": None,
        "partial_p": None,
    }
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    lone = predict_performance(table(noisy, archs=["net"], sizes=range(100, 1100, 100)), splits=10).as_dict()
    assert lone["by_arch"] is None
    assert json.loads(json.dumps(lone, allow_nan=False)) == lone


def test_held_out_frame_is_tidy():
    held_out = predict_performance(table(noisy), splits=1).held_out
    assert list(held_out) == ["target", "arch", "samples", "seed", "model", "split", "measured", "predicted"]
    assert len(held_out) == 25 * 4 * 3
    assert not held_out.duplicated(["target", "model", "split"]).any()
    assert not held_out.isna().any(axis=None)


def test_chosen_orders_are_the_table_cut_to_them():
    frame = table(noisy)
    cut = predict_performance(frame[frame["order"].isin([4, 25])], splits=20)
    frame.loc[frame["order"] == 13, "reliable_share"] = np.nan  # an order that is not used need not be whole
    assert predict_performance(frame, orders=[25, 4], splits=20).as_dict() == cut.as_dict()
    assert cut.predictors == 4


def test_loss_is_predicted_as_well():
    frame = table(noisy)
    loss, accuracy = (predict_performance(frame, target=name, splits=20) for name in ("test_loss", "test_accuracy"))
    assert flat(loss) == pytest.approx(flat(accuracy), rel=1e-7)  # the table's loss is 2 − accuracy


def test_seed_moves_the_random_splits_only():
    frame = table(noisy)
    first, again, other = (predict_performance(frame, splits=20, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.published.split_test_mae != other.published.split_test_mae
    assert first.leave_one_out == other.leave_one_out


def test_paper_sized_table_is_quick():
    frame = table(noisy)
    start = time.process_time()
    predict_performance(frame)
    assert time.process_time() - start < 2


@settings(max_examples=15, deadline=None)
@given(
    share=st.sampled_from(SHARES),
    order=st.sampled_from(ORDERS),
    scale=st.floats(0.01, 100),
    sign=st.sampled_from([-1, 1]),
    offset=st.floats(-10, 10),
    shuffle=st.integers(0, 1000),
)
def test_rescaling_a_predictor_or_shuffling_the_rows_changes_nothing(share, order, scale, sign, offset, shuffle):
    # Two sample counts, so that folds and splits with rank-deficient fits are among those compared.
    frame = table(noisy, sizes=(300, 700))
    before = predict_performance(frame, splits=10)
    chosen = frame["order"] == order
    frame.loc[chosen, share] = offset + sign * scale * frame.loc[chosen, share]
    after = predict_performance(frame.sample(frac=1, random_state=shuffle), splits=10)
    assert flat(after) == pytest.approx(flat(before), rel=1e-6, abs=1e-9)


def change(column, value, row=0):
    def apply(frame):
        frame[column] = frame[column].astype(object)
        frame.loc[row, column] = value
        return frame

    return apply


def flatten(frame):
    frame.loc[frame["order"] == 7, "unreliable_share"] = 0.25
    return frame


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        (lambda frame: frame.drop(columns=["arch", "reliable_share"]), {}, "lacks the columns arch, reliable_share"),
        (lambda frame: frame, {"target": "accuracy"}, "'accuracy'.*choose among test_accuracy, test_loss"),
        (lambda frame: frame, {"target": "samples"}, "'samples'.*choose among"),
        (lambda frame: frame.drop(columns="test_loss"), {"target": "test_loss"}, "choose among test_accuracy"),
        (lambda frame: frame.iloc[:0], {}, "no rows"),
        (lambda frame: frame.drop(index=range(1, 97, 4)), {}, "7 of resnet14-1000, .* and 16 more"),
        (lambda frame: frame.drop(index=1), {}, "without a row: 7 of resnet8-200"),
        (
            lambda frame: frame[(frame["target"] != "resnet8-200") | (frame["order"] == 25)],
            {"orders": [4]},
            "4 of resnet8-2",
        ),
        (lambda frame: frame[frame["samples"] < 1000].iloc[:36], {}, "9 targets are too few for 8 .* at least 10"),
        (flatten, {}, "same for every target: unreliable_share of order 7"),
        (lambda frame: frame.assign(test_accuracy=0.5), {}, "'test_accuracy' is the same for every target"),
        (change("reliable_share", np.nan), {}, "not finite: reliable_share of target resnet8-200"),
        (change("unreliable_share", np.inf, 5), {}, "not finite: unreliable_share of target resnet8-500"),
        (change("test_accuracy", "high"), {}, "not finite: test_accuracy of target resnet8-200"),
        (change("arch", None), {}, "not finite: arch of target resnet8-200"),
        (change("samples", 0), {}, "'samples' must be positive"),
        (change("order", 4.5), {}, "'order' must hold whole numbers"),
        (change("order", 7), {}, "order twice: resnet8-200"),
        (change("test_accuracy", 0.123), {}, "Different within a target: test_accuracy"),
        (lambda frame: frame, {"orders": [4, 97]}, "no order 97: choose among 4, 7, 13, 25"),
        (lambda frame: frame, {"orders": []}, "No order was chosen: choose among 4, 7, 13, 25"),
        (lambda frame: frame, {"groups": ("arch", "colour")}, "no group colour"),
        (lambda frame: frame, {"splits": 0}, "at least 1"),
    ],
)
def test_bad_input_is_told_in_words(spoil, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        predict_performance(spoil(table(noisy)), **arguments)
    told = str(caught.value)
    assert len(told) < 250
    assert told.endswith(".")


def test_fewest_rows_that_are_allowed():
    frame = table(noisy, archs=["resnet8", "resnet20"])
    assert predict_performance(frame, splits=10).rows == 10


def test_the_callers_table_is_left_alone():
    frame = table(noisy)
    copy = frame.copy(deep=True)
    predict_performance(frame, splits=1)
    pd.testing.assert_frame_equal(frame, copy)


@pytest.mark.parametrize("kind", ["category", "string"])
def test_column_types_that_parquet_gives(kind):
    frame = table(noisy)
    typed = frame.astype(
        {"target": kind, "arch": kind, "order": "Int64", "test_accuracy": "Float64", "samples": "int32"}
    )
    assert predict_performance(typed, splits=5).as_dict() == predict_performance(frame, splits=5).as_dict()


def test_what_chains_share_of_the_parts_predicts_where_it_is_known_throughout():
    frame = table(noisy)
    alone = predict_performance(frame, splits=2)
    other = table(noisy, seed=1)
    both = frame.assign(reliable_cross_seed=other["reliable_share"], unreliable_cross_seed=other["unreliable_share"])
    taken = frame.assign(reliable_share=other["reliable_share"], unreliable_share=other["unreliable_share"])
    assert predict_performance(both, splits=2).as_dict() == predict_performance(taken, splits=2).as_dict()
    both.loc[0, "reliable_cross_seed"] = math.nan  # one target of a single chain: then of all as published
    assert predict_performance(both, splits=2).as_dict() == alone.as_dict()
