"""Render drawn views: uint8 images and integers in, uint8 views out, the same bytes on every device.

Rules V12 to V14 of spec/hello-0.9.md say how: by the triangle filter that Pillow and torchvision call bilinear with
antialias, its weights rounded to multiples of 2**-p, width first, then height.

This is what torch's `interpolate` does with uint8 images on a CPU, which takes one crop at a time. Elsewhere, and for
small images, whole batches are rendered at once. Every product and partial sum is a multiple of 2**-p below 256, so
float32, or float64 where p is above 16, holds it exactly, in any order of summation. `embedding_bag` gathers and adds
rows of pixels without a matrix product: there is nothing that autocast, TF32 or `set_float32_matmul_precision` could
shorten, and no work for the zeros of a full weight matrix.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from math import prod
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag, interpolate

from hellods.threads import in_threads
from hellods.views.draw import Draw, draw
from hellods.views.rule import Views

# Pixel values in flight at once. On a CPU a part that fits the cache is several times as fast as a whole batch.
CPU_PART: Final = 1 << 18
PART: Final = 1 << 26
ALONE: Final = 3 * 64 * 64  # values of an image or view from which a CPU is faster with one at a time
PRECISE: Final = 22  # p is no higher
EXACT: Final = 3  # times S that L may be for p to stay within 16


def render(images: Tensor, drawn: Draw) -> Tensor:
    """Return the drawn views.

    Args:
        images: uint8 (N, 3, H, W), what `draw` was given the side and the count of; on a CPU channels_last is faster.
        drawn: B views; moved to the device of the images if it is on another.

    Returns:
        uint8 (B, 3, S, S) on the device of the images.

    Raises:
        ValueError: images of another type or shape.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images are {images.dtype} {tuple(images.shape)}, expected torch.uint8 (N, 3, H, W)")
    drawn, cpu = drawn.to(images.device), images.device.type == "cpu"
    values = 3 * max(images.shape[2], drawn.size) * max(images.shape[3], drawn.size)
    views = images.new_empty(len(drawn.index), 3, drawn.size, drawn.size)
    if cpu and values >= ALONE and _kernel_follows():
        _one_by_one(images, drawn, views)
    else:
        _together(images, drawn, views, max(1, (CPU_PART if cpu else PART) // values))
    return views


@cache
def _kernel_follows() -> bool:
    """Whether this torch's kernel resizes by the rule, as that of torch 2.14 does."""
    side, epochs = (48, 40), torch.arange(8, device="cpu")
    images = (torch.arange(3 * prod(side), device="cpu") ** 2 % 251).to(torch.uint8).view(1, 3, *side)
    drawn = draw(Views(size=24), side, 1, 0, epochs, torch.zeros_like(epochs))
    alone, together = images.new_empty(2, len(epochs), 3, drawn.size, drawn.size)
    _one_by_one(images, drawn, alone)
    _together(images, drawn, together, 1)
    return torch.equal(alone, together)


def _one_by_one(images: Tensor, drawn: Draw, views: Tensor) -> None:
    """Render on the CPU with torch's kernel, which uses one thread, and not the GIL."""
    targets = views.numpy()

    def show(places: range) -> None:
        others = None if drawn.partner is None else _unmixed(images, drawn.partner, places)
        for place, (view, flip) in zip(places, _unmixed(images, drawn, places), strict=True):
            np.copyto(targets[place], view)
            if flip:
                _mirror(targets[place])
            if others is not None:
                other, turn = next(others)
                _mix_in(targets[place], other[:, :, ::-1] if turn else other, drawn, place)

    in_threads(show, len(views))


def _unmixed(images: Tensor, drawn: Draw, places: range) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Yield the views at some places, uint8 (3, S, S), and whether they are still to be mirrored."""
    size, some = (drawn.size, drawn.size), slice(places.start, places.stop)
    facts = (drawn.index, drawn.box, drawn.flip, drawn.rows, drawn.columns)
    pictures = images.permute(0, 2, 3, 1).numpy()  # numpy copies in this thread, where torch would wait for its own
    for index, (top, left, height, width), flip, rows, columns in zip(*(v[some].tolist() for v in facts), strict=True):
        picture = pictures[index]
        bands = [picture[run] for run in _runs(top, height, rows, picture.shape[0])]
        band = bands[0] if len(bands) == 1 else np.concatenate(bands)
        crop = np.concatenate([band[:, run] for run in _runs(left, width, columns, picture.shape[1])], axis=1)
        # channels_last, which the kernel is fast with, and without which it fails for views of one pixel
        shown = torch.from_numpy(np.ascontiguousarray(crop))[None].permute(0, 3, 1, 2)
        view: NDArray[np.uint8] = interpolate(shown, size, mode="bilinear", antialias=True)[0].numpy()
        yield view, flip


def _mirror(view: NDArray[np.uint8]) -> None:
    """Turn each row round, in place: a byte at a time takes as long as resizing, in words an eighth of that."""
    size = 8 if view.shape[2] % 8 == 0 else 1
    np.copyto(view.view(f"<u{size}"), view.view(f">u{size}")[:, :, ::-1])


def _runs(start: int, length: int, strips: Sequence[int], side: int) -> list[slice]:
    """Return where, along a side of the image, a crop of its shuffled strips lies."""
    strip, runs = side // len(strips), []
    for place in range(start // strip, -(-(start + length) // strip)):
        begin, end = max(start, place * strip), min(start + length, (place + 1) * strip)
        moved = strip * (strips[place] - place)
        runs.append(slice(begin + moved, end + moved))
    return runs


def _mix_in(view: NDArray[np.uint8], other: NDArray[np.uint8], drawn: Draw, place: int) -> None:
    if drawn.weight is not None:
        weight = int(drawn.weight[place])
        view[:] = (weight * view.astype(np.int32) + (2048 - weight) * other.astype(np.int32) + 1024) >> 11
    elif drawn.patch is not None:
        top, left, height, width = drawn.patch[place].tolist()
        patch = (slice(None), slice(top, top + height), slice(left, left + width))
        view[patch] = other[patch]


def _together(images: Tensor, drawn: Draw, views: Tensor, part: int) -> None:
    """Render `part` views at a time, on any device."""
    parts = [slice(start, start + part) for start in range(0, len(drawn.index), part)]
    own = _batches(images, drawn, part, parts)
    if drawn.partner is None:
        for some, view in zip(parts, own, strict=True):
            views[some].copy_(view)
        return
    for some, view, other in zip(parts, own, _batches(images, drawn.partner, part, parts), strict=True):
        if drawn.weight is not None:
            weight = drawn.weight[some, None, None, None].int()
            view = (weight * view + (2048 - weight) * other + 1024) >> 11
        elif drawn.patch is not None:
            view = torch.where(_inside(drawn.patch[some], drawn.size), other, view)
        views[some].copy_(view)


def _inside(patch: Tensor, size: int) -> Tensor:
    """(B, 1, S, S): true where CutMix shows the partner."""
    top, left, height, width = patch[:, :, None].unbind(1)
    pixel = torch.arange(size, device=patch.device)
    rows = (pixel >= top) & (pixel < top + height)
    columns = (pixel >= left) & (pixel < left + width)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _batches(images: Tensor, drawn: Draw, part: int, parts: Sequence[slice]) -> Iterator[Tensor]:
    """Yield the views of each part before mixing, int16 (b, 3, S, S)."""
    top, left, height, width = drawn.box.unbind(1)
    rows, row_weights = _taps(height, top, drawn.rows, images.shape[2], drawn.size)
    columns, column_weights = _taps(width, left, drawn.columns, images.shape[3], drawn.size)
    flipped = drawn.flip.bool()[:, None, None]
    columns = torch.where(flipped, columns.flip(1), columns)
    column_weights = torch.where(flipped, column_weights.flip(1), column_weights)

    rows, row_weights = _bags(rows, row_weights, images.shape[2], part)
    columns, column_weights = _bags(columns, column_weights, images.shape[3], part)
    for some in parts:
        turned = images[drawn.index[some]].transpose(2, 3)
        shown = turned.to(column_weights.dtype, memory_format=torch.contiguous_format)
        short = _mix(shown, columns[some], column_weights[some]).transpose(2, 3)
        # int16 rounds down, and is made of float32, and uint8 of it, by vector instructions: straight to uint8 torch
        # goes number by number.
        short = short.to(torch.int16, memory_format=torch.contiguous_format).to(row_weights.dtype)
        yield _mix(short, rows[some], row_weights[some]).to(torch.int16)


def _bags(pixels: Tensor, weights: Tensor, length: int, part: int) -> tuple[Tensor, Tensor]:
    """Numbers of lines, int64 (B, 3, S, T), and their weights, from those of one axis (B, S, T).

    Lines are counted over the channels of `part` images at a time, which have `length` lines each.
    """
    place = torch.arange(len(pixels), device=pixels.device) % part
    plane = 3 * place[:, None] + torch.arange(3, device=pixels.device)
    bags = (plane * length)[:, :, None, None] + pixels[:, None]
    return bags, weights[:, None].expand_as(bags).contiguous()


def _taps(length: Tensor, start: Tensor, strips: Tensor, side: int, size: int) -> tuple[Tensor, Tensor]:
    """Source pixels, int64 (B, S, T), and their weights, (B, S, T), along one axis of a batch of crops."""
    length, start = length[:, None, None], start[:, None, None]
    reach = 2 * length.clamp_min(size)
    middle = (2 * torch.arange(size, device=length.device)[:, None] + 1) * length
    first = torch.div(middle - reach - size, 2 * size, rounding_mode="floor") + 1
    taps = -(-2 * max(side, size) // size)  # enough for a crop of the whole side
    pixel = first + torch.arange(taps, device=length.device)

    near = (reach - ((2 * pixel + 1) * size - middle).abs()).clamp_min(0)
    near = torch.where((pixel >= 0) & (pixel < length), near, 0).double()
    # Of the shares, those that the rounding below finds in the middle have a power of two for denominator, and float64
    # holds them; the others are farther from a middle than float64 is from them.
    share = near.div_(near.sum(2, keepdim=True))
    powers = 2.0 ** torch.arange(1, PRECISE + 1, device=length.device, dtype=torch.float64)
    fits = (share.amax((1, 2))[:, None] * powers + 0.5).floor_() < 1 << 15
    one = (1 << fits.sum(1)).double()[:, None, None]
    weights = (share * one + 0.5).floor_() / one

    pixel = start + torch.minimum(pixel.clamp_min(0), length - 1)
    if strips.shape[1] > 1:
        strip = side // strips.shape[1]
        place = torch.div(pixel, strip, rounding_mode="floor")
        pixel = pixel + strip * (strips.gather(1, place.flatten(1)).view_as(place) - place)
    dtype = torch.float32 if side <= EXACT * size else torch.float64
    return pixel, weights.to(dtype)


def _mix(images: Tensor, bags: Tensor, weights: Tensor) -> Tensor:
    """(B, 3, S, X) from (B, 3, L, X): weighted sums of lines, plus 1/2."""
    batch, channels, size, taps = bags.shape
    lines = images.view(-1, images.shape[3])
    sums = embedding_bag(bags.reshape(-1, taps), lines, mode="sum", per_sample_weights=weights.reshape(-1, taps))
    return sums.add_(0.5).view(batch, channels, size, -1)
