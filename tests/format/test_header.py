"""Headers read back as they were written, and nothing that a header cannot hold is written."""

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from hellods.errors import FormatError
from hellods.format.header import Header, Images, Section, emit, parse

from .forge import HEADER, SECTIONS, entry

SEALED = {**HEADER, "sections": [entry(name, raw, raw) for name, raw in SECTIONS.items()]}
KEYS = st.text(st.characters(max_codepoint=127), max_size=5)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
FREE = st.dictionaries(
    KEYS,
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=5,
    ),
    max_size=3,
)
MINE = st.dictionaries(KEYS.map(lambda key: f"x-{key}"), TEXTS, max_size=2)
NUMBERS = st.floats(0.001, 1000).map(lambda value: round(value, 6))


def section(name: str, length: int, **values: Any) -> Section:
    critical = name not in ("probe", "card", "x-mine")
    fields: dict[str, Any] = {"length": length, "raw_length": length, "encoding": "identity", "sha256": "0f" * 32}
    return Section(name=name, critical=critical, **{**fields, **values})


@st.composite
def headers(draw: st.DrawFn) -> Header:
    count = draw(st.integers(1, 1000))
    images = Images(
        count=count,
        codec=draw(st.sampled_from(["png", "jpeg", "webp", "avif"])),
        height=draw(st.integers(1, 1024)),
        width=draw(st.integers(1, 1024)),
        mean=draw(st.tuples(NUMBERS, NUMBERS, NUMBERS)),
        std=draw(st.tuples(NUMBERS, NUMBERS, NUMBERS)),
        extra=draw(MINE),
    )
    lengths = {"images": 10, "images.index": 8 * count, "targets": 4 * count}
    required = [section(name, length, extra=draw(MINE)) for name, length in lengths.items()]
    optional = draw(st.lists(st.sampled_from(["projector", "card", "x-mine"]), unique=True))
    if "projector" in optional:
        optional += draw(st.lists(st.sampled_from(["probe", "backbone"]), unique=True))
    tower = {"tower": {}} if "backbone" in optional else {}
    return Header(
        name=draw(TEXTS),
        license=draw(TEXTS),
        created_by=draw(TEXTS),
        source=draw(FREE),
        classes=tuple(draw(st.lists(TEXTS.filter(bool), min_size=1, max_size=5, unique=True))),
        images=images,
        views=draw(FREE),
        projector={**draw(FREE), **tower} if "projector" in optional else None,
        teacher=draw(FREE),
        recipe=draw(FREE),
        metrics=draw(FREE),
        sections=(*required, *(section(name, 100, raw_length=1000, encoding="zstd") for name in optional)),
        extra=draw(MINE),
    )


@given(headers())
@settings(max_examples=60)
def test_header_reads_back_as_it_was(header: Header) -> None:
    assert parse(emit(header), "x") == header


def test_header_is_spelled_as_rfc8785_spells_it() -> None:
    data = rfc8785.dumps(SEALED)
    assert emit(parse(data + b" " * (-len(data) % 64), "x")).rstrip() == data


def test_unknown_keys_of_a_newer_minor_survive_rewriting() -> None:
    value = copy.deepcopy(SEALED)
    for record in (value, value["images"], value["sections"][0]):
        record["later"] = {"a": [1]}
    value["format"] = "hello/0.10"
    data = rfc8785.dumps(value)
    data += b" " * (-len(data) % 64)
    assert emit(parse(data, "x")) == data


@pytest.mark.parametrize("key", ["images", "sections"])
def test_unknown_key_of_this_minor_is_refused_with_its_place(key: str) -> None:
    value = copy.deepcopy(SEALED)
    (value["sections"][0] if key == "sections" else value["images"])["later"] = 0
    data = rfc8785.dumps(value)
    with pytest.raises(FormatError, match=rf"x: header\.{key}.*: unknown key 'later' \[H9\]"):
        parse(data + b" " * (-len(data) % 64), "x")


@pytest.mark.parametrize(
    "value",
    [2**53, "\ud800", {"ä": 0}, {1: 0}, {"a": {1}}, b"", float("inf"), json.loads("[" * 31 + "]" * 31)],
    ids=["54 bits", "surrogate", "key not ASCII", "key not text", "set", "bytes", "infinity", "deep"],
)
def test_value_that_json_cannot_hold_is_not_written(value: object) -> None:
    header = replace(from_forge(), metrics={"value": value})
    with pytest.raises(FormatError, match=r"\[H7\]$"):
        emit(header)


def test_header_above_the_limit_is_not_written() -> None:
    with pytest.raises(FormatError, match=r"the limit is 1048576 \[H3\]"):
        emit(replace(from_forge(), name="a" * (1 << 20)))


def test_float_is_written_as_a_decimal() -> None:
    assert b'"metrics":{"accuracy":"0.5"}' in emit(replace(from_forge(), metrics={"accuracy": 0.5}))


def from_forge() -> Header:
    data = rfc8785.dumps(SEALED)
    return parse(data + b" " * (-len(data) % 64), "x")
