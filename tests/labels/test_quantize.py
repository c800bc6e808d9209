"""Weights in few bits are as near as their steps allow, and the bytes counted for them are what they take."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hellods.labels.quantize import GROUP, dequantize, packed_bytes, quantize

BITS = pytest.mark.parametrize("bits", [2, 4, 8])


def weight(shape: list[int], seed: int = 0, size: float = 1.0) -> Tensor:
    return size * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def steps(rows: Tensor, bits: int) -> Tensor:
    """(R, C): the distance of two numbers that can be told apart, in the group of each number."""
    tops = [part.abs().amax(1, keepdim=True).expand_as(part) for part in torch.split(rows, GROUP, dim=1)]
    return torch.cat(tops, dim=1) / (2 ** (bits - 1) - 1)


@given(
    st.lists(st.integers(1, 70), min_size=2, max_size=4).filter(lambda shape: torch.Size(shape).numel() < 20_000),
    st.integers(2, 8), st.integers(0, 99), st.sampled_from([0.01, 1.0, 100.0]),
)  # fmt: skip
def test_error_is_at_most_half_a_step_of_its_group(shape: list[int], bits: int, seed: int, size: float) -> None:
    value = weight(shape, seed, size)
    back = dequantize(*quantize(value, bits), value.shape)
    assert (back.dtype, back.shape) == (torch.float32, value.shape)
    rows, error = value.flatten(1), (back - value).flatten(1).abs()
    # The scale itself is rounded to float16, which shifts the largest number of a group.
    assert (error <= steps(rows, bits) * 0.5 + rows.abs() * 2**-10).all()


@BITS
def test_zeros_stay_zeros_and_harm_no_other_group(bits: int) -> None:
    value = torch.zeros(3, 2 * GROUP)
    value[1, GROUP:] = 2 ** (bits - 1) - 1  # a scale of one
    assert torch.equal(dequantize(*quantize(value, bits), value.shape), value)


@BITS
def test_the_largest_number_of_a_group_takes_the_largest_code(bits: int) -> None:
    value = weight([5, 2 * GROUP])
    codes, _ = quantize(value, bits)
    assert (codes.abs().amax(2) == 2 ** (bits - 1) - 1).all()


def test_codes_are_symmetric() -> None:
    value = weight([4, 100])
    assert torch.equal(quantize(-value, 4)[0], -quantize(value, 4)[0])


@pytest.mark.parametrize("columns", [1, GROUP - 1, GROUP, GROUP + 1, 27])
def test_rows_of_any_length_are_cut_into_groups(columns: int) -> None:
    value = weight([3, columns])
    codes, scales = quantize(value, 8)
    groups = -(-columns // GROUP)
    assert (codes.shape, scales.shape, scales.dtype) == ((3, groups, GROUP), (3, groups), torch.float16)
    assert (codes.flatten(1)[:, columns:] == 0).all()


def test_weights_that_learn_are_left_alone() -> None:
    value = weight([2, 3]).requires_grad_()
    assert not dequantize(*quantize(value, 8), value.shape).requires_grad


@pytest.mark.parametrize(
    ("shape", "bits", "expected"),
    [
        ((10, 64), 8, 10 * 64 + 10 * 2),
        ((10, 64), 4, 10 * 32 + 10 * 2),
        ((3, 3), 4, 5 + 3 * 2),  # nine codes of half a byte each
        ((2, 65), 8, 2 * 65 + 2 * 2 * 2),  # a second group for one number
        ((128, 128, 3, 3), 8, 128 * 1152 + 128 * 18 * 2),
    ],
)
def test_bytes_are_packed_codes_and_a_half_for_each_group(shape: tuple[int, ...], bits: int, expected: int) -> None:
    assert packed_bytes(torch.Size(shape), bits) == expected


@given(st.lists(st.integers(1, 70), min_size=2, max_size=3))
def test_bytes_at_eight_bits_are_those_of_the_tensors(shape: list[int]) -> None:
    codes, scales = quantize(torch.zeros(shape), 8)
    padding = codes.numel() - torch.Size(shape).numel()
    assert packed_bytes(torch.Size(shape), 8) == codes.nbytes - padding + scales.nbytes
