"""featcx_core: how complex are the features that a network has learned, and which of them are worth having?

The method of Ren, Li, Liu and Zhang (ICML 2021, arXiv:2006.15920) in PyTorch, NumPy and Arrow. Names are imported when
they are first used, so that `import featcx_core` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from featcx_core.entry import beside

CONTENTS = {
    "flows.notebook": ["analyze"],  # a network in hand, taken apart in one call
    "notebook.opening": ["open_run"],  # a finished run, the same type
    "notebook.analysis": ["Analysis"],
    "specs": ["RunSpec", "DatasetSpec", "ScheduleSpec"],  # what a run is made of
    "errors": ["InputError"],
    "store.artifacts": ["Store", "ArtifactRef"],  # content-addressed artifacts
    "data.sources": ["load_dataset"],  # digits, MNIST, CIFAR-10, Parquet, folders
    "data.images": [
        "Dataset",
        "FloatDataset",
        "Augmented",
        "balanced_subset",
    ],  # images in memory, splits, augmentation
    "nets.targets": ["TargetNet"],  # nets whose feature is analysed
    "nets.split": ["split_net"],  # any module, cut at a named layer
    "nets.disentangler": ["Disentangler"],  # Φ of any order
    "nets.trunk": ["Trunk"],  # ψ, which several nets' features are read off
    "nets.improved": ["ImprovedNet", "improved_net", "export_network"],  # Φ and the head as a network of its own
    "nets.weights": ["save_network"],  # safetensors and a config, nothing unpickled
    "nets.kinds": ["load_network"],
    "training.fit": ["fit"],  # the one training loop
    "training.teaching": ["train_target", "train_disentangler", "train_trunk"],
    "analysis.components": ["ComponentTable", "decompose", "extract"],  # c^(l) and Δf, in memory or in Parquet
    "analysis.significance": ["measure_significance"],  # Var[c]/Var[f]
    "analysis.reliability": ["fit_cycle", "measure_reliability"],  # what nets of the same task share
    "analysis.decodability": ["measure_decodability"],  # what a linear map reads off another net
    "analysis.substitution": ["measure_substitution"],  # Φ in place of f
    "analysis.images": ["measure_images"],  # of which orders one image's feature is made
    "analysis.comparison": ["compare_networks"],  # two analysed networks, order by order
    "game.games": ["shapley"],  # which components lower the loss, for any number of them, head and loss
    "game.values": ["coalition_losses", "shapley_values", "shapley_weights", "measure_effectiveness"],
    "game.sampling": ["sampled_shapley_values"],  # more than 14 components
    "studies.prediction": ["predict_performance"],  # accuracy from reliable and unreliable shares
}
_HOME = {name: module for module, names in CONTENTS.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"featcx_core has no '{name}'")
    home = _HOME[name]
    return getattr(beside(home) if home.startswith("flows.") else import_module(f"featcx_core.{home}"), name)
