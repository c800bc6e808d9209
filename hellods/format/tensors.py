"""Safetensors files, checked without torch: what passes here, any safetensors reader opens."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from hellods.errors import FormatError
from hellods.format import canonical, wire
from hellods.record import from_json


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """An entry of the safetensors header."""

    dtype: Literal["BOOL", "U8", "I8", "U16", "I16", "F16", "BF16", "U32", "I32", "F32", "U64", "I64", "F64"]
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def check(data: bytes, where: str) -> None:
    """Check that `data` is a safetensors file, as https://github.com/huggingface/safetensors#format has it.

    Raises:
        FormatError: it is not, or its header is JSON that two parsers could read differently.
    """
    try:
        _check(data)
    except (ValueError, FormatError) as cause:
        raise FormatError(f"{where}: not a safetensors file: {cause} [C4]") from cause


def _check(data: bytes) -> None:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(len(data) - 8, wire.MAX_HEADER):
        raise ValueError(f"a header of {length} bytes in a file of {len(data)}")
    if data[8:9] != b"{":
        raise ValueError("the header is not an object")
    header = canonical.loads(data[8 : 8 + length])
    _check_metadata(header.pop("__metadata__", {}))
    tensors = [from_json(Tensor, value, ascii(name)) for name, value in header.items()]
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.data_offsets):
        start, stop = tensor.data_offsets
        # Readers compute strides, which must not overflow where a side is 0 either.
        room = math.prod(max(1, side) for side in tensor.shape) * wire.DTYPES[tensor.dtype]
        if len(tensor.shape) > wire.MAX_RANK or min(tensor.shape, default=0) < 0 or room >= 1 << 63:
            raise ValueError(f"shape {tensor.shape!s:.60} is not possible")
        if start != end or stop - start != math.prod(tensor.shape) * wire.DTYPES[tensor.dtype]:
            raise ValueError(f"data_offsets {start} to {stop} do not follow {end} or do not fit the shape")
        end = stop
    if end != len(data) - 8 - length:
        raise ValueError(f"{len(data) - 8 - length} bytes of data, its tensors have {end}")


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("__metadata__ is not an object of strings")
