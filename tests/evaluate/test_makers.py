"""What competes with an archive's labels is counted to the byte, and answers what it could be sent to answer."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from hellods.evaluate.makers import Storage, logit_range, ship, storage_within, truncated
from hellods.nets import create
from hellods.teachers.teacher import Teacher

CLASSES = 10


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return Teacher(create("convnet3", CLASSES, 16), architecture="convnet3")


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randint(0, 256, (32, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def bits(storage: Storage) -> int:
    """Return those of one label, counted anew."""
    if storage.whole:
        return 16 * CLASSES
    return 8 * CLASSES if storage.kept == CLASSES else storage.kept * (8 + 4) + 8


def test_teacher_in_sixteen_bits_is_two_bytes_a_number(teacher: Teacher) -> None:
    shipped, size = ship(teacher, 16)
    state = shipped.network.state_dict().values()
    assert size == sum(2 * v.numel() if v.is_floating_point() else 8 * v.numel() for v in state)
    assert all(torch.equal(v, v.half().to(v.dtype)) for v in state if v.is_floating_point())


@pytest.mark.parametrize("wanted", [8, 4])
def test_shipped_matrices_are_codes_and_scales_and_the_rest_is_float16(teacher: Teacher, wanted: int) -> None:
    size = 0
    for value in teacher.network.state_dict().values():
        if value.ndim > 1:
            columns = math.prod(value.shape[1:])
            size += math.ceil(len(value) * columns * wanted / 8) + 2 * len(value) * math.ceil(columns / 64)
        else:
            size += (2 if value.is_floating_point() else 8) * value.numel()
    assert ship(teacher, wanted)[1] == size


def test_shipping_in_eight_bits_hardly_changes_an_answer_and_in_four_it_does(teacher: Teacher, images: Tensor) -> None:
    before = teacher(images)
    errors = {wanted: (ship(teacher, wanted)[0](images) - before).std() / before.std() for wanted in (16, 8, 4)}
    assert errors[16] < 0.002
    assert errors[8] < 0.05
    assert errors[8] < errors[4] / 5


def test_shipping_leaves_the_teacher_as_it_was(teacher: Teacher) -> None:
    before = teacher.provenance()
    ship(teacher, 4)
    assert teacher.provenance() == before


def test_batchnorm_is_not_quantized(teacher: Teacher) -> None:
    teacher.network[1].running_mean.fill_(0.123)
    shipped, _ = ship(teacher, 4)
    assert torch.allclose(shipped.network[1].running_mean, torch.tensor(0.123), atol=1e-4)


def test_what_float16_cannot_hold_is_sent_as_it_is(teacher: Teacher, images: Tensor) -> None:
    size = ship(teacher, 16)[1]
    teacher.network[1].running_var.fill_(2e5)
    shipped, larger = ship(teacher, 16)
    assert larger - size == 2 * teacher.network[1].running_var.numel()
    assert torch.allclose(shipped(images), teacher(images), rtol=1e-2, atol=1e-2)


def test_weights_that_layers_share_are_sent_once() -> None:
    first = nn.Linear(6, 6)
    single, double = (Teacher(nn.Sequential(*layers), architecture="tied") for layers in ([first], [first, first]))
    assert ship(double, 8)[1] == ship(single, 8)[1]


def test_full_labels_are_preferred_when_they_fit() -> None:
    assert storage_within(2 * 100 * 300 * 10, 100, 300, 10) == Storage(views=300, kept=10, whole=True, bytes=600_000)
    assert storage_within(10**12, 100, 300, 10).bytes == 600_000


def test_then_all_classes_in_eight_bits_then_fewer_then_fewer_views() -> None:
    found = [
        storage_within(budget, 100, 300, 10) for budget in (599_999, 300_000, 299_999, 255_000, 254_999, 85_000, 850)
    ]
    assert [(s.views, s.kept, s.whole) for s in found] == [
        (300, 10, False), (300, 10, False), (300, 5, False), (300, 5, False), (299, 5, False), (100, 5, False),
        (1, 5, False),
    ]  # fmt: skip


def test_of_many_classes_as_many_are_kept_as_every_view_can_have() -> None:
    # A thousand classes: 18 bits for each that is kept, 8 for the mean of the rest.
    budget = 1000 * 300 * (18 * 50 + 8) // 8
    assert [storage_within(budget + more, 1000, 300, 1000).kept for more in (-1, 0)] == [49, 50]


def test_keeping_some_is_never_dearer_than_keeping_all() -> None:
    assert {storage_within(budget, 10, 10, 10).kept for budget in range(90, 2001, 10)} == {5, 10}


@given(st.integers(0, 10**7), st.integers(1, 500), st.integers(1, 300), st.integers(2, 300))
def test_budget_is_kept_or_too_small_for_one_view_of_each_image(
    budget: int, images: int, epochs: int, classes: int
) -> None:
    found = storage_within(budget, images, epochs, classes)
    least = min(8 * classes, 5 * (8 + (classes - 1).bit_length()) + 8)  # bits, of the smallest label
    assert (found is None) == (8 * budget < images * least)
    if found:
        assert 1 <= found.views <= epochs
        assert 1 <= found.kept <= classes
        assert found.bytes <= budget


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 100), st.integers(1, 300), st.integers(2, 300))
def test_more_bytes_never_buy_fewer_views_or_fewer_classes(
    first: int, second: int, images: int, epochs: int, classes: int
) -> None:
    assume(first < second)
    less, more = (storage_within(budget, images, epochs, classes) for budget in (first, second))
    assume(less)
    assert (less.views, less.kept, less.whole, less.bytes) <= (more.views, more.kept, more.whole, more.bytes)


@pytest.mark.parametrize("budget", [850, 30_000, 254_999, 270_000, 400_000, 600_000])
def test_bytes_are_those_of_the_labels_packed(budget: int) -> None:
    found = storage_within(budget, 100, 300, CLASSES)
    assert found.bytes == math.ceil(100 * found.views * bits(found) / 8)


def answers(storage: Storage, logits: Tensor) -> Tensor:
    """Return what is stored of these logits, which span 0 to 255."""
    return truncated(lambda images: logits, storage, 0.0, 255.0)(torch.empty(0))


def test_whole_labels_are_float16() -> None:
    logits = torch.randn(8, CLASSES, generator=torch.Generator().manual_seed(0))
    storage = Storage(views=1, kept=CLASSES, whole=True, bytes=0)
    assert torch.equal(answers(storage, logits), logits.half().float())


def test_the_largest_logits_are_kept_and_the_rest_is_their_mean() -> None:
    logits = torch.tensor([[5.0, 200.0, 10.0, 100.0, 15.0]])
    storage = Storage(views=1, kept=2, whole=False, bytes=0)
    assert torch.allclose(answers(storage, logits), torch.tensor([[10.0, 200.0, 10.0, 100.0, 10.0]]))


def test_eight_bits_round_to_the_nearest_of_256_levels() -> None:
    logits = torch.tensor([[0.4, 0.6, 254.4, 300.0, -7.0]])
    storage = Storage(views=1, kept=5, whole=False, bytes=0)
    assert torch.allclose(answers(storage, logits), torch.tensor([[0.0, 1.0, 254.0, 255.0, 0.0]]))


@pytest.mark.parametrize("kept", [5, CLASSES])
def test_kept_logits_are_within_half_a_level(kept: int, teacher: Teacher, images: Tensor) -> None:
    logits = teacher(images)
    low, high = logit_range(teacher, images.split(7))
    found = truncated(teacher, Storage(views=1, kept=kept, whole=False, bytes=0), low, high)(images)
    places = logits.topk(kept, dim=1).indices
    error = (found.gather(1, places) - logits.gather(1, places)).abs().max()
    assert error <= (high - low) / 255 / 2 + 1e-5


def test_bounds_are_the_least_and_the_largest_logit_of_all_batches() -> None:
    batches = [torch.tensor([[1.0, 2.0]]), torch.tensor([[-3.0, 0.0], [9.0, 4.0]])]
    assert logit_range(lambda images: images, batches) == (-3.0, 9.0)


def test_a_teacher_that_answers_alike_can_be_stored() -> None:
    storage = Storage(views=1, kept=5, whole=False, bytes=0)
    same = truncated(lambda images: torch.full((2, CLASSES), 4.0), storage, 4.0, 4.0)(torch.empty(0))
    assert torch.allclose(same, torch.tensor(4.0))


def test_a_teacher_of_two_classes_can_be_stored() -> None:
    assert storage_within(20, 10, 10, 2).kept == 2
    network = Teacher(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), architecture="two")
    found = truncated(network, storage_within(20, 10, 10, 2), -1.0, 1.0)(torch.zeros(3, 3, 2, 2, dtype=torch.uint8))
    assert found.shape == (3, 2)
