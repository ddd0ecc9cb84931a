"""Distillation: the loss against its formula and limits, and students that learn."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_softmax
from torch import nn

from featcx_core.data.images import Augmented, Dataset, balanced_subset
from featcx_core.errors import InputError
from featcx_core.nets.targets import TargetNet
from featcx_core.seeds import seeded
from featcx_core.specs import ScheduleSpec
from featcx_core.training.distillation import soft_labels, train_student
from featcx_core.training.teaching import score_target, train_target

SHORT = ScheduleSpec(draws=640, batch=32, lr=2e-3, lr_end=1e-3)
LONG = ScheduleSpec(draws=6400, batch=64, lr=3e-3, lr_end=3e-4)


class Table(nn.Module):
    """Logits that are a parameter: the images do not matter."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images):
        return self.logits


@pytest.fixture
def logits():
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.normal(size=(6, 10)) * 3), torch.from_numpy(rng.normal(size=(6, 10)) * 4)


LABELS, IMAGES = torch.tensor([3, 0, 9, 9, 1, 2]), torch.zeros(6, 1, 8, 8)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("mix", [0.0, 0.3, 0.9, 1.0])
def test_the_loss_is_its_formula(logits, temperature, mix):
    student, teacher = (x.numpy() for x in logits)
    hard = -log_softmax(student, 1)[np.arange(6), LABELS].mean()
    p, q = log_softmax(teacher / temperature, 1), log_softmax(student / temperature, 1)
    soft = (np.exp(p) * (p - q)).sum(1).mean()
    loss = soft_labels(Table(logits[1]), temperature, mix)(Table(logits[0]), IMAGES, LABELS)
    assert loss.item() == pytest.approx((1 - mix) * hard + mix * temperature**2 * soft, rel=1e-4)


def gradient(logits, temperature, mix):
    student = Table(logits[0].clone())
    soft_labels(Table(logits[1]), temperature, mix)(student, IMAGES, LABELS).backward()
    return student.logits.grad


def test_without_a_mix_it_is_cross_entropy(logits):
    given = logits[0].float()
    loss = soft_labels(Table(logits[1]), 4.0, 0.0)(Table(given), IMAGES, LABELS)
    assert loss.item() == F.cross_entropy(given, LABELS).item()


def test_hot_labels_match_logits(logits):
    """T²·KL → Σ_k (z − t)²/2K on logits without their mean (Hinton et al. 2015, §2.1), in value and gradient."""
    student, teacher = (x - x.mean(1, keepdim=True) for x in logits)
    wanted = (student - teacher) / 10 / 6
    errors = [float((gradient(logits, temperature, 1.0) - wanted).abs().max()) for temperature in (50.0, 100.0, 1000.0)]
    assert errors[0] > 1.8 * errors[1]  # of the order 1/T
    assert errors[2] < 1e-3 < wanted.abs().max() / 50
    loss = soft_labels(Table(logits[1]), 50.0, 1.0)(Table(logits[0]), IMAGES, LABELS)
    assert loss.item() == pytest.approx(float((student - teacher).pow(2).sum(1).mean() / 20), rel=0.05)


def test_the_gradient_at_any_temperature(logits):
    """T·(softmax(z/T) − softmax(t/T)), so its size stays when T rises."""
    for temperature in (1.0, 4.0):
        q, p = ((x / temperature).softmax(1) for x in logits)
        expected = temperature * (q - p) / 6
        torch.testing.assert_close(gradient(logits, temperature, 1.0), expected, rtol=1e-4, atol=1e-6)


def test_a_student_that_equals_its_teacher_has_nothing_to_learn(logits):
    both = (logits[1], logits[1])
    assert gradient(both, 4.0, 1.0).abs().max() < 1e-6
    assert soft_labels(Table(both[1]), 4.0, 1.0)(Table(both[0]), IMAGES, LABELS).item() == pytest.approx(0, abs=1e-6)


def test_what_will_not_do(logits):
    for temperature in (0, -1, math.inf, math.nan):
        with pytest.raises(InputError, match=r"temperature = .* will not do; give a number above 0"):
            soft_labels(Table(logits[0]), temperature, 0.5)
    for mix in (-0.1, 1.1, math.nan):
        with pytest.raises(InputError, match=r"mix = .* will not do; give the soft labels' share"):
            soft_labels(Table(logits[0]), 4.0, mix)


@pytest.fixture(scope="module")
def seen(digits):
    return balanced_subset(digits.train_labels, digits.pool, 200, 0)


@pytest.fixture(scope="module")
def teacher(digits):
    torch.manual_seed(1)
    net = TargetNet("resnet8", digits.shape, 10)
    train_target(net, Augmented(digits, digits.pool), LONG)
    return net


def initial(data, seed=7):
    with seeded(seed):
        return TargetNet("resnet8", data.shape, 10)


def test_without_a_mix_a_student_is_the_target(digits, seen, teacher):
    """The same initial weights and batches: to the byte."""
    target, student = initial(digits), initial(digits)
    history = train_target(target, Augmented(digits, seen), SHORT, seed=7)
    result = train_student(student, teacher, Augmented(digits, seen), SHORT, temperature=4.0, mix=0.0, seed=7)
    assert result._asdict() == history
    assert all(torch.equal(value, student.state_dict()[name]) for name, value in target.state_dict().items())


def test_same_seed_same_bytes_and_a_teacher_that_stays(digits, seen, teacher):
    kept, states = copy.deepcopy(teacher.state_dict()), []
    for seed in (7, 7, 8):
        student = initial(digits)
        teacher.train()
        train_student(student, teacher, Augmented(digits, seen), SHORT, seed=seed)
        assert not teacher.training
        assert not student.training
        states.append(student.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not all(torch.equal(value, states[2][name]) for name, value in states[0].items())
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in kept.items())
    assert all(p.grad is None for p in teacher.parameters())


def test_a_student_learns_from_its_teacher_alone(digits, teacher):
    """Labels are shuffled; all that it can learn from is the teacher."""
    shuffled = digits.train_labels[torch.randperm(1400, generator=torch.Generator().manual_seed(0))]
    blind = Dataset(**vars(digits) | {"train_labels": shuffled})
    student = initial(digits)
    train_student(student, teacher, Augmented(blind, digits.pool), LONG, temperature=4.0, mix=1.0, seed=7)
    assert score_target(teacher, digits, digits.pool)["test_accuracy"] > 0.95
    assert score_target(student, digits, digits.pool)["test_accuracy"] > 0.9
    x = digits.normalise(digits.test_images[:9])
    with torch.no_grad():
        torch.testing.assert_close(student.head(student.feature(x)), student(x))


def test_a_teacher_of_other_classes_is_refused(digits, seen):
    other = TargetNet("resnet8", digits.shape, 7)
    with pytest.raises(InputError, match="teacher tells 7 classes apart and the student 10; take a teacher"):
        train_student(initial(digits), other, Augmented(digits, seen), SHORT)
