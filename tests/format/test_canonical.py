"""JSON has one spelling, the one of RFC 8785."""

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from hellods.format.canonical import dumps, loads

KEYS = st.text(st.characters(max_codepoint=127), max_size=5)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
INTEGERS = st.integers(-(2**53) + 1, 2**53 - 1)
VALUES = st.recursive(
    st.none() | st.booleans() | INTEGERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_spelling_is_that_of_rfc8785(value: object) -> None:
    assert dumps(value) == rfc8785.dumps(value)  # type: ignore[arg-type]


@given(VALUES)
def test_value_reads_back_as_it_was(value: object) -> None:
    assert loads(dumps(value)) == value


def test_32_levels_are_read() -> None:
    assert loads(b"[" * 32 + b"]" * 32)


@pytest.mark.parametrize("bracket", [b"[", b'{"a":'])
def test_depth_is_limited_before_the_parser_recurses(bracket: bytes) -> None:
    with pytest.raises(ValueError, match="nested deeper than 32"):
        loads(bracket * 300_000)


def test_brackets_in_texts_are_not_levels() -> None:
    text = b'"' + b'[{\\"' * 100 + b'"'
    assert loads(text) == '[{"' * 100


def test_text_without_an_end_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="Unterminated"):
        loads(b'"' + b'\\"' * 500_000)  # minutes, if each quote were tried as a beginning


@pytest.mark.parametrize("value", [{None: 2, "a": 1}, {"a": {1, 2}}, float("nan"), b"bytes", "\ud800"])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"not a JSON value|surrogates|not JSON compliant"):
        dumps(value)
