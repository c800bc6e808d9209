"""Defaults that depend on the images, on the teacher and on the base model."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from hellods.distill.recipe import Inputs, Recipe
from hellods.distill.resolve import resolve
from hellods.errors import OptionError
from hellods.sources.source import Pixels

INPUTS = Inputs(data="x")


def black(count: int) -> Pixels:
    """Return so many images of two classes."""
    pixels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8).expand(count, 3, 32, 32)
    return Pixels("black", ("a", "b"), [number % 2 for number in range(count)], pixels)


@pytest.mark.parametrize(
    ("pixels", "knobs", "side", "factor"),
    [
        (32, {}, 32, 1),
        (151, {}, 150, 2),
        (151, {"initializer": "real"}, 151, 1),
        (500, {}, 224, 2),
        (500, {"factor": 3}, 222, 3),
        (500, {"side": 64}, 64, 1),
    ],
)
def test_side_and_factor_follow_the_images(pixels: int, knobs: dict[str, Any], side: int, factor: int) -> None:
    source = Pixels("black", ("a", "b"), [0, 1], torch.zeros(2, 3, pixels, pixels + 9, dtype=torch.uint8))
    resolved = resolve(Recipe(**knobs), INPUTS, source, 32)
    assert (resolved.side, resolved.factor) == (side, factor)


@pytest.mark.parametrize(("pixels", "knobs"), [(7, {}), (9, {"factor": 5})])
def test_images_too_small_for_an_archive_need_a_side(pixels: int, knobs: dict[str, Any]) -> None:
    source = Pixels("black", ("a", "b"), [0, 1], torch.zeros(2, 3, pixels, pixels, dtype=torch.uint8))
    with pytest.raises(OptionError, match=r"black: the images are too small .*\(\d px, 8 are .*`side`"):
        resolve(Recipe(**knobs), INPUTS, source, 32)
    assert resolve(Recipe(side=40, **knobs), INPUTS, source, 32).side == 40


@pytest.mark.parametrize(("count", "side"), [(100_000, 4096), (100_000, 300)])
def test_more_images_than_a_file_can_hold_are_refused_before_any_work(count: int, side: int) -> None:
    with pytest.raises(OptionError, match=rf"200,000 images of {side} px are more .*`images_per_class`"):
        resolve(Recipe(images_per_class=count, side=side), INPUTS, black(4), 32)


@pytest.mark.parametrize(
    ("codec", "side", "quality"),
    [("webp", 32, 75), ("webp", 128, 90), ("png", 128, None), ("jpeg", 32, 75), ("avif", 32, 75)],
)
def test_quality_is_what_was_used(codec: str, side: int, quality: int | None) -> None:
    source = Pixels("black", ("a", "b"), [0, 1], torch.zeros(2, 3, side, side, dtype=torch.uint8))
    assert resolve(Recipe(codec=codec), INPUTS, source, 32).quality == quality  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("side", "tower", "batch"),
    [(32, 32, 32), (224, 32, 32), (32, 224, 32), (224, 224, 32), (32, 448, 8)],
)
def test_batches_of_a_fit_hold_no_more_pixels_on_large_images_or_towers(side: int, tower: int, batch: int) -> None:
    source = Pixels("black", ("a", "b"), [0, 1], torch.zeros(2, 3, side, side, dtype=torch.uint8))
    assert resolve(Recipe(), INPUTS, source, tower).fit_batch_size == batch
    assert resolve(Recipe(fit_batch_size=100), INPUTS, source, tower).fit_batch_size == 100


@pytest.mark.parametrize(
    ("images", "epochs", "stages"),
    [(1, 12, (1, 2)), (4, 12, (1, 2)), (5, 12, (12,)), (50, 3, (3,)), (1, 30, (1, 2)), (1, 1, (1,))],
)
def test_few_images_are_taught_by_the_first_stages_of_a_training(
    images: int, epochs: int, stages: tuple[int, ...]
) -> None:
    recipe = Recipe(images_per_class=images, teacher_epochs=epochs)
    assert resolve(recipe, INPUTS, black(640), 32).teacher_stages == stages
    assert resolve(Recipe(teacher_stages=(3, 5)), INPUTS, black(640), 32).teacher_stages == (3, 5)


@pytest.mark.parametrize(("images", "asked", "epochs"), [(24, None, 12), (25, None, 24), (50, 12, 12)])
def test_many_images_are_taught_by_a_longer_training(images: int, asked: int | None, epochs: int) -> None:
    recipe = resolve(Recipe(images_per_class=images, teacher_epochs=asked), INPUTS, black(640), 32)
    assert (recipe.teacher_epochs, recipe.teacher_stages) == (epochs, (epochs,))


@pytest.mark.parametrize(
    ("count", "epochs", "stages"),
    [(100_000, 12, (1, 2)), (639, 12, (2, 3)), (150, 12, (8, 9)), (150, 5, (4, 5)), (2, 12, (11, 12)), (2, 1, (1,))],
)
def test_first_stages_of_a_training_on_few_images_have_as_many_steps_behind_them(
    count: int, epochs: int, stages: tuple[int, ...]
) -> None:
    recipe = Recipe(images_per_class=1, teacher_epochs=epochs)
    assert resolve(recipe, INPUTS, black(count), 32).teacher_stages == stages


@pytest.mark.parametrize(
    ("side", "teacher", "assistant", "expected"),
    [
        (32, "resnet18", None, ("convnet3", (12,), "own")),
        (64, "resnet18", None, ("convnet3", (12,), "own")),
        (128, "resnet50", None, ("resnet18", (12,), "own")),
        (128, "resnet50", "none", ("none", None, "real")),
        (128, "resnet18", "resnet50", ("resnet50", (12,), "own")),
        (32, "resnet18", "none", ("none", None, "real")),
        (32, "train:convnet3", None, ("none", (12,), "own")),
    ],
)
def test_assistant_stands_between_a_given_teacher_and_students(
    side: int, teacher: str, assistant: str | None, expected: tuple[str, tuple[int] | None, str]
) -> None:
    source = Pixels("black", ("a", "b"), [0, 1], torch.zeros(2, 3, side, side, dtype=torch.uint8))
    found = resolve(Recipe(assistant=assistant), Inputs(data="x", teacher=teacher), source, 32)
    assert (found.assistant, found.teacher_stages, found.fit_on) == expected
    assert found.hard_weight == (0.0 if found.fit_on == "own" else 0.1)
    assert found.assisted == (expected[0] != "none")


def test_teacher_that_is_trained_here_takes_no_assistant() -> None:
    source = Pixels("black", ("a", "b"), [0, 1], torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(OptionError, match=r"'resnet18'.*'train'.*given teacher.*`assistant='none'`"):
        resolve(Recipe(assistant="resnet18"), INPUTS, source, 32)


@pytest.mark.parametrize("knob", [{"teacher_stages": (1, 2)}, {"teacher_epochs": 3}])
def test_what_a_training_takes_is_refused_where_nothing_is_trained(knob: dict[str, Any]) -> None:
    given = Inputs(data="x", teacher="resnet18")
    (name,) = knob
    said = f"`{name}` beside teacher 'resnet18'.*leave it out, or name an `assistant`"
    with pytest.raises(OptionError, match=said):
        resolve(Recipe(assistant="none", **knob), given, black(10), 32)
    assert getattr(resolve(Recipe(**knob), given, black(10), 32), name) == knob[name]


@pytest.mark.parametrize(
    ("images_per_class", "preset", "views", "rate"),
    [
        (2, "default", 60_000, 0.004),
        (50, "default", 60_000, 0.004),
        (200, "default", 120_000, 0.004),
        (200, "fast", 12_000, 0.008),
        (200, "best", 240_000, 0.004),
    ],
)
def test_more_images_are_fitted_on_more_views_and_as_the_preset_says(
    images_per_class: int, preset: Any, views: int, rate: float
) -> None:
    recipe, source = Recipe(images_per_class=images_per_class, preset=preset), black(2000)
    resolved = resolve(recipe, INPUTS, source, 32)
    assert (resolved.fit_views, resolved.fit_learning_rate) == (views, rate)
    asked = resolve(replace(recipe, fit_views=7, fit_learning_rate=0.1), INPUTS, source, 32)
    assert (asked.fit_views, asked.fit_learning_rate) == (7, 0.1)


@pytest.mark.parametrize(
    ("images", "preset", "views"),
    [(40, "fast", 1200), (40, "default", 1200), (40, "best", 2400), (200, "fast", 3000), (1500, "fast", 4500)],
)
def test_no_preset_takes_from_a_small_set_what_it_needs(images: int, preset: Any, views: int) -> None:
    assert resolve(Recipe(images_per_class=2, preset=preset), INPUTS, black(images), 32).fit_views == views


@pytest.mark.parametrize(("tower", "views"), [(32, 160_000), (64, 160_000), (224, 30_000)])
def test_large_towers_are_fitted_on_fewer_views(tower: int, views: int) -> None:
    targets = [0, 1] * 4000
    source = Pixels(
        "black", ("a", "b"), targets, torch.zeros(1, 3, 128, 128, dtype=torch.uint8).expand(8000, 3, 128, 128)
    )
    assert resolve(Recipe(), INPUTS, source, tower).fit_views == views
