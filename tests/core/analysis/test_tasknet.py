"""Task-n: nets of known complexity, how well they are learned, and the rank correlation against SciPy."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from featcx_core.analysis.components import ComponentTable
from featcx_core.analysis.significance import measure_significance
from featcx_core.analysis.tasknet import (
    PUBLISHED,
    RankCorrelation,
    TaskNet,
    mean_orders,
    measure_learner,
    measure_weights,
    rank_correlation,
)
from featcx_core.errors import InputError
from featcx_core.report.complexity import figures as figures_complexity
from featcx_core.report.complexity.page import correlations, flags, frames_of, read_depth, write_complexity_report
from featcx_core.report.figure_files import svg
from featcx_core.seeds import seeded
from featcx_core.specs import AnalysisSpec, ComplexitySpec, RunSpec, validate

DEPTHS = (0, 2, 8, 26, 80)


def task_net(n, seed=0, channels=3):
    with seeded(seed):
        return TaskNet(n, channels).eval()


def images(n, channels=3, side=16, seed=1):
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n", DEPTHS)
def test_a_task_net_has_n_relu_layers_and_no_biases(n):
    net = task_net(n)
    called = []
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda *_: called.append(1))
    assert net(images(2, side=32)).shape == (2, 64, 8, 8)
    assert len(called) == sum(isinstance(m, nn.ReLU) for m in net.modules()) == n
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert [m.bias for m in convolutions] == [None] * (n + 2)
    assert {name.rpartition(".")[2] for name, _ in net.named_parameters()} == {"weight"}
    assert [(m.in_channels, m.out_channels, m.kernel_size[0]) for m in convolutions] == [
        (3, 16, 3),
        *[(16, 16, 3)] * n,
        (16, 64, 1),
    ]
    assert not any(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize(("channels", "side", "out"), [(1, 8, 2), (1, 28, 7), (3, 30, 7)])
def test_the_output_is_a_quarter_of_the_image(channels, side, out):
    assert task_net(2, channels=channels)(images(3, channels, side)).shape == (3, 64, out, out)


def test_a_net_without_biases_is_positively_homogeneous():
    net, x = task_net(8), images(3)
    torch.testing.assert_close(net(3 * x), 3 * net(x), rtol=1e-4, atol=1e-4)


def test_weights_are_a_function_of_the_seed():
    a, b, other = task_net(2, 5), task_net(2, 5), task_net(2, 6)
    x = images(2)
    assert torch.equal(a(x), b(x))
    assert not torch.equal(a(x), other(x))


def test_weights_are_kaiming_normal_over_the_fan_in():
    net = task_net(80)
    inner = torch.stack([m.weight for m in net.layers if isinstance(m, nn.Conv2d)][1:-1])
    assert float(inner.std()) == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.01)
    assert abs(float(inner.mean())) < 0.001


def test_rounding_of_bf16_does_not_reach_the_task():
    net, x = task_net(26), images(2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net(x), net(x.float()))
        assert net(x).dtype == torch.float32


def test_fewer_than_no_layers_are_refused():
    with pytest.raises(ValueError, match="0 or more"):
        TaskNet(-1, 3)


@pytest.fixture(scope="module")
def nets():
    """A task and a learner that has part of it, with a constant difference."""
    task = task_net(2)
    other = task_net(8, 3)
    return task, lambda x: 0.8 * task(x) + 0.1 * other(x) + 5.0


def test_r2_is_one_less_the_share_of_variance_that_is_missed(nets):
    task, learner = nets
    x = images(70)
    found = measure_learner(task, learner, x.split(32), len(x))
    with torch.no_grad():
        y, z = (net(x).double().flatten(1).numpy() for net in (task, learner))
    assert found.task_variance == pytest.approx(y.var(0).sum(), rel=1e-4)
    assert found.learner_variance == pytest.approx(z.var(0).sum(), rel=1e-4)
    assert found.r2 == pytest.approx(1 - (y - z).var(0).sum() / y.var(0).sum(), abs=1e-4)
    assert measure_learner(task, task, x.split(32), len(x)).r2 == 1
    constant = measure_learner(task, lambda x: torch.zeros_like(task(x)), x.split(32), len(x))
    assert constant.r2 == pytest.approx(0, abs=1e-6)


def test_weights_are_those_of_stored_components():
    f, phis = task_net(2), {4: task_net(0, 1), 7: task_net(1, 2), 13: task_net(2, 3)}
    x = images(50)
    frame = measure_weights(f, phis, x.split(20), len(x))
    with torch.no_grad():
        steps = [torch.zeros_like(f(x)), *(phi(x) for phi in phis.values()), f(x)]
    maps = torch.stack([b - a for a, b in itertools.pairwise(steps)], 1)
    table = ComponentTable.from_tensors(maps[:, :-1], maps[:, -1], torch.zeros(50), orders=[*phis])
    known = measure_significance({"pool": table}, bootstrap=100, confidence=0.95, seed=0).orders
    np.testing.assert_allclose(frame["variance_ratio"], known["significance"], rtol=1e-4)
    np.testing.assert_allclose(frame["std_ratio"] ** 2, known["significance"], rtol=1e-4)
    np.testing.assert_allclose(frame["residual"], known["residual"], rtol=1e-4)
    assert frame["order"].tolist() == [4, 7, 13]
    assert frame["blocks"].tolist() == [1, 2, 4]


def tidy(shares, seed=0, r2=0.9):
    """Rows of one seed from {n: shares of orders 4, 7, 13}."""
    return pd.DataFrame(
        [
            {
                "n": n,
                "seed": seed,
                "order": order,
                "blocks": (order - 1) // 3,
                "variance_ratio": share,
                "std_ratio": share**0.5,
                "residual": 0.1,
                "rows": 400,
                "learner_r2": r2,
            }
            for n, row in shares.items()
            for order, share in zip((4, 7, 13), row, strict=True)
        ]
    )


def random_frame(seeds, rng, depths=DEPTHS):
    """Random shares, and a different R² a net."""
    parts = [tidy({n: rng.dirichlet([3, 1, 1])}, s, rng.uniform()) for s in range(seeds) for n in depths]
    return pd.concat(parts, ignore_index=True)


def test_the_mean_order_weighs_orders_by_significance():
    found = mean_orders(tidy({0: (1.0, 0.0, 0.0), 8: (0.5, 0.25, 0.25), 80: (0.2, 0.1, 0.1)}))
    np.testing.assert_allclose(found["mean_order"], [4, 7, 7])  # shares need not sum to one
    assert found["n"].tolist() == [0, 8, 80]
    assert found["learner_r2"].tolist() == [0.9] * 3


@pytest.mark.parametrize("column", ["mean_order", "learner_r2"])
@pytest.mark.parametrize("seeds", [5, 8])
def test_rank_correlation_equals_scipy_seed_by_seed(seeds, column):
    frame = random_frame(seeds, np.random.default_rng(seeds))
    found = rank_correlation(frame.sample(frac=1, random_state=1), 2000, 0.95, 0, column)
    nets = mean_orders(frame)
    each = {s: spearmanr(part["n"], part[column]).statistic for s, part in nets.groupby("seed")}
    assert found.seeds == pytest.approx(each)
    assert found.mean == pytest.approx(np.mean(list(each.values())))
    assert found.pooled == pytest.approx(spearmanr(nets["n"], nets[column]).statistic)
    assert min(each.values()) <= found.low <= found.mean <= found.high <= max(each.values())
    spread = np.std(list(each.values())) / np.sqrt(seeds)  # the standard error that resampling seeds has
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.15)


@pytest.mark.parametrize("sign", [1, -1])
def test_rank_correlation_of_perfect_order(sign):
    rows = {n: (1.0, 0.1 + sign * i * 0.02, 0.1) for i, n in enumerate(DEPTHS)}
    frame = pd.concat([tidy(rows, s) for s in range(5)])
    found = rank_correlation(frame, 100, 0.95, 0)
    assert (found.mean, found.low, found.high) == pytest.approx((sign,) * 3)
    assert found.pooled == pytest.approx(sign, abs=0.05)  # with ties between seeds


def test_rank_correlation_of_one_seed_has_no_interval():
    found = rank_correlation(random_frame(1, np.random.default_rng(0)), 100, 0.95, 0)
    assert np.isfinite(found.mean)
    assert np.isnan([found.low, found.high]).all()


def test_rank_correlation_is_a_function_of_its_seed():
    frame = random_frame(6, np.random.default_rng(4))
    assert rank_correlation(frame, 100, 0.95, 1) == rank_correlation(frame, 100, 0.95, 1)
    assert rank_correlation(frame, 100, 0.95, 1) != rank_correlation(frame, 100, 0.95, 2)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.2, 0.9, "higher orders as task nets deepen, as expected"),
        (-0.9, -0.2, "against expectation"),
        (-0.2, 0.5, "not told apart from zero"),
        (float("nan"), float("nan"), "no interval"),
    ],
)
def test_the_report_tells_whatever_the_correlation_is(low, high, words):
    frames = frames_of([tidy(dict.fromkeys(DEPTHS, (0.9, 0.1, 0.02)), s) for s in range(5)])
    found = RankCorrelation((low + high) / 2, low, high, 0.1, dict.fromkeys(range(5), 0.1))
    assert words in read_depth(frames, {"mean_order": found})


def test_flags_tell_what_was_not_learned_or_not_fitted():
    good = [tidy({n: (0.9, 0.1, 0.02)}, s) for n in (0, 2) for s in range(5)]
    assert flags(frames_of(good)) == []
    (few,) = flags(frames_of(good[:2]))
    assert "2 seeds" in few
    (poor,) = flags(frames_of([*good, *(tidy({80: (0.9, 0.1, 0.02)}, s, r2=-0.3) for s in range(5))]))
    assert "n = 80 (−0.300)" in poor
    (wild,) = flags(frames_of([*good, *(tidy({26: (9.0, 4.0, 0.02)}, s) for s in range(5))]))
    assert "n = 26 a component varies more" in wild


@pytest.mark.parametrize(("seeds", "depths"), [(5, DEPTHS), (1, (0, 1)), (2, (1, 2)), (2, (0, *range(3, 12)))])
def test_page_figures_and_tables_are_there_for_any_depths_and_seeds(tmp_path, seeds, depths):
    tables = [part for _, part in random_frame(seeds, np.random.default_rng(2), depths).groupby(["n", "seed"])]
    frames, settings = frames_of(tables), AnalysisSpec(bootstrap=100)
    found = correlations(frames["tasks"], settings, 0)
    spec = RunSpec(analysis=settings).model_dump(mode="json")
    for folder in ("a", "b"):
        write_complexity_report(tmp_path / folder, frames, found, spec=spec, provenance=[])
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 1 + 2 * 3 + 3
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    page = (tmp_path / "a" / "report.html").read_text()
    assert ">nan" not in page
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a" / "tables" / "tasks.parquet"), frames["tasks"])
    assert frames["tasks"]["published_std_ratio"].notna().sum() == 3 * seeds * len(set(depths) & set(PUBLISHED))


def test_published_ratios_stand_beside_those_of_the_run():
    frames = frames_of([tidy({0: (0.8, 0.1, 0.05), 2: (0.8, 0.1, 0.05), 80: (0.5, 0.3, 0.1)}, s) for s in range(2)])
    own, published = figures_complexity.weights(frames).axes
    drawn = {line.get_marker(): line.get_ydata().tolist() for line in published.lines}
    assert drawn == {"o": list(PUBLISHED[0].values()), "^": list(PUBLISHED[80].values())}
    lines = {c.get_label(): c[0].get_ydata() for c in own.containers}
    np.testing.assert_allclose(lines["n = 80"], np.sqrt([0.5, 0.3, 0.1]))
    assert [tick.get_text() for tick in own.get_xticklabels()] == ["4", "7", "13", "25", "49"]
    assert svg(figures_complexity.depth(frames))


@pytest.mark.parametrize(
    "values",
    [{"depths": (3,)}, {"depths": (2, 2)}, {"depths": (8, 2)}, {"depths": (-1, 2)}, {"seeds": ()}, {"seeds": (1, 1)}],
)
def test_settings_that_make_no_check_are_refused(values):
    with pytest.raises(InputError, match="give at least"):
        validate({"complexity": values})
    assert ComplexitySpec().depths == DEPTHS
