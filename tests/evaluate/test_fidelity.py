"""Fidelity agrees with formulae and libraries that are not ours."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.classification import MulticlassCalibrationError

from hellods.evaluate.fidelity import TEMPERATURES, fidelity

CLASSES = 7


def logits(seed: int, views: int = 400, size: float = 2.0) -> Tensor:
    return size * torch.randn(views, CLASSES, generator=torch.Generator().manual_seed(seed))


def truth(views: int = 400) -> Tensor:
    return F.one_hot(torch.arange(views) % CLASSES, CLASSES).float()


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_kl_is_of_the_teacher_from_the_labels_in_nats(temperature: int) -> None:
    ours, theirs = logits(0), logits(1)
    total = 0.0
    for mine, other in zip(ours.double().tolist(), theirs.double().tolist(), strict=True):
        p, q = (
            [math.exp(x / temperature) / sum(math.exp(y / temperature) for y in row) for x in row]
            for row in (other, mine)
        )
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert fidelity(ours, theirs, truth())["kl"][str(temperature)] == pytest.approx(total / len(ours), abs=2e-6)


@pytest.mark.parametrize("size", [0.1, 2.0, 20.0])
def test_calibration_error_is_torchmetrics(size: float) -> None:
    labels, targets = logits(2, size=size), truth()
    labels = labels + 2 * size * targets * (torch.arange(len(labels)) % 3 > 0)[:, None]
    metric = MulticlassCalibrationError(CLASSES, n_bins=15, norm="l1")
    expected = metric(labels.softmax(1), targets.argmax(1)).item()
    assert fidelity(labels, None, targets)["calibration_error"] == pytest.approx(expected, abs=2e-6)


def test_a_mixed_view_is_right_by_the_share_of_its_class() -> None:
    labels = torch.tensor([[100.0, 0.0], [100.0, 0.0]])  # sure of the first class
    shares = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
    assert fidelity(labels, None, shares)["calibration_error"] == pytest.approx(0.5)


def test_the_teachers_own_labels_agree_entirely() -> None:
    found = fidelity(logits(3), logits(3), truth())
    assert (found["agreement"], found["kl"]) == (1.0, {"1": 0.0, "4": 0.0, "20": 0.0})


def test_agreement_is_the_share_of_equal_first_classes() -> None:
    ours, theirs = torch.eye(4), torch.eye(4)[[0, 1, 3, 2]]
    assert fidelity(ours, theirs, torch.eye(4))["agreement"] == 0.5


def test_nothing_is_said_of_a_teacher_who_is_not_there() -> None:
    found = fidelity(logits(0), None, truth())
    assert (found["agreement"], found["kl"], found["views"]) == (None, None, 400)


def test_entropy_and_margin_of_labels_known_by_hand() -> None:
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])
    found = fidelity(probabilities.log().clamp_min(-1e4), None, torch.eye(3)[:2])
    assert found["entropy"] == pytest.approx(1.5 * math.log(2) / 2, abs=1e-6)
    assert found["margin"] == pytest.approx((0.25 + 1.0) / 2, abs=1e-6)


def test_uniform_labels_are_as_unsure_as_can_be() -> None:
    found = fidelity(torch.zeros(5, CLASSES), None, truth(5))
    assert found["entropy"] == pytest.approx(math.log(CLASSES), abs=1e-6)
    assert found["margin"] == 0.0
