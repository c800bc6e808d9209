"""A student is trained and judged as its protocol says, and becomes the same again."""

import math
from dataclasses import asdict, replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from hellods.errors import OptionError
from hellods.evaluate import feed, student
from hellods.evaluate.feed import Lesson
from hellods.evaluate.presets import Protocol
from hellods.evaluate.student import Outcome, criterion, learn, pilot, squared
from hellods.sources.source import Pixels

from .lessons import CLASSES, COUNT, NAMES, SIDE, brightness, lesson

CPU = torch.device("cpu")


def taught(wanted: Lesson, seed: int = 0, precision: torch.dtype = torch.float32) -> Outcome:
    return learn(wanted, seed, CPU, precision)


def but_for_seconds(outcome: Outcome) -> dict[str, Any]:
    return {name: value for name, value in asdict(outcome).items() if name != "seconds"}


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return taught(lesson())


# What is learned.


def numbers(seed: int, rows: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ours, theirs = (3 * torch.randn(rows, CLASSES, generator=generator) for _ in range(2))
    truth = torch.rand(rows, CLASSES, generator=generator)
    return ours, theirs, truth / truth.sum(1, keepdim=True)


def softmax(row: list[float]) -> list[float]:
    total = sum(map(math.exp, row))
    return [math.exp(value) / total for value in row]


def cross_entropy(logits: Tensor, truth: Tensor) -> float:
    pairs = zip(map(softmax, logits.tolist()), truth.tolist(), strict=True)
    return -sum(t * math.log(p) for row, shares in pairs for p, t in zip(row, shares, strict=True)) / len(logits)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_kl_is_of_the_softened_labels_without_the_square_of_the_temperature(temperature: float) -> None:
    ours, theirs, truth = numbers(0)
    expected = 0.0
    for mine, other in zip((ours / temperature).tolist(), (theirs / temperature).tolist(), strict=True):
        expected += sum(p * math.log(p / q) for p, q in zip(softmax(other), softmax(mine), strict=True))
    found = criterion(Protocol(temperature=temperature), ours, theirs, truth)
    assert found.item() == pytest.approx(expected / len(ours), rel=1e-4)


def test_mse_is_of_logits_as_they_are_and_adds_its_share_of_the_truth() -> None:
    ours, theirs, truth = numbers(1)
    squares = sum((a - b) ** 2 for a, b in zip(ours.flatten().tolist(), theirs.flatten().tolist(), strict=True))
    expected = squares / ours.numel() + 0.1 * cross_entropy(ours, truth)
    assert criterion(Protocol(loss="mse", hard_weight=0.1), ours, theirs, truth).item() == pytest.approx(expected)


def test_kl_can_add_the_truth_too() -> None:
    ours, theirs, truth = numbers(2)
    alone = criterion(Protocol(temperature=20.0), ours, theirs, truth).item()
    both = criterion(Protocol(temperature=20.0, hard_weight=0.5), ours, theirs, truth).item()
    assert both - alone == pytest.approx(0.5 * cross_entropy(ours, truth), rel=1e-4)


@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_without_labels_the_loss_is_the_cross_entropy_with_the_mixed_truth(loss: Any) -> None:
    ours, _, truth = numbers(3)
    assert criterion(Protocol(loss=loss), ours, None, truth).item() == pytest.approx(cross_entropy(ours, truth))


# What judges.


def test_held_out_images_are_cut_as_rdeds() -> None:
    wanted = lesson(views={"size": 14})
    held = wanted.held_out
    images = squared(wanted, torch.tensor([3]))
    expected = TF.center_crop(TF.resize(held.image(3), [16, 16], antialias=True), [14, 14])
    assert torch.equal(images[0], expected)


@pytest.mark.parametrize(("pixels", "expected"), [(1 << 24, 31), (7 * SIDE**2, 7), (1, 1)])
def test_of_large_held_out_images_fewer_are_judged_at_once(
    pixels: int, expected: int, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def spy(lesson: Lesson, indices: Tensor) -> Tensor:
        asked.append(len(indices))
        return squared(lesson, indices)

    monkeypatch.setattr(student, "PIXELS", pixels)
    monkeypatch.setattr(student, "squared", spy)
    assert taught(lesson()).per_class == outcome.per_class
    assert max(asked) == expected


@pytest.mark.parametrize("size", [*range(2, 48), 64, 96, 128, 224])
def test_held_out_images_never_get_black_margins(size: int) -> None:
    wanted = lesson(views={"size": size})
    white = torch.full((1, 3, 16, 16), 255, dtype=torch.uint8)
    images = squared(replace(wanted, held_out=Pixels("white", NAMES, [0], white)), torch.tensor([0]))
    assert images.shape == (1, 3, size, size)
    assert images.min() == 255


# What becomes of a student.


def test_student_learns() -> None:
    found = taught(lesson(epochs=20, learning_rate=0.01))
    assert found.accuracy > 0.9
    assert found.losses[-1] < found.losses[0]


def test_a_run_is_the_same_again_for_a_seed(outcome: Outcome) -> None:
    torch.rand(3)  # whatever the global state
    assert but_for_seconds(taught(lesson())) == but_for_seconds(outcome)


def test_another_seed_is_another_run(outcome: Outcome) -> None:
    assert taught(lesson(), seed=1).losses != outcome.losses


def test_runs_leave_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    taught(lesson())
    assert torch.equal(torch.get_rng_state(), before)


def test_bfloat16_trains() -> None:
    found = taught(lesson(epochs=20, learning_rate=0.01), precision=torch.bfloat16)
    assert found.accuracy > 0.9
    assert found.losses != taught(lesson(epochs=20, learning_rate=0.01)).losses


def test_outcome_counts_views_classes_and_parameters(outcome: Outcome) -> None:
    assert outcome.views == 3 * COUNT
    assert (outcome.epochs, len(outcome.curve), len(outcome.losses)) == ((1, 2, 3), 3, 3)
    weights = 3 * 128 * 9 + 2 * 128 * 128 * 9 + 3 * 128 + 6 * 128 + 128 * 3 + 3
    assert outcome.parameters == weights
    counts = [11, 10, 10]
    assert outcome.accuracy == pytest.approx(
        sum(n * share for n, share in zip(counts, outcome.per_class, strict=True)) / 31, abs=1e-5
    )
    assert set(outcome.seconds) == {"views", "labels", "student", "compare", "check"}


def test_flops_of_a_step_are_three_forward_passes(outcome: Outcome) -> None:
    convolutions = 2 * 9 * (3 * 128 * 64 + 128 * 128 * 16 + 128 * 128 * 4)
    assert outcome.flops["student"] == 3 * (convolutions + 2 * 128 * CLASSES)


def test_attention_counts_too() -> None:
    attention = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval()
    values = torch.zeros(1, 5, 8)
    projections, products = 4 * 2 * 5 * 8 * 8, 2 * 2 * 5 * 5 * 8
    assert (
        student.flops(lambda seen: attention(seen, seen, seen, need_weights=False)[0], values) == projections + products
    )
    assert torch.backends.mha.get_fastpath_enabled()


def test_curve_has_ten_points_at_most_and_ends_with_the_last_epoch() -> None:
    found = taught(lesson(epochs=25))
    assert found.epochs == (3, 5, 8, 10, 13, 15, 18, 20, 23, 25)


def test_losses_are_the_means_since_the_point_before(monkeypatch: pytest.MonkeyPatch) -> None:
    values: list[float] = []
    original = student.criterion

    def spy(*arguments: Any) -> Tensor:
        values.append(original(*arguments).item())
        return original(*arguments)

    monkeypatch.setattr(student, "criterion", spy)
    found = taught(lesson())
    assert found.losses == pytest.approx([sum(values[n : n + 3]) / 3 for n in (0, 3, 6)], abs=1e-6)


def test_fidelity_is_of_what_the_student_saw(outcome: Outcome) -> None:
    assert outcome.fidelity is not None
    assert (outcome.fidelity["views"], outcome.fidelity["agreement"]) == (3 * COUNT, 1.0)


def test_hard_labels_have_no_fidelity() -> None:
    assert taught(lesson(None)).fidelity is None


def test_no_more_views_are_compared_than_wanted_and_they_are_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "SEEN", 30)
    monkeypatch.setattr(feed, "AHEAD", 1)
    compared: list[int] = []

    def teacher(images: Tensor) -> Tensor:
        compared.append(len(images))
        return brightness(images)

    found = taught(replace(lesson(epochs=20), teacher=teacher)).fidelity
    assert found is not None
    assert found["views"] == sum(compared) <= 30
    assert len(compared) > 25  # of sixty steps


def test_a_student_whose_maps_shrink_to_one_pixel_learns_though_one_image_is_left_over() -> None:
    assert taught(replace(lesson(student="resnet18", batch_size=13), steps=1)).views == 3 * COUNT


def test_a_student_that_cannot_take_the_images_is_named() -> None:
    with pytest.raises(OptionError, match="convnet4 halves images 4 times: 8 px is too small"):
        taught(lesson(student="convnet4"))


def test_a_student_that_does_not_learn_is_named() -> None:
    with pytest.raises(OptionError, match="Student: the loss is nan after 9 steps; lower the learning rate"):
        taught(lesson(lambda images: brightness(images) * torch.nan))


def test_progress_is_told_of_every_step() -> None:
    calls: list[tuple[str, int, int]] = []
    learn(lesson(), 0, CPU, torch.float32, lambda *call: calls.append(call))
    assert calls == [("Student", step, 9) for step in range(10)]


def test_a_pilot_takes_as_long_as_a_run_of_as_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def takes(module: ModuleType, name: str, seconds: float) -> None:
        function = getattr(module, name)

        def timed(*arguments: Any) -> Any:
            result = function(*arguments)
            now[0] += seconds * (len(result) if result.ndim else 1)
            return result

        monkeypatch.setattr(module, name, timed)

    def labels(views: Tensor) -> Tensor:
        now[0] += 0.02 * len(views)
        return brightness(views)

    monkeypatch.setattr(student.time, "monotonic", lambda: now[0])
    takes(feed, "render", 0.03)
    takes(student, "criterion", 0.5)
    takes(student, "squared", 0.01)
    wanted = lesson(labels, epochs=20)
    assert pilot(wanted, CPU, torch.float32) == pytest.approx(sum(taught(wanted).seconds.values()), rel=0.1)


def test_a_pilot_counts_the_decoding_of_an_image_not_in_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    now, decoded = [0.0], set[int]()
    decoded_before = lesson(epochs=20)

    def pixels(indices: Tensor) -> Tensor:
        new = set(indices.tolist()) - decoded
        decoded.update(new)
        now[0] += 10.0 * len(new) + 0.01 * len(indices)
        return decoded_before.pixels(indices)

    monkeypatch.setattr(student.time, "monotonic", lambda: now[0])
    expected = pilot(replace(decoded_before, pixels=pixels), CPU, torch.float32)
    assert decoded
    assert 0 < expected < 10.0
