"""Tables to draw and report: a small measured run, a run with everything that must be flagged, and reliability."""

import functools
import itertools

import numpy as np
import pandas as pd
import torch
from torch import nn

from featcx_core.analysis.components import ComponentTable
from featcx_core.analysis.images import measure_images, strip_of
from featcx_core.analysis.significance import measure_significance
from featcx_core.analysis.substitution import measure_substitution
from featcx_core.game.interactions import measure_interactions
from featcx_core.game.values import coalition_losses, measure_effectiveness, shapley_values

ORDERS = (4, 7, 13, 25)
ROWS = {"pool": 90, "validation": 40, "seen": 60, "test": 80}


@functools.cache
def _measured():
    """Random components through the library's own analyses, so that the columns are the real ones."""
    rng = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0, 1.2, 0.8, 0.3])[:, None, None, None]
    head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 5))
    with torch.no_grad():
        head[-1].weight.copy_(3 * torch.eye(5))
        head[-1].bias.zero_()
    tables = {}
    for split, n in ROWS.items():
        labels = torch.arange(n) % 5
        signal = nn.functional.one_hot(labels, 5).float()[:, None, :, None, None]
        parts = scale * (torch.randn(n, 4, 5, 3, 3, generator=rng) + 0.35 * signal)
        rest = 0.4 * torch.randn(n, 5, 3, 3, generator=rng)
        tables[split] = ComponentTable.from_tensors(parts, rest, labels, orders=ORDERS)
    found = measure_significance(tables, bootstrap=100, confidence=0.95, seed=0)
    losses = {split: coalition_losses(tables[split], head) for split in ("seen", "test")}
    values = [shapley_values(table) for table in losses.values()]
    effective = measure_effectiveness(ORDERS, *values, found.moments, confidence=0.95, seed=0)
    substituted = measure_substitution({s: tables[s] for s in ("validation", "seen", "test")}, head)
    single = measure_images(tables["test"], substituted.predictions["test"].losses[:, 0], bootstrap=100)
    pixels = torch.randint(256, (ROWS["test"], 3, 16, 16), generator=rng, dtype=torch.uint8)
    strip = strip_of(single.images, ("cat", "dog", "a lawn mower on a lawn", "bird", "car"), lambda rows: pixels[rows])
    return {
        "significance": found.orders,
        "splits": found.splits,
        "covariance": found.covariance,
        "effectiveness": effective.orders,
        "interactions": measure_interactions(ORDERS, losses, draws=100, confidence=0.95, seed=0),
        "substitution": substituted.orders,
        "substitution_splits": substituted.splits,
        **single.record(strip).frames,
    }


def measured():
    """Frames of a small run, fresh copies."""
    return {name: frame.copy() for name, frame in _measured().items()}


def reliability():
    """Reliability and decodability as a run on MNIST might have them; order 25's ratio is above one."""
    fit, shrinkage = np.array([0.83, 0.69, 0.71, 0.72]), np.array([0.99, 0.98, 0.97, 0.95])
    ratio, component = fit * shrinkage, np.array([0.81, 0.74, 0.90, 1.31])
    orders = pd.DataFrame(
        {
            "order": ORDERS,
            "fit": fit,
            "shrinkage": shrinkage,
            "reliability": ratio,
            "reliability_low": ratio - 0.015,
            "reliability_high": ratio + 0.015,
            "component_ratio": component,
            "reliable_share": [0.13, 0.14, 0.13, 0.03],
            "unreliable_share": [0.03, 0.05, 0.02, 0.01],
            "above_one": component > 1,
        }
    )
    rows = [("component", 4, 0.78, 0.35), ("component", 7, 0.66, 0.2), ("component", 13, 0.41, 0.11)]
    rows += [("component", 25, 0.1, 0.09), ("phi", 4, 0.78, 0.35), ("phi", 7, 0.74, 0.27), ("phi", 13, 0.7, 0.24)]
    rows += [("phi", 25, 0.69, 0.23), ("feature", 0, 0.6, 0.19)]
    frame = pd.DataFrame(rows, columns=["quantity", "order", "decodability", "floor"])
    for name, width in (("decodability", 0.02), ("floor", 0.015)):
        frame[f"{name}_low"], frame[f"{name}_high"] = frame[name] - width, frame[name] + width
    return {"reliability": orders, "decodability": frame}


def wide(low=0.01, high=0.03):
    """A wide control that leaves 2% more than order 25, or what the ends of its interval say."""
    row = {"order": 7, "width": 32, "beside": 25, "residual": 0.14, "residual_low": 0.12, "residual_high": 0.16}
    return {"wide_control": pd.DataFrame([row | {"difference": 0.02, "difference_low": low, "difference_high": high}])}


def troubled():
    """Six orders with a rising residual, gaps over 10%, unstable over-fitting and order 97 without a reading."""
    orders = [4, 7, 13, 25, 49, 97]
    significance = pd.DataFrame(
        {
            "order": orders,
            "blocks": [1, 2, 4, 8, 16, 32],
            "significance": [0.37, 0.30, 0.10, 0.03, 0.017, 0.016],
            "residual": [0.585, 0.276, 0.176, 0.147, 0.155, 0.117],
            "explained": [0.415, 0.309, 0.100, 0.029, -0.008, 0.038],
            "residual_rises": [False, False, False, False, True, False],
        }
    )
    _widen(significance, significance=0.01, residual=0.01, explained=0.01)
    splits = pd.DataFrame(
        [
            {"split": split, "rows": rows, "order": order, "residual": residual * (factor if order > 7 else 1)}
            for split, rows, factor in (
                ("pool", 1000, 0.93),
                ("validation", 400, 1.01),
                ("seen", 200, 0.85),
                ("test", 1000, 1),
            )
            for order, residual in zip(orders, significance["residual"], strict=True)
        ]
    )
    test = splits[splits["split"] == "test"].set_index("order")["residual"]
    splits["gap"] = splits["order"].map(test) / splits["residual"] - 1
    splits["gap_flag"] = splits["gap"] > 0.1
    values = np.diag([0.37, 0.30, 0.10, 0.03, 0.017, 0.016, 0.117])
    values[0, 1] = values[1, 0] = -0.04
    values[1, 2] = values[2, 1] = 0.06
    names = [*map(str, orders), "residual"]
    pairs = [{"a": a, "b": b, "covariance": values[i, j]} for i, a in enumerate(names) for j, b in enumerate(names)]
    effective = pd.DataFrame(
        {
            "order": orders,
            "shapley_train": [0.40, 0.50, 0.60, 0.05, 0.01, -0.02],
            "shapley_test": [0.35, 0.48, 0.50, 0.02, 0.03, -0.01],
            "overfitting_stable": [True, True, True, False, False, False],
        }
    )
    effective["shapley_overfit"] = effective["shapley_train"] - effective["shapley_test"]
    effective["effectiveness"] = effective["shapley_train"] / np.sqrt(4000 * significance["significance"])
    effective["overfitting"] = 1 - effective["shapley_test"] / effective["shapley_train"]
    _widen(
        effective, shapley_train=0.03, shapley_test=0.03, shapley_overfit=0.04, effectiveness=0.001, overfitting=0.05
    )
    effective.loc[3, ["overfitting_low", "overfitting_high"]] = [0.2, 0.9]
    effective.loc[4:, ["overfitting_low", "overfitting_high"]] = np.nan
    pairs_of_orders = [(split, a, b) for split in ("seen", "test") for a, b in itertools.combinations(orders, 2)]
    interactions = pd.DataFrame(pairs_of_orders, columns=["split", "a", "b"])
    interactions["interaction"] = np.linspace(-0.4, 0.1, len(interactions))
    _widen(interactions, interaction=0.05)
    accuracy = [0.57, 0.608, 0.588, 0.581, 0.582, 0.584]
    return {
        "significance": significance,
        "splits": splits,
        "covariance": pd.DataFrame(pairs),
        "effectiveness": effective,
        "interactions": interactions,
        "substitution": pd.DataFrame(
            {
                "order": orders,
                "substituted_accuracy": accuracy,
                "substituted_loss": 1.2,
                "validation_accuracy": [0.58, 0.60, 0.59, 0.585, 0.583, 0.58],
            }
        ),
        "substitution_splits": pd.DataFrame(
            {
                "split": ["validation", "seen", "test"],
                "rows": [400, 200, 1000],
                "accuracy": [0.57, 0.99, 0.562],
                "loss": [1.1, 0.1, 1.3],
            }
        ),
        **{name: frame for name, frame in measured().items() if name in ("images", "image_strip")},
        **_images(orders),
        **reliability(),
    }


def _images(orders):
    """Complexity that goes with the energy rather than with the loss."""
    shares = pd.DataFrame({"order": orders, "image_share": [0.3, 0.3, 0.2, 0.1, 0.06, 0.04]})
    shares["images_explained"] = [0.01, 0.1, 0.3, 0.4, 0.41, 0.5]
    _widen(shares, image_share=0.02, images_explained=0.01)
    ranks = pd.DataFrame([{"images": 1000, "rank_correlation": 0.03, "rank_energy": -0.6, "rank_partial": -0.02}])
    _widen(ranks, rank_correlation=0.06, rank_energy=0.05, rank_partial=0.06)
    return {"image_orders": shares, "image_ranks": ranks}


def _widen(frame, **widths):
    for name, width in widths.items():
        frame[f"{name}_low"], frame[f"{name}_high"] = frame[name] - width, frame[name] + width
