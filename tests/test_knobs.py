"""A field of a dataclass holds what its annotation and its bounds allow."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from hellods.knobs import BOUNDS, wrong_field


@dataclass(frozen=True)
class Inner:
    side: int


@dataclass(frozen=True)
class Typed:
    codec: Literal["png", "webp"] = "png"
    mix: Literal["none", "cutmix"] | None = None
    side: int = field(default=3, metadata={BOUNDS: (1, 9)})
    rate: float | None = field(default=0.5, metadata={BOUNDS: (0, 1)})
    flip: bool = True
    stages: tuple[int, ...] | None = None
    mean: tuple[float, float, float] = (0, 0.5, 1)
    names: Mapping[str, str] | None = None
    inner: Inner | None = None


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({}, None),
        ({"codec": "webp", "mix": "cutmix", "side": 9, "rate": 1, "flip": False, "stages": (1, 2)}, None),
        ({"rate": None, "stages": (), "names": {"a": "b"}, "inner": Inner(side=1)}, None),
        ({"codec": "gif"}, "codec is 'gif', expected one of png, webp"),
        ({"codec": None}, "codec is None, expected one of png, webp"),
        ({"codec": ["png"]}, "codec is ['png'], expected one of png, webp"),
        ({"mix": "mixup"}, "mix is 'mixup', expected one of none, cutmix"),
        ({"side": 10}, "side is 10, expected 1 to 9"),
        ({"side": None}, "side is None, expected 1 to 9 as an int"),
        ({"side": 2.0}, "side is 2.0, expected 1 to 9 as an int"),
        ({"side": True}, "side is True, expected 1 to 9 as an int"),
        ({"rate": math.nan}, "rate is nan, expected 0 to 1"),
        ({"rate": "1"}, "rate is '1', expected 0 to 1 as a number"),
        ({"flip": 1}, "flip is 1, expected True or False"),
        ({"stages": [1]}, "stages is [1], expected a tuple of ints"),
        ({"stages": (1, "2")}, "stages is (1, '2'), expected a tuple of ints"),
        ({"mean": (0.5, 0.5)}, "mean is (0.5, 0.5), expected a tuple of 3 numbers"),
        ({"names": {"a": 5}}, "names is {'a': 5}, expected a mapping from texts to texts"),
        ({"inner": 5}, "inner is 5, expected Inner"),
    ],
)
def test_field_that_its_annotation_or_its_bounds_rule_out_is_named(values: dict[str, Any], fault: str | None) -> None:
    assert wrong_field(Typed(**values)) == fault
