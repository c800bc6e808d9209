"""A teacher or an assistant that is trained here learns what it shall, and the same every time."""

import pytest
import torch
from torch import Tensor, nn

from hellods.distill.recipe import Recipe
from hellods.distill.resolve import best_stages
from hellods.sources.source import Pixels, open_source, squares
from hellods.teachers.teacher import Teacher, check_teacher
from hellods.teachers.training import train_teacher

from .shades import Shade, shades, teacher, training


def test_same_seed_trains_the_same_teacher() -> None:
    first, again, other = (train_teacher(training(2, seed=seed), shades(2)).provenance() for seed in (1, 1, 2))
    assert first == again
    assert first["sha256"] != other["sha256"]


def test_crops_are_mirrored_where_it_is_asked_for() -> None:
    plain, again, mirrored = (train_teacher(training(8, flip=flip), sides()) for flip in (False, False, True))
    left, right = (squares(sides(), torch.tensor([index]), 8) for index in (0, 1))
    assert plain.provenance() == again.provenance()
    assert (plain(left).argmax(), plain(right).argmax()) == (0, 1)
    assert not (mirrored(left).softmax(1)[0, 0] > 0.9 and mirrored(right).softmax(1)[0, 1] > 0.9)


def sides() -> Pixels:
    """Return images that are bright on the left (class a) or on the right (class b)."""
    images = torch.zeros(64, 3, 8, 8, dtype=torch.uint8)
    images[::2, :, :, :3] = 255
    images[1::2, :, :, 5:] = 255
    return Pixels("sides", ("a", "b"), [0, 1] * 32, images)


def test_stages_for_few_images_have_learned_something_on_a_small_set_too() -> None:
    source = shades(15)
    stages = best_stages(Recipe(images_per_class=1), len(source))
    trained = train_teacher(training(12, stages=stages), source)
    assert check_teacher(trained, shades(5), 8, allow_weak=True) > 0.9


class Doubt(nn.Module):
    """As sure of a class far off as of the right one."""

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = 8 * (Shade()(images) + Shade((torch.arange(10) + 5) % 10)(images))
        return logits


@pytest.mark.parametrize(("assists", "low", "high"), [(None, 0.0, 0.02), (teacher(Doubt()), 0.1, 0.3)])
def test_assistant_learns_the_true_classes_and_what_its_teacher_says(
    assists: Teacher | None, low: float, high: float
) -> None:
    source = shades(12)
    trained = train_teacher(training(20, mean=(0, 0, 0), std=(1, 1, 1)), source, assists=assists)
    images, expected = squares(source, torch.arange(0, 120, 12), 8), torch.arange(10)
    found = trained(images).softmax(1)
    assert low < found[expected, (expected + 5) % 10].mean().item() < high


@pytest.mark.slow
def test_digits_teacher_reaches_97_percent() -> None:
    pytest.importorskip("sklearn")
    source, held_out = open_source("digits")
    assert check_teacher(train_teacher(training(6, side=32), source), held_out, 32) >= 0.97
