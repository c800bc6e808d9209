"""The recipe: every knob checked where it is set."""

import pytest

from hellods.distill.recipe import Recipe
from hellods.errors import RecipeError
from hellods.record import from_json, to_json


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("images_per_class", 0),
        ("side", 7),
        ("seed", -1),
        ("quality", 101),
        ("encoder_rank", 0),
        ("fit_batch", 0),
        ("hard_weight", -0.1),
        ("template", "a photo"),
        ("template", "{} and {}"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(knob: str, value: object) -> None:
    with pytest.raises(RecipeError, match=knob):
        Recipe(**{knob: value})  # type: ignore[arg-type]


def test_recipe_survives_the_header() -> None:
    recipe = Recipe(side=32, fit_learning_rate=0.0007, quality=80, fit_images=1000)
    assert from_json(Recipe, to_json(recipe), "recipe") == recipe
