"""Deltas in few bits: the same numbers as before they were packed, in as few bytes, and nothing that does not fit."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hellods.labels.quantize import dequantize, pack, packed_bytes, quantize, unpack


def weight(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@given(st.lists(st.integers(1, 70), min_size=2, max_size=3), st.sampled_from([4, 8]))
def test_unpacking_gives_the_quantized_weight(shape: list[int], bits: int) -> None:
    value = weight(*shape)
    rows = value.flatten(1)
    rows = rows.T if rows.shape[0] > rows.shape[1] else rows
    expected = dequantize(*quantize(rows, bits), rows.shape)
    expected = (expected.T if rows.shape[0] != shape[0] else expected).reshape(shape)
    assert torch.equal(unpack(*pack(value, bits), value.shape, bits), expected)


@pytest.mark.parametrize("bits", [4, 8])
def test_packing_what_was_unpacked_changes_nothing(bits: int) -> None:
    codes, scales = pack(weight(40, 77), bits)
    again = pack(unpack(codes, scales, torch.Size((40, 77)), bits), bits)
    assert torch.equal(again[0], codes)
    assert torch.equal(again[1], scales)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", [(8, 512), (512, 8), (16, 4, 3, 3)])
def test_it_takes_so_many_bits_a_number_and_few_scales(shape: tuple[int, ...], bits: int) -> None:
    codes, scales = pack(weight(*shape), bits)
    assert codes.nbytes == weight(*shape).numel() * bits // 8
    assert scales.nbytes <= weight(*shape).numel() / 16
    assert codes.nbytes + scales.nbytes <= packed_bytes(torch.Size(shape), bits)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("change", ["codes' dtype", "codes' shape", "scales' dtype", "scales' shape", "transposed"])
def test_what_pack_never_returns_is_refused(change: str, bits: int) -> None:
    codes, scales = pack(weight(8, 100), bits)
    if change == "codes' dtype":
        codes = codes.int()
    elif change == "codes' shape":
        codes = codes[:, 1:]
    elif change == "scales' dtype":
        scales = scales.float()
    elif change == "scales' shape":
        scales = scales[1:]
    else:
        codes, scales = codes.T, scales.T
    with pytest.raises(ValueError, match="expected"):
        unpack(codes, scales, torch.Size((8, 100)), bits)
