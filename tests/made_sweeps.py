"""Sweeps made so that what the report must say is known: tables as a sweep's flow hands them over."""

import numpy as np
import pandas as pd

ORDERS = (4, 7, 13, 25)
SIZES, SEEDS = (100, 200, 400), (0, 1, 2)
DEPTHS = {"resnet8": 6.0, "resnet14": 12.0, "resnet20": 18.0, "resnet32": 30.0, "resnet44": 42.0}
SHARES = np.array([0.55, 0.3, 0.1, 0.03])


def made(sizes=SIZES, seeds=SEEDS, archs=("resnet14",), orders=ORDERS, sign=1, noise=0.002, moved=0.0, fields=None):
    """A row a (target, order); what changes with a doubling of samples changes by the same amount each time.

    Reliability rises by `sign`·.02 and decodability by `sign`·.03 a doubling; over-fitting falls by `sign`·.05 at the lower
    half of the orders and stays elsewhere; `moved` is the weight that goes from the first order to the second from the
    smallest to the largest size; Φ gains `sign`·1, 3, 2, … points, .5 more or less at the ends; effectiveness peaks at the
    tested order nearest to half the depth.
    """
    rng, rows = np.random.default_rng(0), []
    half = (len(orders) + 1) // 2
    for arch in archs:
        for setting in fields or [{}]:
            for size in sizes:
                doublings = np.log2(size / sizes[0])
                part = doublings / max(1, np.log2(sizes[-1] / sizes[0]))
                for seed in seeds:
                    name = "-".join([arch, f"n{size}", f"s{seed}", *map(str, setting.values())])
                    shake = lambda: noise * rng.standard_normal(len(orders))  # noqa: E731
                    share = SHARES[: len(orders)] + part * moved * np.array([-1, 1, 0, 0])[: len(orders)] + shake()
                    peak = np.abs(np.log(np.array(orders) / (DEPTHS[arch] / 2)))
                    accuracy = 0.8 + 0.03 * doublings + noise * rng.standard_normal()
                    gain = sign * np.array([0.0, 0.03, 0.02, -0.01])[: len(orders)] + shake()
                    over = 0.3 - sign * 0.05 * doublings * (np.arange(len(orders)) < half) + shake()
                    frame = pd.DataFrame(
                        {
                            **{"target": name, "arch": arch, "samples": size, "seed": seed, "depth": DEPTHS[arch]},
                            **setting,
                            "order": orders,
                            "blocks": [(order - 1) // 3 for order in orders],
                            "significance": share,
                            "residual": 1 - 0.9 * np.cumsum(share),
                            "residual_rises": False,
                            "reliability": 0.5 + sign * 0.02 * doublings + shake(),
                            "fit": 0.52,
                            "shrinkage": 0.97,
                            "effectiveness": 0.1 - 0.02 * peak + 0.1 * shake(),
                            "overfitting": over,
                            "overfitting_stable": True,
                            "shapley_train": 0.4,
                            "shapley_overfit": 0.4 * over,
                            "substituted_accuracy": accuracy + gain,
                            "decodability": 0.6 + sign * 0.03 * doublings + shake(),
                            "decodability_floor": 0.2,
                            "reliable_share": 0.5 * share + 0.01 * shake(),
                            "unreliable_share": 0.4 * share + 0.01 * shake(),
                            **{"train_accuracy": 0.99, "test_accuracy": accuracy, "train_loss": 0.1},
                            **{"test_loss": 1.2 - accuracy, "feature_variance": 3.0},
                        }
                    )
                    for column, width in (
                        ("significance", 0.01),
                        ("effectiveness", 0.001),
                        ("overfitting", 0.05),
                        ("decodability", 0.02),
                    ):
                        frame[f"{column}_low"], frame[f"{column}_high"] = frame[column] - width, frame[column] + width
                    chosen = orders[min(1, len(orders) - 1)]
                    own = float(gain[orders.index(chosen)])
                    rows.append(
                        frame.assign(chosen_order=chosen, chosen=frame["order"] == chosen).assign(
                            gain=own, gain_low=own - 0.01, gain_high=own + 0.01
                        )
                    )
    return pd.concat(rows, ignore_index=True)
