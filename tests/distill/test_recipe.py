"""The recipe: every knob checked where it is set."""

from dataclasses import fields
from typing import Any

import pytest

from hellods.distill.recipe import Inputs, Recipe, Resolved
from hellods.errors import OptionError
from hellods.record import from_json, to_json


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("images_per_class", 0),
        ("side", 7),
        ("seed", -1),
        ("quality", 101),
        ("encoder_rank", 0),
        ("fit_batch_size", 0),
        ("hard_weight", -0.1),
        ("codec", "gif"),
        ("initializer", "best"),
        ("mix", "blend"),
        ("quantization", "int2"),
        ("seed", 2**53),
        ("template", "a photo"),
        ("template", "a\n{}"),
        ("template", "{} \udcff"),
        ("template", "{} and {}"),
        ("template", "a {}|the"),
        ("template", "|".join(["{}"] * 129)),
        ("template", "{}" + 255 * "a"),
        ("head", "random"),
        ("preset", None),
        ("codec", None),
        ("images_per_class", 2.5),
        ("seed", 1.5),
        ("side", "64"),
        ("hard_weight", "0"),
        ("flip", "no"),
        ("embed_base", None),
        ("assistant", 5),
        ("template", 5),
        ("teacher_stages", 3),
        ("teacher_stages", ("1",)),
        ("teacher_stages", [1, 2]),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(knob: str, value: object) -> None:
    with pytest.raises(OptionError, match=knob):
        Recipe(**{knob: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"codec": "png", "quality": 90}, "png"),
        ({"initializer": "real", "factor": 2}, "factor 2 .* real images: leave it out, or choose patches"),
        ({"side": 33, "factor": 2}, "33 cannot be cut into 2"),
        ({"teacher_stages": ()}, r"teacher_stages are \[\], expected rising epochs, 1 to 12"),
        ({"teacher_stages": (1, 1)}, "rising"),
        ({"teacher_stages": (0, 1)}, "rising"),
        ({"teacher_epochs": 4, "teacher_stages": (1, 5)}, "1 to 4"),
    ],
)
def test_knobs_that_do_not_go_together_are_refused(knobs: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Recipe(**knobs)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"teacher_weights": "my.safetensors"}, "`teacher_weights` beside 'train'.* as `teacher`"),
        ({"teacher_std": (0.0, 1.0, 1.0)}, "std"),
        ({"teacher_mean": (float("nan"), 0.5, 0.5)}, "mean"),
        ({"teacher_mean": (123.7, 116.3, 103.5), "teacher_std": (58.4, 57.1, 57.4)}, "divide mean and std by 255"),
        ({"teacher": None}, "teacher is None, expected a text"),
        ({"descriptions": {"0": 5}}, "expected a mapping from texts to texts"),
        ({"license": "MIT\x1b[2J"}, "printable"),
        ({"descriptions": {"a": "cat", "b": " "}}, "class 'b' is described by ' '"),
        ({"descriptions": {"cat": "\ud800"}}, "class 'cat' .* give it a text"),
        ({"descriptions": {"cat": "a\tcat"}}, "class 'cat' .* give it a text"),
    ],
)
def test_inputs_that_cannot_be_used_are_refused_at_once(inputs: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Inputs(data="digits", **inputs)


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"initializer": "real", "candidates": 20}, "candidates does not apply to initializer 'real'"),
        ({"initializer": "real", "crops": 2}, "crops does not apply to initializer 'real'"),
        ({"head": "prototypes", "template": "a {}"}, "template does not apply to head 'prototypes'"),
    ],
)
def test_knobs_that_would_be_ignored_are_refused(knobs: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Recipe(**knobs)


@pytest.mark.parametrize(
    ("teacher", "side", "network"),
    [("train", 64, "convnet3"), ("train", 65, "resnet18"), ("train:resnet18", 32, "resnet18"), ("train:", 32, "")],
)
def test_teacher_that_is_trained_is_of_the_students_kind_unless_named(teacher: str, side: int, network: str) -> None:
    inputs = Inputs(data="digits", teacher=teacher)
    assert (inputs.trained, inputs.network(side)) == (True, network)


@pytest.mark.parametrize("factor", [None, 1])
def test_real_images_are_whole(factor: int | None) -> None:
    assert Recipe(initializer="real", factor=factor).factor == factor


def test_recipe_without_gaps_lacks_nothing() -> None:
    with pytest.raises(OptionError, match="side is None, expected 8 to 4096 as an int"):
        Resolved(fit_on="own")  # type: ignore[call-arg]


@pytest.mark.parametrize("kind", [Inputs, Recipe])
def test_every_knob_is_in_the_docstring_with_what_it_is_for(kind: type) -> None:
    for knob in fields(kind):
        words = " ".join((kind.__doc__ or "").split())
        assert f" {knob.name}: {knob.metadata['text']}" in words


def test_texts_of_any_script_are_taken() -> None:
    Inputs(data="x", descriptions={"cat": "gato\u00a0común", "dog": "秋田\u3000犬"})
    Recipe(template="une photo\u00a0: {}")


def test_whole_numbers_of_a_mean_are_floats() -> None:
    inputs = Inputs(data="digits", teacher_mean=(0, 0, 0), teacher_std=(1, 1, 1))
    assert to_json([inputs.teacher_mean, inputs.teacher_std]) == [["0"] * 3, ["1"] * 3]


def test_recipe_survives_the_header() -> None:
    recipe = Recipe(side=32, fit_learning_rate=0.0007, quality=80, fit_views=1000, teacher_stages=(1, 2))
    assert from_json(Recipe, to_json(recipe), "recipe") == recipe
