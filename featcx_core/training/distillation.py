"""Knowledge distillation: a student that learns from a teacher's soft labels beside the true ones (arXiv:1503.02531)."""

from __future__ import annotations

import math
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featcx_core.data.images import Augmented
from featcx_core.errors import InputError
from featcx_core.specs import ScheduleSpec
from featcx_core.training.fit import FitResult, Forward, Loss, Training, fit


def soft_labels(teacher: nn.Module, temperature: float, mix: float) -> Loss:
    """(1 − mix)·CE(z, y) + mix·T²·KL(softmax(t/T) ‖ softmax(z/T)) in nats, z the student's and t the teacher's logits.

    T² keeps the gradient of the soft part at one size whatever T is (Hinton et al. 2015, §2); with mix = 1 and T → ∞ it is
    that of |z − t|²/2K on logits whose mean is taken out (§2.1). The teacher is put in evaluation mode and gets no
    gradient; it sees the student's augmented images.

    Args:
        teacher: images (n, C, H, W) → logits (n, K).
        temperature: T > 0.
        mix: share of the soft part, 0 to 1.

    Raises:
        InputError: for a temperature or mix out of range; when called with a student of another number of classes.
    """
    if not 0 < temperature < math.inf:
        raise InputError(f"temperature = {temperature} will not do; give a number above 0, such as 4.")
    if not 0 <= mix <= 1:
        raise InputError(f"mix = {mix} will not do; give the soft labels' share, from 0 to 1.")
    teacher.eval()

    def loss(forward: Forward, images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = teacher(images).float()
        given = forward(images).float()
        if given.shape != wanted.shape:
            raise InputError(
                f"The teacher tells {wanted.shape[1]} classes apart and the student {given.shape[1]}; "
                "take a teacher that was trained on the student's data set."
            )
        soft, softer = (F.log_softmax(logits / temperature, 1) for logits in (given, wanted))
        divergence = F.kl_div(soft, softer, reduction="batchmean", log_target=True)
        return (1 - mix) * F.cross_entropy(given, labels) + mix * temperature**2 * divergence

    return loss


def train_student(
    student: nn.Module,
    teacher: nn.Module,
    data: Augmented,
    schedule: ScheduleSpec,
    *,
    temperature: float = 4.0,
    mix: float = 0.9,
    **how: Unpack[Training],
) -> FitResult:
    """Trains a student on the target's images by `soft_labels`; the loss curve, by samples drawn.

    With a target's seed, schedule and initial weights the student sees that target's very batches: only the loss differs,
    and with mix = 0 the two end in the same bytes.
    """
    return fit(student, data, soft_labels(teacher.to(data.device), temperature, mix), schedule, **how)
