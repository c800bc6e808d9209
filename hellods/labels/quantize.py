"""Weights in few bits: symmetric integers with a float16 scale for every group of a row."""

import torch
import torch.nn.functional as F
from torch import Tensor

GROUP = 64  # consecutive numbers of a row that share a scale


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


def packed_bytes(shape: torch.Size, bits: int) -> int:
    """Return the bytes that a quantized weight takes: its codes, tightly packed, and its scales."""
    rows, columns = shape[0], shape[1:].numel()
    return -(-rows * columns * bits // 8) + 2 * rows * -(-columns // GROUP)
