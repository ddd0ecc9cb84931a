"""What depth adds: floors of several null targets, orders judged without a gain, and the wide control, by definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from featcx_core.analysis.chains import Chains, cross_seed, residual
from featcx_core.analysis.depth import chain_frame, figures_of, floor_of, wide_control
from tests.core.analysis.test_chains import found_of, made


def null(seed: int, false: float = 0.0) -> Chains:
    """A target that has nothing beyond the first order, of which the chains share a false part."""
    return found_of(*made(2, noise=0.1, parts=(1.0, false, 0.0), seed=seed))


def test_a_floor_is_the_mean_of_null_targets_and_as_uncertain_as_they_differ():
    alike, apart = [null(1), null(2)], [null(1), null(2, false=0.4)]
    for nulls in (alike, apart):
        values = [cross_seed(one).value for one in nulls]
        np.testing.assert_allclose(floor_of(nulls)["cross_seed"][0], np.mean(values, 0))
    alone, same, other = (floor_of(nulls)["cross_seed"][1] for nulls in ([null(1)], alike, apart))
    between = np.var([cross_seed(one).value[1] for one in apart], ddof=1)
    assert other.error[1] ** 2 > between / 2  # that of the mean of two at least, however it is moderated
    assert other.error[1] > 3 * max(same.error[1], alone.error[1])


def test_what_one_null_target_shows_by_chance_resolves_nothing():
    """Above one null target, but no further above two than these differ from each other."""
    target = found_of(*made(2, noise=0.03, parts=(1.0, 0.3, 0.0)))
    assert chain_frame(target, [null(1)], 0.95).resolved[1] == "yes"
    assert chain_frame(target, [null(1), null(2, false=0.6)], 0.95).resolved[1] == "no"


def test_what_more_layers_gain_by_training_faster_is_no_depth():
    """Of what is left the deeper net explains a fifth, on the null target as on one that leaves three times as much."""

    def leaving(size: float, seed: int, own: float = 0.0) -> Chains:
        """Order-7 nets find a fifth of what order 4 leaves of f, and a part of their own."""
        rng = torch.Generator().manual_seed(seed)
        easy, late, rest, deep = (s * torch.randn(60, 3, 2, 2, generator=rng) for s in (1, size, 2 * size, own))

        def nets(mean: torch.Tensor) -> list[torch.Tensor]:
            return [mean + size / 10 * torch.randn(mean.shape, generator=rng) for _ in range(2)]

        first, second, third, *before = (
            nets(easy + late * learned + deep * learned) for learned in (0.0, 1.0, 1.0, 0.0, 1.0)
        )
        return found_of(
            easy + late + rest + deep, list(zip(first, second, third, strict=True)), list(zip(*before, strict=True))
        )

    nulls = [leaving(0.1, 1), leaving(0.1, 2)]
    assert chain_frame(leaving(0.3, 3), nulls, 0.95).resolved[1] == "no"
    assert chain_frame(leaving(0.3, 4, own=0.5), nulls, 0.95).resolved[1] == "yes"


def test_without_a_gain_an_order_can_fail_but_not_pass():
    f, phi, _ = made(2, parts=(1.0, 0.6, 0.01))
    frame = chain_frame(found_of(f, phi, []), [null(1)], 0.95)
    assert frame.gain.isna().all()
    assert frame.resolved[:2].isna().all()
    assert frame.resolved[2] == "no"


@pytest.mark.parametrize("chains", [1, 2])
def test_the_wide_control_by_definition(chains):
    deep, wide = (found_of(*made(chains, noise=noise, parts=(1.0, 0.6, 0.2))) for noise in (0.5, 0.1))
    wide = wide._replace(orders=(4, 7, 13))
    row = wide_control(deep, wide, 32, 0.95).iloc[0]
    ours, theirs = residual(wide), residual(deep)
    assert (row["order"], row["width"], row["beside"]) == (13, 32, 13)
    assert row["residual"] == pytest.approx(ours.value[-1])
    assert row["difference"] == pytest.approx(ours.value[-1] - theirs.value[-1])
    for name in ("residual", "difference"):
        assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]
    width = row["difference_high"] - row["difference_low"]
    paired = (ours.draws - theirs.draws)[:, -1].std()
    assert width > 3 * paired  # at least what the images leave, over the same draws
    assert (row["difference_high"] < 0) == (chains == 1 or width < 2 * abs(row["difference"]))


def test_all_that_chains_tell_is_rated():
    assert set(figures_of(null(1))) == {"residual", "cross_seed", "gain", "gained_share"}
    f, phi, _ = made(2)
    assert set(figures_of(found_of(f, phi, []))) == {"residual", "cross_seed"}
