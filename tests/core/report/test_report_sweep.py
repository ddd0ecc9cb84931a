"""A sweep's report: measures and verdicts on sweeps whose answers are known, sentences, the page and its bytes."""

import html
import itertools
import re

import numpy as np
import pandas as pd
import pytest
from scipy.stats import linregress, ttest_1samp

from featcx_core.errors import InputError
from featcx_core.report.sweep import (
    claim_figures as figures_claims,
)
from featcx_core.report.sweep import (
    claim_readings as readings_claims,
)
from featcx_core.report.sweep import (
    figures as figures_sweep,
)
from featcx_core.report.sweep import (
    readings as readings_sweep,
)
from featcx_core.report.sweep.page import write_sweep_report
from featcx_core.studies import measures as claim_measures
from featcx_core.studies.claims import (
    ALL,
    FEW,
    STATEMENTS,
    Estimate,
    assess,
    over_seeds,
    verdict,
)
from featcx_core.studies.frames import checked, frames_of, natural
from featcx_core.studies.judging import AGREES, DISAGREES, OPEN, UNMEASURED, above
from featcx_core.studies.prediction import predict_performance
from tests.made_sweeps import ORDERS, SEEDS, SIZES, made

SPEC = {"dataset": {"source": "digits"}, "analysis": {"confidence": 0.95, "bootstrap": 100}}
NAMES = [statement.name for statement in STATEMENTS]


def verdicts(table, fields=()):
    rows = assess(checked(table, fields), 0.95)
    return rows[rows["group"] == ALL].set_index("statement")["verdict"].to_dict()


def measured(table, statement, fields=()):
    rows = assess(checked(table, fields), 0.95)
    return rows[(rows["statement"] == statement) & (rows["group"] == ALL)].iloc[0]


def write(folder, table, fields=(), failed=None, links=None, spec=SPEC):
    given = {"failed": failed or {}, "links": links or {}, "spec": spec, "provenance": []}
    return write_sweep_report(folder, table, fields=fields, **given)


def body(path):
    """The page without pictures, its sections and texts."""
    return re.sub(r"data:image/svg\+xml;base64,[\w+/=]+", "", path.read_text())


def section(page, anchor):
    found = re.search(rf'<section id="{anchor}">.*?</section>', page, re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", found[0])))


def test_a_sweep_made_for_the_claims_supports_all():
    assert verdicts(made()) == dict.fromkeys(NAMES, AGREES)


def test_a_sweep_made_against_the_claims_contradicts_them():
    found = verdicts(made(sign=-1, moved=0.25))
    against = [name for name in NAMES if name not in ("2", "3b")]  # made alike whatever the sign
    assert {name: found[name] for name in against} == dict.fromkeys(against, DISAGREES)


def test_over_fitting_of_high_orders_that_falls_too_is_against_claim_3():
    table = made()
    high = table["order"] > 7
    table.loc[high, "overfitting"] -= 0.05 * np.log2(table["samples"][high] / 100)
    assert {name: verdicts(table)[name] for name in ("3a", "3b")} == {"3a": AGREES, "3b": DISAGREES}
    frames, _ = frames_of(table, (), {}, 0.95)
    assert readings_claims.verdict(frames, "3")[0] == DISAGREES


def test_a_sweep_of_noise_decides_no_direction():
    found = verdicts(made(sign=0, noise=0.2))
    assert {found[name] for name in ("1a", "1b", "3a", "3b", "4a", "4b")} == {OPEN}


def test_measures_are_those_that_were_put_in():
    table = made(noise=1e-9)
    values = {name: measured(table, name)["value"] for name in NAMES}
    expected = {"1a": 0.02, "1b": 3.0, "1c": 0.0, "3a": -5.0, "3b": 0.0, "4a": 3.0, "4b": 3.0}
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-4)
    assert values["2"] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("archs", "peak", "expected"), [(("resnet20",), 25, DISAGREES), (("resnet32",), 4, DISAGREES)])
def test_a_peak_far_from_half_the_depth_contradicts_claim_2(archs, peak, expected):
    table = made(archs=archs)
    table.loc[table["order"] == peak, ["effectiveness", "effectiveness_low", "effectiveness_high"]] += 1
    row = measured(table, "2")
    assert row["verdict"] == expected
    assert row["value"] == pytest.approx(peak / table["depth"].iloc[0] * 2)
    assert row["value_low"] < row["value"] < row["value_high"], "a peak at the last order is known to half a step"


def test_a_peak_at_the_edge_that_half_the_depth_is_nearest_to_says_nothing():
    found = measured(made(archs=("resnet8",)), "2")
    assert (found["verdict"], found["seeds"]) == (UNMEASURED, 0)
    assert "deeper ones" in found["missing"]
    both = measured(made(archs=("resnet8", "resnet20")), "2")
    assert (both["verdict"], both["targets"]) == (AGREES, len(SIZES) * len(SEEDS))


@pytest.mark.parametrize("depth", [12, 16, 20])
def test_the_peak_between_orders_is_that_of_a_parabola(depth):
    table = made(seeds=(0,), sizes=(100,)).assign(depth=float(depth))
    table["effectiveness"] = 1 - np.log(table["order"] / (depth / 2)) ** 2
    found = claim_measures.peaks(checked(table, ())).iloc[0]
    assert found["top"] == pytest.approx(depth / 2)
    assert found["peak"] in ORDERS
    assert found["hit"]


def test_distances_are_total_variation_and_shift_is_their_difference():
    sweep = checked(made(noise=0.03, moved=0.1), ())
    share = sweep.pivot(index=["samples", "seed"], columns="order", values="significance")
    p = {key: row / row.sum() for key, row in zip(share.index, share.to_numpy(), strict=True)}
    tv = lambda a, b: np.abs(p[a] - p[b]).sum() / 2  # noqa: E731
    across = [tv((100, s), (400, s)) for s in SEEDS]
    between = [tv((n, a), (n, b)) for n in (100, 400) for a, b in itertools.combinations(SEEDS, 2)]
    found = claim_measures.shift(sweep)
    assert found["value"].mean() == pytest.approx(np.mean(across) - np.mean(between))
    rest = [tv((n, 1), (n, 2)) for n in (100, 400)]
    pseudo = across[0] - (3 * np.mean(between) - 2 * np.mean(rest))
    assert found.set_index("seed")["value"][0] == pytest.approx(pseudo)


def test_slopes_are_least_squares_on_log2_of_samples():
    sweep = checked(made(noise=0.05), ())
    targets = claim_measures.mean_reliability(sweep, "reliability")
    own = sweep[sweep["target"] == targets["target"][0]]
    assert targets["value"][0] == pytest.approx(np.average(own["reliability"], weights=own["significance"]))
    for row in claim_measures.reliability_slopes(sweep).to_dict("records"):
        part = targets[targets["seed"] == row["seed"]]
        assert row["value"] == pytest.approx(linregress(np.log2(part["samples"]), part["value"]).slope)


def test_decodability_counts_above_its_floor():
    table = made(noise=1e-9)
    doublings = np.log2(table["samples"] / 100)
    table["decodability_floor"] = 0.2 + 0.05 * doublings
    assert measured(table, "1b")["value"] == pytest.approx(-2, abs=1e-3)


def test_unstable_levels_are_left_out():
    table = made(noise=1e-9)
    wild = (table["order"] == 7) & (table["samples"] == 200)
    table.loc[wild, ["overfitting", "overfitting_stable"]] = [40.0, False]
    assert measured(table, "3a")["value"] == pytest.approx(-5, abs=1e-3)
    frames, _ = frames_of(table, (), {}, 0.95)
    row = frames["overfitting"].set_index(["samples", "order"]).loc[(200, 7)]
    assert (row["unstable"], row["seeds"]) == (3, 0)
    assert np.isnan(row["overfitting"])
    assert "3 of 36 over-fitting levels, at order 7" in readings_sweep.unstable(frames)[0]


@pytest.mark.parametrize("n", [2, 3, 8])
def test_interval_over_seeds_is_students(n):
    values = pd.Series(np.random.default_rng(n).standard_normal(n))
    found = over_seeds(values, 0.9)
    expected = ttest_1samp(values, 0).confidence_interval(0.9)
    assert (found.low, found.high, found.seeds) == pytest.approx((expected.low, expected.high, n))


@pytest.mark.parametrize(
    ("low", "high", "seeds", "expected"),
    [
        (0.1, 0.3, 3, AGREES), (-0.3, -0.1, 3, DISAGREES), (-0.1, 0.3, 9, OPEN), (0.0, 0.3, 3, OPEN),
        (-0.3, 0.3, 3, OPEN), (0.1, 0.3, FEW - 1, OPEN), (float("nan"), float("nan"), 1, OPEN),
        (float("nan"), float("nan"), 0, UNMEASURED),
    ],
)  # fmt: skip
def test_a_verdict_is_no_surer_than_its_interval(low, high, seeds, expected):
    assert verdict(Estimate((low + high) / 2, low, high, seeds), above(0, 0.2)) == expected


def test_a_seed_is_the_unit_not_a_target():
    table = made(archs=("resnet14", "resnet20"), noise=0.01)
    own = assess(checked(table, ()), 0.95)
    own = own[own["statement"] == "4a"].set_index("group")
    gain = table.drop_duplicates("target").groupby("seed")["gain"].mean()
    expected = ttest_1samp(100 * gain, 0).confidence_interval()
    assert own.loc[ALL, ["value_low", "value_high", "seeds"]].tolist() == pytest.approx(
        [expected.low, expected.high, 3]
    )
    assert own.index.tolist() == [ALL, "resnet14", "resnet20"]
    assert own["verdict"].tolist() == [AGREES, "", ""]


@pytest.mark.parametrize("seeds", [(0,), (4, 7)])
def test_too_few_seeds_decide_nothing_and_the_report_says_how_many_to_add(seeds):
    frames, _ = frames_of(made(seeds=seeds), (), {}, 0.95)
    for k in "1234":
        assert readings_claims.verdict(frames, k)[0] == OPEN
        assert "--seeds 0,1,2" in readings_claims.claim(frames, k) or len(seeds) > 1
    if len(seeds) > 1:
        assert "2 seeds bound too little, so add others, e.g. --seeds 0,4,7" in readings_claims.claim(frames, "4")
        assert not frames["claim_1"]["value_low"].isna().any()
    else:
        assert frames["claim_1"]["value_low"].isna().all()
        assert "nan" not in readings_claims.claim(frames, "1")
    assert "too few seeds to decide" in readings_sweep.doubts(frames, {})


def test_one_size_leaves_claims_over_sizes_open():
    frames, _ = frames_of(made(sizes=(200,)), (), {}, 0.95)
    for k in "13":
        assert readings_claims.verdict(frames, k)[0] == UNMEASURED
        assert "there is one size, so add others, e.g. --sizes 100,200,400" in readings_claims.claim(frames, k)
    assert readings_claims.verdict(frames, "4")[0] == AGREES


def test_summary_tells_what_was_decided():
    frames, _ = frames_of(made(sign=-1, moved=0.25), (), {}, 0.95)
    swept, found, doubt = readings_sweep.summary(frames, {"resnet14-n800-s0": "It ran out of memory."}, "digits")
    assert "9 targets on digits: resnet14 with 100, 200 and 400 training samples and seeds 0, 1 and 2" in swept
    accuracy = made(sign=-1, moved=0.25).query("order == 4").groupby("samples")["test_accuracy"].mean()
    assert f"{100 * accuracy[100]:.1f}% at 100 samples and {100 * accuracy[400]:.1f}% at 400 samples" in swept
    assert "agrees with 2 (effectiveness peaks" in found
    assert re.search(r"disagrees with 1a .* and 4b", found)
    assert "one target failed and averages run over the rest" in doubt
    assert all(len(re.findall(r"\.(?=\s|$)", text)) == 1 for text in (swept, found, doubt))


def test_means_over_seeds_with_their_range_and_a_single_seeds_own_interval():
    table = made(noise=0.02)
    frames, _ = frames_of(table, (), {}, 0.95)
    row = frames["significance"].set_index(["samples", "order"]).loc[(200, 13)]
    own = table[(table["samples"] == 200) & (table["order"] == 13)]["significance"]
    expected = [own.mean(), own.min(), own.max(), 3]
    assert row[["significance", "significance_low", "significance_high", "seeds"]].tolist() == pytest.approx(expected)
    single = frames_of(made(seeds=(0,)), (), {}, 0.95)[0]["significance"].iloc[0]
    assert single["significance_high"] - single["significance_low"] == pytest.approx(0.02)
    assert np.isnan(single["residual_low"])


def test_prediction_is_that_of_predict_performance():
    table = made(archs=("resnet14", "resnet20"), sizes=(100, 200, 400), noise=0.02)
    frames, notes = frames_of(table, (), {}, 0.95)
    assert notes == {}
    expected = predict_performance(table)
    row = frames["prediction"].query("performance == 'test accuracy'").set_index("model")
    assert row["leave_one_out_r2"]["shares"] == pytest.approx(expected.leave_one_out.r2)
    assert row["by_arch_r2"]["log_samples"] == pytest.approx(expected.baseline_log_samples.by_arch_r2)
    assert row["partial_r2"]["log_samples"] == pytest.approx(expected.partial_r2)
    assert set(frames["prediction"]["performance"]) == {"test accuracy", "test loss"}
    assert f"Of {expected.rows} targets, leaving out one architecture and size at a time" in readings_sweep.prediction(
        frames
    )


def test_prediction_says_how_many_targets_are_needed():
    lost = ["reliable_share", "unreliable_share"]
    table = made(sizes=(100, 200, 400), seeds=(0, 1, 2))
    table.loc[table["samples"] == 400, lost] = np.nan
    notes = frames_of(table, (), {}, 0.95)[1]
    assert re.search(r"It takes 10 targets .* there are 6 \(3 without .*\): add 4 by", notes["prediction"])


def test_groups_are_sorted_as_people_count_and_named_by_what_varies():
    widths = [{"disentangler.width": 8, "target.layer": "x"}, {"disentangler.width": 16, "target.layer": "x"}]
    table = made(archs=("resnet20", "resnet8"), fields=widths)
    sweep = checked(table, ("disentangler.width", "target.layer"))
    expected = ["resnet8 (width 8)", "resnet8 (width 16)", "resnet20 (width 8)", "resnet20 (width 16)"]
    assert sweep["group"].unique().tolist() == expected
    assert natural("n10.5") > natural("n9")
    assert verdicts(table, ("disentangler.width",))["1a"] == AGREES


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop(columns="seed"), "lacks the columns seed"),
        (lambda t: pd.concat([t, t[:1]]), "an order twice: resnet14-n100-s0"),
        (lambda t: pd.concat([t, t.assign(target=t["target"] + "x")]), "those of another target"),
    ],
)
def test_tables_that_cannot_be_read_are_refused(change, words, tmp_path):
    with pytest.raises(InputError, match=words):
        write(tmp_path, change(made(seeds=(0,))))
    assert not any(tmp_path.iterdir())


def test_figures_draw_every_seed_and_mean():
    frames, _ = frames_of(made(archs=("resnet14", "resnet20"), noise=0.02), (), {}, 0.95)
    figure = figures_sweep.by_order(frames, name="reliability", label="ratio")
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["resnet14", "resnet20"]
    for axis, group in zip(figure.axes, ("resnet14", "resnet20"), strict=True):
        own = frames["reliability"][frames["reliability"]["group"] == group]
        lines = {c.get_label(): c[0].get_ydata() for c in axis.containers}
        for size in SIZES:
            np.testing.assert_allclose(lines[f"{size} samples"], own[own["samples"] == size]["reliability"])
        dots = np.concatenate([line.get_ydata() for line in axis.lines if line.get_alpha() == 0.45])
        assert len(dots) == len(SIZES) * len(SEEDS) * len(ORDERS)
        assert len(axis.collections) >= len(SIZES)
    slopes = figures_claims.overfitting(frames).axes[0].containers
    assert [c.get_label() for c in slopes] == ["resnet14", "resnet20"]


def test_a_grid_of_many_groups_has_a_panel_each():
    archs = ("resnet8", "resnet14", "resnet20", "resnet32", "resnet44")
    frames, _ = frames_of(made(archs=archs, seeds=(0,)), (), {}, 0.95)
    axes = figures_sweep.by_order(frames, name="significance").axes
    assert [axis.get_title(loc="left") for axis in axes] == list(archs)
    assert sum(bool(axis.get_xlabel()) for axis in axes) == figures_sweep.ACROSS


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    table = made(archs=("resnet8", "resnet20"), noise=0.01)
    links = {name: f"../../report/{name}/report.html" for name in table["target"].unique()}
    failed = {"resnet20-n800-s0": "The store is full <disk>."}
    return write(tmp_path_factory.mktemp("sweep"), table, failed=failed, links=links)


def test_failed_targets_stand_above_the_summary(page):
    text = body(page)
    alarm = text.index("The store is full &lt;disk&gt;.")
    assert text.index("<h1>") < alarm < text.index('<div class="summary">')
    assert "18 of 19" in text
    assert "1 failed" in text


def test_every_target_links_to_its_own_report(page):
    found = re.findall(r'<td data-value="([^"]+)"><a href="([^"]+)">([^<]+)</a></td>', body(page))
    assert len(found) == 18
    assert all(name == shown and link == f"../../report/{name}/report.html" for name, link, shown in found)
    assert re.findall(r"https?:", body(page)) == []


def test_page_has_all_sections_verdicts_and_no_nan(page):
    text = body(page)
    anchors = re.findall(r'<section id="([^"]+)">', text)
    by_order = ["significance", "reliability", "decodability", "effectiveness", "overfitting"]
    assert anchors == ["accuracy", *by_order, *(f"claim_{k}" for k in "1234"), "prediction"]
    assert "nan" not in re.sub(r"<(style|script).*?</\1>", "", text, flags=re.DOTALL).lower().split()
    assert "1a, “the reliability ratio rises with samples”: agrees; measured 0.0" in section(text, "claim_1")
    assert text.count("<picture>") == len(anchors)
    assert 'class="note"' not in text


def test_the_same_rows_in_any_order_give_the_same_bytes(page, tmp_path):
    table = made(archs=("resnet8", "resnet20"), noise=0.01).sample(frac=1, random_state=3)
    links = {name: f"../../report/{name}/report.html" for name in table["target"].unique()}
    again = write(tmp_path, table, failed={"resnet20-n800-s0": "The store is full <disk>."}, links=links).parent
    names = sorted(str(path.relative_to(again)) for path in again.rglob("*") if path.is_file())
    assert names == sorted(str(path.relative_to(page.parent)) for path in page.parent.rglob("*") if path.is_file())
    assert {"report.html", "figures/claim_1.png", "tables/sweep.parquet", "tables/reliability.parquet"} <= set(names)
    for name in names:
        assert (again / name).read_bytes() == (page.parent / name).read_bytes(), name


def test_without_exemplary_nets_or_depth_the_rest_is_there(tmp_path):
    table = made(seeds=(0,), sizes=(100, 200))
    lost = ["reliability", "fit", "shrinkage", "reliable_share", "unreliable_share", "depth"]
    lost += [name for name in table if name.startswith("decodability")]
    text = body(write(tmp_path, table.assign(**dict.fromkeys(lost, np.nan))))
    assert "take exemplary nets" in section(text, "reliability")
    assert "it was not measured, which takes exemplary nets" in section(text, "claim_1")
    assert "no depth is known" in section(text, "claim_2")
    assert "It takes 10 targets" in section(text, "prediction")
    assert "reliability was not measured" in text
    assert not (tmp_path / "figures" / "decodability.svg").exists()
    assert (tmp_path / "figures" / "claim_1.svg").exists()


def test_a_sweep_of_which_all_failed_still_makes_a_page(tmp_path):
    text = body(write(tmp_path, pd.DataFrame(), failed={"a": "It broke.", "b": "It broke too."}))
    assert "No target of this sweep on digits could be analysed; 2 failed" in text
    assert "0 of 2" in text


def test_one_target_at_one_order_makes_a_page(tmp_path):
    text = body(write(tmp_path, made(sizes=(200,), seeds=(0,), orders=(4,))))
    assert "one target on digits" in text
    assert "it takes three orders or more" in section(text, "claim_4")


def test_the_limit_of_little_is_drawn_where_the_legend_says():
    frames, _ = frames_of(made(archs=("resnet14", "resnet20"), noise=0.02), (), {}, 0.95)
    axis = figures_claims.reliability(frames).axes[-1]
    seeds = frames["distances"].query("kind == 'seeds'").groupby("group", sort=False)["distance"].mean()
    limits = [line.get_ydata()[0] for line in axis.lines if str(line.get_label()).startswith("'little'")]
    assert limits == pytest.approx((seeds + 0.1).tolist())
    assert {c.get_label() for c in axis.containers} == set(figures_claims.KINDS.values())


def test_a_profile_over_layers_is_the_mean_of_its_seeds(tmp_path):
    """Order 7 takes what order 4 gives up, a tenth a layer: known shares, an unresolved order in brackets."""
    layers = ["late", "early", "middle"]  # as given, not as spelled
    table = made(sizes=(200,), seeds=(0, 1), noise=0.0, fields=[{"target.layer": layer} for layer in layers])
    place = table["target.layer"].map(layers.index)
    moved = 0.1 * place * table["order"].map({4: -1, 7: 1}).fillna(0.0)
    table["cross_seed"] = table["significance"] + moved + 0.01 * table["seed"]
    table["resolved"] = np.where((table["order"] == 25) | ((table["order"] == 13) & (table["seed"] == 0)), "no", "yes")
    frames, _ = frames_of(table, ("target.layer",), {}, 0.95)
    profile = frames["profile"]
    assert profile["layer"].drop_duplicates().tolist() == layers
    assert profile["seeds"].tolist() == [2] * 12
    for row in profile.to_dict("records"):
        own = table[(table["target.layer"] == row["layer"]) & (table["order"] == row["order"])]
        assert row["significance"] == pytest.approx(own["cross_seed"].mean())
        assert row["resolved"] == {4: 1.0, 7: 1.0, 13: 0.5, 25: 0.0}[row["order"]]
    shown = [text.get_text() for text in figures_sweep.profile(frames).axes[0].texts]
    assert shown == [
        f"({100 * value:.0f})" if order == 25 else f"{100 * value:.0f}"
        for order, value in zip(profile["order"], profile["significance"], strict=True)
    ]
    page = write_sweep_report(
        tmp_path, table, fields=("target.layer",), failed={}, links={}, spec={}, provenance=[]
    ).read_text()
    assert "highest at middle" in page
    assert "Where in the net complexity arises" in page


def test_without_layers_there_is_no_profile(tmp_path):
    page = write_sweep_report(tmp_path, made(), fields=(), failed={}, links={}, spec={}, provenance=[]).read_text()
    assert "Where in the net" not in page
