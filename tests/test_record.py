"""Records say exactly what they hold, and read back as they were."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hellods.distill.recipe import Recipe
from hellods.errors import FormatError, OptionError
from hellods.record import DECIMAL, decimal, from_json, to_json


@dataclass(frozen=True, kw_only=True)
class Inner:
    side: int
    scale: tuple[float, float] = (0.5, 1.0)


@dataclass(frozen=True, kw_only=True)
class Outer:
    codec: Literal["png", "webp"] = "png"
    name: str
    inner: Inner
    notes: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)


OUTER: dict[str, Any] = {"codec": "png", "name": "a", "inner": {"side": 1, "scale": ["0.5", "1"]}, "notes": None}


@given(st.floats(allow_nan=False, min_value=-9e17, max_value=9e17).filter(lambda x: x == 0 or abs(x) > 1e-20))
def test_decimal_reads_back_as_the_number(value: float) -> None:
    text = decimal(value)
    assert DECIMAL.fullmatch(text)
    assert float(text) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e18])
def test_number_without_decimal_is_refused(value: float) -> None:
    with pytest.raises(FormatError, match="finite and below 1e18"):
        decimal(value)


@pytest.mark.parametrize(("value", "text"), [(-0.0, "0"), (1e-45, "0"), (1e-7, "0.0000001"), (np.float64(0.5), "0.5")])
def test_decimal_has_no_exponent_and_no_negative_zero(value: float, text: str) -> None:
    assert decimal(value) == text


def test_whole_number_is_written_as_the_float_that_its_field_holds() -> None:
    assert to_json(Inner(side=1, scale=(0, 1))) == {"side": 1, "scale": ["0", "1"]}
    assert to_json(Recipe(hard_weight=1))["hard_weight"] == "1"
    assert to_json(Recipe(side=None, fit_learning_rate=None))["fit_learning_rate"] is None


def test_record_reads_back_as_it_was() -> None:
    assert to_json(from_json(Outer, OUTER, "here")) == OUTER


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 1}, r"here\.name: found 1, expected str"),
        ({"codec": "gif"}, r"here\.codec: found 'gif', expected one of 'png', 'webp'"),
        ({"codec": True}, r"here\.codec: found True"),
        ({"notes": []}, r"here\.notes: found \[\], expected dict"),
        ({"inner": None}, r"here\.inner: found None, expected an object"),
        ({"inner": {"side": True}}, r"here\.inner\.side: found True, expected int"),
        ({"inner": {"side": 1, "scale": ["1"]}}, r"here\.inner\.scale: 1 items, expected 2"),
        ({"inner": {"side": 1, "scale": ["1", 1]}}, r"here\.inner\.scale\[1\]: found 1, expected a decimal string"),
        ({"inner": {"side": 1, "scale": ["1", "01"]}}, r"here\.inner\.scale\[1\]"),
        ({"inner": {"side": 1, "scale": ["1", "-0"]}}, r"here\.inner\.scale\[1\]"),
        ({"inner": {"side": 1, "scale": ["1", "nan"]}}, r"here\.inner\.scale\[1\]"),
        ({"inner": {}}, r"here\.inner: key 'side' is missing"),
        ({"color": "red\n"}, r"here: unknown key 'color'"),
        ({"extra": {}}, r"here: unknown key 'extra'"),
    ],
)
def test_wrong_value_is_named_with_its_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        from_json(Outer, {**OUTER, **change}, "here", error=OptionError)


def test_missing_key_is_the_one_without_a_default() -> None:
    with pytest.raises(FormatError, match="here: key 'name' is missing"):
        from_json(Outer, {}, "here")


def test_knob_out_of_range_is_named_with_its_place() -> None:
    with pytest.raises(OptionError, match=r"^x\.toml: side is 4, expected 8 to 4096$"):
        from_json(Recipe, {"side": 4}, "x.toml", error=OptionError)


def test_value_refused_by_the_class_is_named_with_its_place() -> None:
    @dataclass(frozen=True)
    class Positive:
        side: int

        def __post_init__(self) -> None:
            if self.side <= 0:
                raise ValueError("side is below one")

    with pytest.raises(FormatError, match="here: side is below one"):
        from_json(Positive, {"side": 0}, "here")


def test_keys_of_others_are_kept() -> None:
    value = {**OUTER, "x-mine": [1]}
    assert to_json(from_json(Outer, value, "here")) == value


def test_unknown_keys_are_kept_when_lenient() -> None:
    value = {**OUTER, "extra": 1, "later": {"a": "b"}}
    assert to_json(from_json(Outer, value, "here", lenient=True)) == value


def test_unknown_keys_are_dropped_where_there_is_no_place_for_them() -> None:
    assert from_json(Inner, {"side": 1, "x-mine": 0}, "here") == Inner(side=1)
