"""Draw views: a pure integer function of (seed, epoch, index).

Another implementation draws the same integers when it follows the rules V1 to V11 of spec/hello-0.9.md, whose words
W[n], R[k] and S are meant below.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor

from hellods.device import to_device
from hellods.views.rule import Views

MAX_COUNT: Final = 1 << 31  # images in a set; keeps V3 within 63 bits

# V1, as signed 64-bit integers; torch wraps around as V1 wants.
GAMMA: Final = 0x9E3779B97F4A7C15 - (1 << 64)
FIRST: Final = 0xBF58476D1CE4E5B9 - (1 << 64)
SECOND: Final = 0x94D049BB133111EB - (1 << 64)

# The numbers of the words in W.
FLIP, PARTNER, EXTENT, CENTER, CROP, PLACE, ROWS, COLUMNS = 0, 1, 2, 3, 8, 28, 32, 48

# V5. No entry is near a tie, so any float64 power gives the same integers (a test holds this).
RATIOS: Final = torch.tensor([round(65536 * (4 / 3) ** ((2 * k - 1023) / 1024)) for k in range(1024)], device="cpu")


@dataclass(frozen=True, kw_only=True)
class Draw:
    """B drawn views as int64 tensors: what `render` needs besides the images."""

    size: int  # S, pixels per side of each view
    index: Tensor  # (B,) which image
    box: Tensor  # (B, 4) top, left, height, width of the crop in the shuffled image
    flip: Tensor  # (B,) 1 where left and right are mirrored after the crop
    rows: Tensor  # (B, shuffle) strip k of the shuffled image is strip rows[k] of the source
    columns: Tensor  # (B, shuffle) likewise from left to right
    partner: "Draw | None" = None  # the views to mix in
    patch: Tensor | None = None  # (B, 4) CutMix: top, left, height, width of the partner's part, in pixels of the view
    weight: Tensor | None = None  # (B,) mixup: the image's own weight in 1/2048ths

    @property
    def shown(self) -> Tensor:
        """int64 (B,) or (2B,), the images that are seen, those that are mixed in last."""
        return self.index if self.partner is None else torch.cat([self.index, self.partner.index])

    def compact(self) -> tuple[Tensor, "Draw"]:
        """Return the images that are shown, int64 (M,), each once; and the same views, counted in these."""
        images, places = torch.unique(self.shown, return_inverse=True)
        first, second = places[: len(self.index)], places[len(self.index) :]
        return images, replace(self, index=first, partner=self.partner and replace(self.partner, index=second))

    def to(self, device: torch.device | str) -> "Draw":
        """Return the same views on `device`."""
        moved: dict[str, Any] = {name: to_device(v, device) for name, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved, partner=self.partner and self.partner.to(device))


def draw(views: Views, side: tuple[int, int], count: int, seed: int, epoch: int | Tensor, indices: Tensor) -> Draw:
    """Return the views of some images: the same integers for any batch, order and device.

    Args:
        views: the rule.
        side: height and width of every image.
        count: images in the whole set, over which partners are drawn; 1 to 2**31.
        seed: 0 to 2**63 - 1.
        epoch: from 0; one number, or one for each index (B,).
        indices: integers (B,) from 0 to count - 1; the views come on their device.

    Raises:
        ValueError: a side that cannot be cut into equal strips, or a number out of range.
    """
    views.check(*side)
    if not 1 <= count <= MAX_COUNT:
        raise ValueError(f"count is {count}, choose 1 to {MAX_COUNT}")
    if not 0 <= seed < 1 << 63:
        raise ValueError(f"seed is {seed}, choose 0 to 2**63 - 1")
    device = indices.device
    epochs = torch.full((), epoch, device=device) if isinstance(epoch, int) else to_device(epoch, device)
    stream = _word(seed, epochs.long())

    state = _word(stream, indices.long())
    view = _unmixed(views, side, state, indices.long())
    if views.mix == "none":
        return view
    words = _words(state, CENTER + 2)
    index = _below(words[:, PARTNER], count)
    partner = _unmixed(views, side, _word(stream, index), index)
    if views.mix == "mixup":
        return replace(view, partner=partner, weight=_below(words[:, EXTENT], 2049))
    return replace(view, partner=partner, patch=_patch(views.size, words))


def middle(size: int, side: tuple[int, int], indices: Tensor) -> Draw:
    """Return center crops: the largest centered square of each image, not flipped, shuffled or mixed.

    Args:
        size: pixels per side of a view.
        side: height and width of every image.
        indices: int64 (B,); the views come on their device.
    """
    short = min(side)
    numbers = ((side[0] - short) // 2, (side[1] - short) // 2, short, short)
    box = torch.stack([torch.full_like(indices, number) for number in numbers], dim=1)
    whole = indices.new_zeros(len(indices), 1)
    return Draw(size=size, index=indices, box=box, flip=whole[:, 0], rows=whole, columns=whole)


def blend(values: Tensor, draw: Draw) -> Tensor:
    """Return (B, K) values blended as the views are: each image's own by its share, its partner's for the rest.

    Args:
        values: float (N, K), of every image in the set, such as its class as one-hot.
        draw: B views.
    """
    if draw.partner is None:
        return values[draw.index]
    if draw.weight is not None:
        share = draw.weight / 2048
    else:
        assert draw.patch is not None
        share = 1 - draw.patch[:, 2] * draw.patch[:, 3] / draw.size**2
    return torch.lerp(values[draw.partner.index], values[draw.index], share[:, None])


def _unmixed(views: Views, side: tuple[int, int], state: Tensor, index: Tensor) -> Draw:
    words = _words(state, COLUMNS + views.shuffle if views.shuffle > 1 else ROWS)
    flip = _shift(words[:, FLIP], 63) * int(views.flip)
    rows = columns = torch.zeros_like(flip)[:, None]  # of a single strip
    if views.shuffle > 1:
        keys = (words[:, start : start + views.shuffle] for start in (ROWS, COLUMNS))
        rows, columns = (_shift(key, 1).argsort(dim=1, stable=True) for key in keys)
    box = _box(views, side, words)
    return Draw(size=views.size, index=index, box=box, flip=flip, rows=rows, columns=columns)


def _box(views: Views, side: tuple[int, int], words: Tensor) -> Tensor:
    tall, wide = side
    low, high = (int(65536 * bound + 0.5) for bound in views.scale)
    ratios = _ratios(words.device)
    step = _below(words[:, CROP + 1 : PLACE : 2], 1024)  # (B, attempts)
    area = tall * wide * (low + _below(words[:, CROP:PLACE:2], high - low + 1))
    widths = (_root(area * ratios[step] >> 30) + 1) >> 1
    heights = (_root(area * ratios[1023 - step] >> 30) + 1) >> 1

    fits = (widths > 0) & (widths <= wide) & (heights > 0) & (heights <= tall)
    found = fits.any(1)
    first = fits.long().argmax(1, keepdim=True)
    height = torch.where(found, heights.gather(1, first)[:, 0], min(tall, (8 * wide + 3) // 6))
    width = torch.where(found, widths.gather(1, first)[:, 0], min(wide, (8 * tall + 3) // 6))
    top = torch.where(found, _below(words[:, PLACE], tall - height + 1), (tall - height) >> 1)
    left = torch.where(found, _below(words[:, PLACE + 1], wide - width + 1), (wide - width) >> 1)
    return torch.stack([top, left, height, width], dim=1)


@cache
def _ratios(device: torch.device) -> Tensor:
    # A GPU is waited for here, so that any of its streams may read what is kept.
    return RATIOS.to(device)


def _patch(size: int, words: Tensor) -> Tensor:
    half = _root(size * size * _shift(words[:, EXTENT], 32) >> 32)[:, None] >> 1
    middle = _below(words[:, CENTER : CENTER + 2], size)
    start = (middle - half).clamp_min(0)
    stop = (middle + half).clamp_max(size)
    return torch.cat([start, stop - start], dim=1)


def _words(state: Tensor, number: int) -> Tensor:
    """(B, number): the first words of each state."""
    return _word(state[:, None], torch.arange(number, device=state.device))


def _word(state: int | Tensor, number: Tensor) -> Tensor:
    x = state + (number + 1) * GAMMA
    x = (x ^ _shift(x, 30)) * FIRST
    x = (x ^ _shift(x, 27)) * SECOND
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift right and fill with zeros; torch's own shift of a signed integer fills with its sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _below(words: Tensor, number: int | Tensor) -> Tensor:
    return _shift(words, 32) * number >> 32


def _root(number: Tensor) -> Tensor:
    """isqrt of 0 to 2**30: a float32 root is off by one at most, whatever the device rounds."""
    root = (number * number.clamp_min(1).float().rsqrt()).long()  # sqrt would wake MKL's threads, which hold up ours
    root = root - (root * root > number).long()
    return root + ((root + 1) * (root + 1) <= number).long()
