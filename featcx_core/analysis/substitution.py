"""Substitution: the disentangler's output Φ^(l) in place of the feature f, and how accurate the head then is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from torch import Tensor, nn

from featcx_core.analysis.bootstrap import bootstrap_weights, interval
from featcx_core.analysis.components import ComponentTable
from featcx_core.nets.split import evaluated
from featcx_core.store.record import Record


class Predictions(NamedTuple):
    """A head's answers on one split, for f (first) and for Φ^(l) of each order.

    Attributes:
        correct: bool (n, 1 + L).
        losses: cross-entropy in nats, float32 (n, 1 + L).
    """

    correct: Tensor
    losses: Tensor


class Gain(NamedTuple):
    """Test accuracy of Φ^(l) less that of f, with a paired bootstrap interval, and McNemar's exact test.

    Attributes:
        won, lost: test images that only Φ^(l), and only f, gets right.
        p: two-sided exact p-value of as many wins as losses (McNemar 1947, doi:10.1007/BF02295996).
    """

    gain: float
    low: float
    high: float
    won: int
    lost: int
    p: float


class Substitution(NamedTuple):
    """Accuracies of Φ^(l), the order chosen on the validation split, and the target's own figures.

    Attributes:
        orders: a row an order: substituted_accuracy and substituted_loss on test, validation_accuracy.
        splits: a row a split: accuracy, loss and rows of f itself.
        chosen_order: the order of highest validation accuracy, the lower of two equals.
        gain: what the chosen order gains on the test split.
        predictions: split → what each answer was.
    """

    orders: pd.DataFrame
    splits: pd.DataFrame
    chosen_order: int
    gain: Gain
    predictions: Mapping[str, Predictions]

    def record(self) -> Record:
        """As a stage keeps it."""
        frames = {
            "substitution": self.orders,
            "substitution_splits": self.splits,
            "gain": pd.DataFrame([self.gain]),
        }
        answers = {f"{split}.{name}": t for split, p in self.predictions.items() for name, t in p._asdict().items()}
        return Record(
            frames, {"predictions": answers}, {"chosen_order": self.chosen_order, "gain": self.gain._asdict()}
        )


@torch.no_grad()
def predict_substituted(table: ComponentTable, head: nn.Module, device: torch.device | str = "cpu") -> Predictions:
    """The head's answers on f and on Φ^(l) = Σ_{l' ≤ l} c^(l'), from one pass over a table."""
    asked, correct, losses = evaluated(head, device), [], []
    for maps, labels in table.stacked(128):
        maps, y = maps.to(device), labels.to(device)
        features = torch.cat([maps.sum(1, keepdim=True), maps[:, :-1].cumsum(1)], 1)
        logits = torch.stack([asked(feature).float() for feature in features.unbind(1)], 1)
        correct.append((logits.argmax(2) == y[:, None]).cpu())
        wanted = y[:, None].expand(logits.shape[:2])
        losses.append(
            F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view(wanted.shape).cpu()
        )
    return Predictions(torch.cat(correct), torch.cat(losses))


def measure_substitution(
    tables: Mapping[str, ComponentTable],
    head: nn.Module,
    *,
    bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Substitution:
    """Accuracy with Φ^(l) for f; the order is chosen on the validation split and read on the test split (METHOD §7).

    Args:
        tables: the components of 'validation', 'test' and any other splits.
        head: feature to logits; a module in training mode is asked as a copy in evaluation mode.
        bootstrap, confidence, seed: draws, coverage and seed of the gain's interval, which resamples test images.

    >>> import torch, featcx_core as fx
    >>> y = torch.arange(40) % 2
    >>> c = torch.nn.functional.one_hot(y, 2).float()[:, None]
    >>> table = fx.ComponentTable.from_tensors(c, -c[:, 0], y)  # order 4 holds the class, the residual takes it away
    >>> found = fx.measure_substitution({"validation": table, "test": table}, torch.nn.Identity(), bootstrap=50)
    >>> found.orders.substituted_accuracy.tolist(), found.gain.gain
    ([1.0], 0.5)
    """
    answers = {split: predict_substituted(table, head, device) for split, table in tables.items()}
    validation, test = answers["validation"].correct.double().mean(0), answers["test"].correct.double().mean(0)
    loss = answers["test"].losses.double().mean(0)
    orders = tables["test"].orders
    frame = pd.DataFrame(
        {
            "order": orders,
            "substituted_accuracy": test[1:].numpy(),
            "substituted_loss": loss[1:].numpy(),
            "validation_accuracy": validation[1:].numpy(),
        }
    )
    splits = pd.DataFrame(
        [
            {
                "split": split,
                "rows": len(a.correct),
                "accuracy": float(a.correct[:, 0].double().mean()),
                "loss": float(a.losses[:, 0].double().mean()),
            }
            for split, a in answers.items()
        ]
    )
    chosen = int(validation[1:].argmax())
    right = answers["test"].correct
    gain = paired_gain(right[:, 0], right[:, 1 + chosen], bootstrap, confidence, seed)
    return Substitution(frame, splits, orders[chosen], gain, answers)


def paired_gain(before: Tensor, after: Tensor, bootstrap: int, confidence: float, seed: int) -> Gain:
    """How many more of the same images are right after than before; both bool (n,)."""
    change = after.double() - before.double()
    draws = bootstrap_weights(len(change), bootstrap, seed).double() @ change / len(change)
    won, lost = int((change > 0).sum()), int((change < 0).sum())
    p = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
    return Gain(float(change.mean()), *interval(draws, confidence), won, lost, p)
