"""Another order of classes is found whatever the order; an honest weak teacher is never accused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hellods.teachers.class_order import confusion, other_order, swapped


def answers(chances: Tensor, images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return `images` of every class, and what a classifier with P(column | row) = chances says of them."""
    targets = torch.arange(len(chances)).repeat_interleave(images)
    return targets, torch.multinomial(chances[targets], 1, generator=torch.Generator().manual_seed(seed))[:, 0]


def accurate(classes: int, accuracy: float) -> Tensor:
    chances = torch.full((classes, classes), (1 - accuracy) / (classes - 1))
    return chances.fill_diagonal_(accuracy)


def names(classes: int) -> list[str]:
    return [f"c{label}" for label in range(classes)]


def honest(classes: int, spread: float, bias: float, seed: int) -> Tensor:
    """Return P(column | row) of a classifier that weighs random likelihoods over 5·K kinds of images.

    A large spread makes classes alike and the classifier weak; a bias makes it favor some classes.
    """
    generator = torch.Generator().manual_seed(seed)
    kinds = 5 * classes
    likelihood = (-torch.rand(classes, kinds, generator=generator).log()) ** (1 / spread)
    likelihood /= likelihood.sum(1, keepdim=True)
    weight = (torch.randn(classes, 1, generator=generator) * bias).exp()
    return torch.zeros(classes, classes).index_add_(1, (likelihood * weight).argmax(0), likelihood)


@settings(max_examples=300)
@given(
    st.sampled_from([2, 3, 10, 30]),
    st.floats(0.2, 3),
    st.floats(0, 1.5),
    st.sampled_from([3, 20, 50, 200]),
    st.integers(0, 10**6),
)
def test_honest_teacher_is_never_accused(classes: int, spread: float, bias: float, images: int, seed: int) -> None:
    targets, predicted = answers(honest(classes, spread, bias, seed), images, seed)
    assert other_order(targets, predicted, names(classes)) is None


@settings(max_examples=100)
@given(st.sampled_from([10, 50, 200]), st.integers(0, 10**6))
def test_teacher_of_45_percent_that_cannot_tell_pairs_apart_is_not_accused(images: int, seed: int) -> None:
    chances = torch.full((10, 10), 0.01)
    for label in range(10):
        chances[label, label], chances[label, label ^ 1] = 0.46, 0.46
    targets, predicted = answers(chances, images, seed)
    assert other_order(targets, predicted, names(10)) is None


@settings(max_examples=50)
@given(st.sampled_from([10, 100]), st.integers(0, 10**6))
def test_two_swapped_classes_are_found_at_80_percent(classes: int, seed: int) -> None:
    targets, predicted = answers(accurate(classes, 0.8), 50, seed)
    order = torch.arange(classes)
    order[[3, 7]] = order[[7, 3]]
    message = other_order(targets, order[predicted], names(classes))
    assert message is not None
    assert "different orders: 'c3' is called 'c7', 'c7' is called 'c3'; in its own order" in message


@settings(max_examples=50)
@given(st.sampled_from([0.45, 0.8, 1.0]), st.sampled_from([10, 40]), st.integers(1, 9))
def test_cyclic_shift_is_found_even_with_a_weak_teacher(accuracy: float, classes: int, shift: int) -> None:
    targets, predicted = answers(accurate(classes, accuracy), 50, shift)
    assert other_order(targets, (predicted + shift) % classes, names(classes)) is not None


@settings(max_examples=50)
@given(st.permutations(range(10)), st.sampled_from([0.45, 0.8]))
def test_any_permutation_is_found_whole(order: list[int], accuracy: float) -> None:
    targets, predicted = answers(accurate(10, accuracy), 200, 0)
    renamed = torch.tensor(order)[predicted]
    halves = [confusion(targets[i::2], renamed[i::2]) for i in (0, 1)]
    moved = {label for cycle in swapped(*halves, classes=10) for label in cycle}
    assert moved == {label for label in range(10) if order[label] != label}


def test_message_gives_both_accuracies() -> None:
    targets = torch.arange(4).repeat_interleave(50)
    predicted = torch.tensor([1, 0, 2, 3])[targets]
    message = other_order(targets, predicted, names(4))
    assert message is not None
    assert "right on 100.0% instead of 50.0%" in message


@pytest.mark.parametrize("images", [1, 2, 4])
def test_too_few_images_are_no_evidence(images: int) -> None:
    targets = torch.arange(2).repeat_interleave(images)
    assert other_order(targets, 1 - targets, names(2)) is None
