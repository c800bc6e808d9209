"""Defaults that depend on the images and on the base model, and what the classes are called."""

from typing import Any

import pytest
import torch

from hellods.distill.arrange import describe, resolve
from hellods.distill.recipe import Recipe
from hellods.distill.sources import Pixels
from hellods.errors import SourceError


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
    resolved = resolve(Recipe(**knobs), source, 32)
    assert (resolved.side, resolved.factor) == (side, factor)


@pytest.mark.parametrize(
    ("codec", "side", "quality"),
    [("webp", 32, None), ("webp", 128, 90), ("png", 128, None), ("jpeg", 32, 90), ("avif", 32, 90)],
)
def test_quality_is_what_was_used(codec: str, side: int, quality: int | None) -> None:
    source = Pixels("black", ("a", "b"), [0, 1], torch.zeros(2, 3, side, side, dtype=torch.uint8))
    assert resolve(Recipe(codec=codec), source, 32).quality == quality  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("descriptions", "expected"),
    [(None, ("a b", "c")), ({"a_b": "thing", "c": "other", "unused": "x"}, ("thing", "other"))],
)
def test_classes_are_described_by_the_user_or_their_folders(
    descriptions: dict[str, str] | None, expected: tuple[str, ...]
) -> None:
    assert describe(("a_b", "c"), descriptions) == expected


def test_class_without_description_is_named() -> None:
    with pytest.raises(SourceError, match="'c'"):
        describe(("a_b", "c"), {"a_b": "thing"})


@pytest.mark.parametrize(
    ("side", "tower", "batch"),
    [(32, 32, 128), (64, 64, 128), (224, 32, 32), (32, 224, 32), (224, 224, 32), (32, 448, 8)],
)
def test_batches_of_a_fit_hold_no_more_pixels_on_large_images_or_towers(side: int, tower: int, batch: int) -> None:
    source = Pixels("black", ("a", "b"), [0, 1], torch.zeros(2, 3, side, side, dtype=torch.uint8))
    assert resolve(Recipe(), source, tower).fit_batch == batch
    assert resolve(Recipe(fit_batch=100), source, tower).fit_batch == 100
