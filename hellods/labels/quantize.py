"""Weights in few bits: symmetric integers with a float16 scale for every group of a row."""

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

GROUP = 64  # consecutive numbers of a row that share a scale
BITS = {"int8": 8, "int4": 4}  # by the name that an archive has for it


def quantize(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return (codes, scales) of a weight (R, …), whose rows (R, C) are cut into groups, the last filled with zeros.

    The largest number of a group is stored as 2^(bits-1) - 1 times its scale, the others round to the nearest.

    Args:
        weight: float, of two dimensions or more.
        bits: 2 to 8.

    Returns:
        int8 (R, G, 64) codes, and float16 (R, G) scales.
    """
    rows = weight.detach().float().flatten(1)
    groups = F.pad(rows, (0, -rows.shape[1] % GROUP)).view(len(rows), -1, GROUP)
    top = 2 ** (bits - 1) - 1
    scales = (groups.abs().amax(2) / top).half()
    steps = scales.float()[:, :, None]
    codes = torch.where(steps > 0, groups / steps.clamp_min(1e-30), 0).round().clamp(-top, top)
    return codes.to(torch.int8), scales


def dequantize(codes: Tensor, scales: Tensor, shape: torch.Size) -> Tensor:
    """Return the float32 weight of that shape that `quantize` gave these codes and scales for."""
    rows = (codes * scales.float()[:, :, None]).flatten(1)
    return rows[:, : shape[1:].numel()].reshape(shape)


def pack(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return (codes, scales) of a weight as an archive stores them.

    The weight (R, …) counts as the matrix (R, C), or as its transpose where that has longer rows, so that few scales
    are needed and each component of a low-rank factor has its own.

    Returns:
        int8 (R, C) codes for 8 bits; for 4 bits uint8 (R, ⌈C/2⌉), each code plus 8, the even columns in the low half
        of a byte. float16 (R, ⌈C/64⌉) scales.
    """
    matrix = weight.flatten(1)
    matrix = matrix.T.contiguous() if _stands(weight.shape) else matrix
    codes, scales = quantize(matrix, bits)
    codes = codes.flatten(1)[:, : matrix.shape[1]]
    if bits == 8:
        return codes.contiguous(), scales
    halves = F.pad(codes + 8, (0, matrix.shape[1] % 2)).to(torch.uint8)
    return halves[:, 0::2] | halves[:, 1::2] << 4, scales


def unpack(codes: Tensor, scales: Tensor, shape: torch.Size, bits: int) -> Tensor:
    """Return the float32 weight of that shape that `pack` gave these codes and scales for.

    Raises:
        ValueError: it never gives such ones for the shape.
    """
    rows, columns = shape[0], prod(shape[1:])
    rows, columns = (columns, rows) if _stands(shape) else (rows, columns)
    dtype, width = (torch.int8, columns) if bits == 8 else (torch.uint8, -(-columns // 2))
    groups = -(-columns // GROUP)
    for tensor, expected, size in ((codes, dtype, (rows, width)), (scales, torch.float16, (rows, groups))):
        if tensor.dtype != expected or tensor.shape != size:
            raise ValueError(f"{tensor.dtype} of shape {tuple(tensor.shape)}, expected {expected} of {size}")
    if bits == 4:
        codes = torch.stack([codes & 15, codes >> 4], dim=2).flatten(1).to(torch.int8) - 8
    padded = F.pad(codes[:, :columns], (0, -columns % GROUP)).view(rows, groups, GROUP)
    matrix = dequantize(padded, scales, torch.Size((rows, columns)))
    return (matrix.T if _stands(shape) else matrix).reshape(shape)


def _stands(shape: torch.Size) -> bool:
    return shape[0] > prod(shape[1:])


def packed_bytes(shape: torch.Size, bits: int) -> int:
    """Return the bytes that a quantized weight takes: its codes, tightly packed, and its scales."""
    rows, columns = shape[0], shape[1:].numel()
    return -(-rows * columns * bits // 8) + 2 * rows * -(-columns // GROUP)
