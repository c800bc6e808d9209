"""Render drawn views: uint8 images and integers in, uint8 views out, the same bytes on every device.

A crop of L pixels becomes S pixels by the triangle filter that Pillow and torchvision call bilinear with antialias.
Output i takes from pixel j of the crop a part in proportion to max(0, 2 * max(L, S) - |(2j + 1) * S - (2i + 1) * L|).
With c_j the sum of these numbers over pixels 0 to j and c the sum over all, the weight of pixel j in 1/2048ths is
floor(2048 * c_j / c) - floor(2048 * c_(j-1) / c); the weights add up to 2048. Height is resized first and rounded,
floor(sum / 2048 + 1/2), then width likewise. A crop of S by S pixels is itself.

Every product and partial sum is a multiple of 1/2048 below 256, so float32 holds it exactly, in any order of summation.
`embedding_bag` gathers and adds rows of pixels without a matrix product: there is nothing that autocast, TF32 or
`set_float32_matmul_precision` could shorten, and no work for the zeros of a full weight matrix.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from hellods.views.draw import Draw

# Pixel values in flight at once. On a CPU a part that fits the cache is several times as fast as a whole batch.
CPU_PART: Final = 1 << 18
PART: Final = 1 << 26


def render(images: Tensor, draw: Draw) -> Tensor:
    """Return the drawn views.

    Args:
        images: uint8 (N, 3, H, W), what `draw` was given the side and the count of.
        draw: B views; moved to the device of the images if it is on another.

    Returns:
        uint8 (B, 3, S, S) on the device of the images.

    Raises:
        ValueError: images of another type or shape.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images are {images.dtype} {tuple(images.shape)}, expected torch.uint8 (N, 3, H, W)")
    draw = draw.to(images.device)
    values = 3 * max(images.shape[2], draw.size) * max(images.shape[3], draw.size)
    part = max(1, (CPU_PART if images.device.type == "cpu" else PART) // values)
    parts = [slice(start, start + part) for start in range(0, len(draw.index), part)]
    views = images.new_empty(len(draw.index), 3, draw.size, draw.size)
    own = _unmixed(images, draw, part, parts)
    if draw.partner is None:
        for some, view in zip(parts, own, strict=True):
            views[some].copy_(view)
        return views
    alone = draw.patch if part == 1 else None
    for some, view, other in zip(parts, own, _unmixed(images, draw.partner, part, parts, alone), strict=True):
        if draw.weight is not None:
            weight = draw.weight[some, None, None, None].int()
            view = (weight * view + (2048 - weight) * other + 1024) >> 11
        elif draw.patch is not None and alone is None:
            view = torch.where(_inside(draw.patch[some], draw.size), other, view)
        views[some].copy_(view)
        if alone is not None:
            top, left, height, width = alone[some.start].tolist()
            views[some, :, top : top + height, left : left + width].copy_(other)
    return views


def _inside(patch: Tensor, size: int) -> Tensor:
    """(B, 1, S, S): true where CutMix shows the partner."""
    top, left, height, width = patch[:, :, None].unbind(1)
    pixel = torch.arange(size, device=patch.device)
    rows = (pixel >= top) & (pixel < top + height)
    columns = (pixel >= left) & (pixel < left + width)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _unmixed(
    images: Tensor, draw: Draw, part: int, parts: Sequence[slice], patch: Tensor | None = None
) -> Iterator[Tensor]:
    """Yield the views of each part, int16 (b, 3, S, S); with a `patch` (B, 4), of parts of one view, what it has."""
    top, left, height, width = draw.box.unbind(1)
    rows, row_weights = _taps(height, top, draw.rows, images.shape[2], draw.size)
    columns, column_weights = _taps(width, left, draw.columns, images.shape[3], draw.size)
    flipped = draw.flip.bool()[:, None, None]
    columns = torch.where(flipped, columns.flip(1), columns)
    column_weights = torch.where(flipped, column_weights.flip(1), column_weights)
    heights = widths = [draw.size] * len(draw.index)
    if patch is not None:
        rows, row_weights, heights = _patched(rows, row_weights, patch[:, 0], patch[:, 2])
        columns, column_weights, widths = _patched(columns, column_weights, patch[:, 1], patch[:, 3])

    tall, wide = (torch.full_like(top, side) for side in images.shape[2:])
    if part == 1:  # of an image alone no more is read than its crop
        rows, tall, downs = _windows(rows)
        columns, wide, acrosses = _windows(columns)
        places = zip(draw.index.tolist(), downs, acrosses, strict=True)
        sources = (images[index : index + 1, :, down, across] for index, down, across in places)
    else:
        sources = (images.index_select(0, draw.index[some]) for some in parts)
    rows, row_weights = _bags(rows, row_weights, tall, part)
    columns, column_weights = _bags(columns, column_weights, wide, part)
    for some, source in zip(parts, sources, strict=True):
        down, across = slice(heights[some.start]), slice(widths[some.start])
        shown = source.to(torch.float32, memory_format=torch.contiguous_format)
        short = _mix(shown, rows[some, :, down], row_weights[some, :, down]).floor_()
        mixed = _mix(short.transpose(2, 3).contiguous(), columns[some, :, across], column_weights[some, :, across])
        # int16 rounds down, and is made of float32, and uint8 of it, by vector instructions: straight to uint8 torch
        # goes number by number.
        yield mixed.to(torch.int16).transpose(2, 3).contiguous()


def _patched(pixels: Tensor, weights: Tensor, start: Tensor, length: Tensor) -> tuple[Tensor, Tensor, list[int]]:
    """Move the outputs of a patch, which begins at `start` (B,) of the axis, to the front, before copies of its last.

    Returns:
        source pixels and weights (B, S, T), and how many outputs each patch has, one where it is empty.
    """
    size, length = pixels.shape[1], length.clamp_min(1)
    last = start + length - 1
    place = torch.minimum(start[:, None] + torch.arange(size, device=pixels.device), last[:, None])
    place = place[:, :, None].expand_as(pixels)
    return pixels.gather(1, place), weights.gather(1, place), length.tolist()


def _windows(pixels: Tensor) -> tuple[Tensor, Tensor, list[slice]]:
    """Source pixels (B, S, T) counted from the first that each image needs, how many each needs, and which."""
    first, last = pixels.amin((1, 2)), pixels.amax((1, 2))
    slices = [slice(start, stop + 1) for start, stop in zip(first.tolist(), last.tolist(), strict=True)]
    return pixels - first[:, None, None], last - first + 1, slices


def _bags(pixels: Tensor, weights: Tensor, length: Tensor, part: int) -> tuple[Tensor, Tensor]:
    """Numbers of lines, int64 (B, 3, S, T), and their weights, from those of one axis (B, S, T).

    Lines are counted over the channels of `part` images at a time, which have `length` (B,) lines each.
    """
    place = torch.arange(len(pixels), device=pixels.device) % part
    plane = 3 * place[:, None] + torch.arange(3, device=pixels.device)
    bags = (plane * length[:, None])[:, :, None, None] + pixels[:, None]
    return bags, weights[:, None].expand_as(bags).contiguous()


def _taps(length: Tensor, start: Tensor, strips: Tensor, side: int, size: int) -> tuple[Tensor, Tensor]:
    """Source pixels, int64 (B, S, T), and their weights, float32 (B, S, T), along one axis of a batch of crops."""
    length, start = length[:, None, None], start[:, None, None]
    reach = 2 * length.clamp_min(size)
    middle = (2 * torch.arange(size, device=length.device)[:, None] + 1) * length
    first = torch.div(middle - reach - size, 2 * size, rounding_mode="floor") + 1
    taps = -(-2 * max(side, size) // size)  # enough for a crop of the whole side
    pixel = first + torch.arange(taps, device=length.device)

    near = (reach - ((2 * pixel + 1) * size - middle).abs()).clamp_min(0)
    near = torch.where((pixel >= 0) & (pixel < length), near, 0)
    total = near.cumsum(2)
    share = torch.div(2048 * total, total[:, :, -1:], rounding_mode="floor")
    weights = share.diff(dim=2, prepend=torch.zeros_like(share[:, :, :1]))

    pixel = start + torch.minimum(pixel.clamp_min(0), length - 1)
    if strips.shape[1] > 1:
        strip = side // strips.shape[1]
        place = torch.div(pixel, strip, rounding_mode="floor")
        pixel = pixel + strip * (strips.gather(1, place.flatten(1)).view_as(place) - place)
    return pixel, weights.float() / 2048


def _mix(images: Tensor, bags: Tensor, weights: Tensor) -> Tensor:
    """(B, 3, S, X) from (B, 3, L, X): weighted sums of lines, plus 1/2."""
    batch, channels, size, taps = bags.shape
    lines = images.view(-1, images.shape[3])
    sums = embedding_bag(bags.reshape(-1, taps), lines, mode="sum", per_sample_weights=weights.reshape(-1, taps))
    return sums.add_(0.5).view(batch, channels, size, -1)
