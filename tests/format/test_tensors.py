"""What the checker of safetensors accepts, safetensors itself opens."""

import json
import random
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hellods.errors import FormatError
from hellods.format.tensors import check

DTYPES = ["bool", "u1", "i1", "<u2", "<i2", "<f2", "<u4", "<i4", "<f4", "<u8", "<i8", "<f8"]
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0))
)
GOOD = safetensors.numpy.save(
    {"factor": np.zeros((3, 4), np.float16), "head": np.ones(3, np.float32), "none": np.zeros((0, 2), np.uint8)},
    metadata={"by": "hellods"},
)


def file(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(**values: Any) -> dict[str, Any]:
    return {"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2], **values}}


@given(st.dictionaries(st.text("abc.", min_size=1, max_size=4), ARRAYS, max_size=4))
@settings(max_examples=50)
def test_what_safetensors_writes_is_accepted(tensors: dict[str, Any]) -> None:
    check(safetensors.numpy.save(tensors), "x")


def test_what_is_accepted_opens_in_safetensors() -> None:
    generator = random.Random(0)
    accepted = 0
    for _ in range(3000):
        data = bytearray(GOOD)
        for _ in range(generator.randint(1, 3)):
            data[generator.randrange(len(data) - 24)] = generator.choice(b'0123456789[]{},:"UIF\x00\xff')
        try:
            check(bytes(data), "x")
        except FormatError:
            continue
        safetensors.deserialize(bytes(data))
        accepted += 1
    assert accepted > 30


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        (2**64 - 1).to_bytes(8, "little") + b"{}",
        (3).to_bytes(8, "little") + b"{}",
        file(b" {}"),
        file(b"[]"),
        file(b'{"a":'),
        file(
            b'{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}',
            b"0",
        ),
        file({"__metadata__": {"a": 1}}),
        file({"__metadata__": []}),
        file({}, b"more"),
        file({"a": 0}),
        file({"a": {}}),
        file(tensor(dtype="F7"), bytes(2)),
        file(tensor(more=0), bytes(2)),
        file(tensor(shape=[3]), bytes(2)),
        file(tensor(shape=[True, 2]), bytes(2)),
        file(tensor(shape=[-1, -2]), bytes(2)),
        file(tensor(shape=[2] + [1] * 8), bytes(2)),
        file(tensor(shape=[2**53 - 1] * 8), bytes(2)),
        file(tensor(shape=[0, 2**53 - 1, 2**53 - 1], data_offsets=[0, 0])),
        file(tensor(data_offsets=[1, 3]), bytes(3)),
        file(tensor(data_offsets=[-2, 0]), bytes(2)),
        file(tensor(data_offsets=[0, 2, 4]), bytes(2)),
        file({**tensor(), "b": tensor()["a"]}, bytes(2)),
        file(tensor(), b"0"),
    ],
)
def test_other_bytes_are_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"^x: not a safetensors file: .* \[C4\]$"):
        check(data, "x")
