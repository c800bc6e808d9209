"""The rule: values out of range are refused, and JSON holds all of it."""

from typing import Any

import pytest

from hellods.errors import FormatError
from hellods.record import from_json, to_json
from hellods.views.rule import Views


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"size": 0}, "size is 0"),
        ({"size": 4097}, "size is 4097"),
        ({"scale": (0.0, 1.0)}, "scale is 0.0 to 1.0"),
        ({"scale": (0.5, 0.4)}, "scale is 0.5 to 0.4"),
        ({"scale": (0.5, 1.1)}, "scale is 0.5 to 1.1"),
        ({"scale": (float("nan"), 1.0)}, "scale is nan"),
        ({"shuffle": 0}, "shuffle is 0"),
        ({"shuffle": 17}, "shuffle is 17"),
        ({"mix": "cutout"}, "mix is 'cutout'"),
    ],
)
def test_value_out_of_range_is_refused_and_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Views(**{"size": 32, **values})


@pytest.mark.parametrize(
    "views", [Views(size=1), Views(size=4096, scale=(1.0, 1.0), flip=False, shuffle=16, mix="mixup")]
)
def test_json_brings_back_the_same_rule(views: Views) -> None:
    assert from_json(Views, to_json(views), "x.hello: header.views") == views


def test_rule_of_a_file_that_is_out_of_range_names_the_place() -> None:
    with pytest.raises(FormatError, match=r"x\.hello: header\.views: size is 0"):
        from_json(Views, {"size": 0}, "x.hello: header.views")
