"""featcx_core: how complex are the features that a network has learned, and which of them are worth having?

The method of Ren, Li, Liu and Zhang (ICML 2021, arXiv:2006.15920) in PyTorch, NumPy and Arrow. Names are imported when
they are first used, so that `import featcx_core` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

CONTENTS = {
    "specs": ["RunSpec", "DatasetSpec", "ScheduleSpec"],  # what a run is made of
    "sources": ["load_dataset"],  # digits, MNIST, CIFAR-10, Parquet, folders
    "data": ["Dataset", "Augmented", "balanced_subset"],  # images in memory, splits, augmentation
    "targets": ["TargetNet", "train_target"],  # nets whose feature is analysed
    "split": ["split_net"],  # any module, cut at a named layer
    "fit": ["fit"],  # the one training loop
    "disentangler": ["Disentangler", "train_disentangler"],  # Φ of any order
    "components": ["ComponentTable", "decompose", "extract"],  # c^(l) and Δf, in memory or in Parquet
    "significance": ["measure_significance"],  # Var[c]/Var[f]
    "shapley": ["coalition_losses", "shapley_values", "shapley_weights", "measure_effectiveness"],
    "shapley_sampling": ["sampled_shapley_values"],  # more than 14 components
    "substitution": ["measure_substitution"],  # Φ in place of f
    "reliability": ["Trunk", "fit_cycle", "measure_reliability"],  # what nets of the same task share
    "decodability": ["measure_decodability"],  # what a linear map reads off another net
    "prediction": ["predict_performance"],  # accuracy from reliable and unreliable shares
    "export": ["ImprovedNet", "improved_net", "export_network"],  # Φ and the head as a network of its own
    "comparison": ["compare_networks"],  # two analysed networks, order by order
    "networks": ["save_network"],  # safetensors and a config, nothing unpickled
    "kinds": ["load_network"],
    "store": ["Store", "ArtifactRef"],  # content-addressed artifacts
    "errors": ["InputError"],
}
_HOME = {name: module for module, names in CONTENTS.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"featcx_core has no '{name}'")
    return getattr(import_module(f"featcx_core.{_HOME[name]}"), name)
