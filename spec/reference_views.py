"""Rules V1 to V14 in plain Python integers, one view and one channel at a time: literal, not fast."""

from fractions import Fraction
from math import floor, isqrt
from typing import Any

MASK = (1 << 64) - 1

Image = list[list[int]]  # one channel, rows of pixels
Box = tuple[int, int, int, int]


def word(state: int, number: int) -> int:
    x = (state + (number + 1) * 0x9E3779B97F4A7C15) & MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def below(value: int, number: int) -> int:
    return (value >> 32) * number >> 32


def ratio(step: int) -> int:
    return round(65536 * (4 / 3) ** ((2 * step - 1023) / 1024))


def unmixed(rule: dict[str, Any], side: tuple[int, int], seed: int, epoch: int, index: int) -> dict[str, Any]:
    """One view without its partner, as plain integers."""
    state = word(word(seed, epoch), index)
    strips = range(rule["shuffle"])
    return {
        "box": crop(rule, side, state),
        "flip": int(rule["flip"] and word(state, 0) >= 1 << 63),
        "rows": sorted(strips, key=lambda k: (word(state, 32 + k) >> 1, k)),
        "columns": sorted(strips, key=lambda k: (word(state, 48 + k) >> 1, k)),
    }


def crop(rule: dict[str, Any], side: tuple[int, int], state: int) -> Box:
    tall, wide = side
    low, high = (int(65536 * bound + 0.5) for bound in rule["scale"])
    for attempt in range(10):
        area = tall * wide * (low + below(word(state, 8 + 2 * attempt), high - low + 1))
        step = below(word(state, 9 + 2 * attempt), 1024)
        width = (isqrt(area * ratio(step) >> 30) + 1) >> 1
        height = (isqrt(area * ratio(1023 - step) >> 30) + 1) >> 1
        if 1 <= width <= wide and 1 <= height <= tall:
            return below(word(state, 28), tall - height + 1), below(word(state, 29), wide - width + 1), height, width
    height, width = min(tall, (8 * wide + 3) // 6), min(wide, (8 * tall + 3) // 6)
    return (tall - height) // 2, (wide - width) // 2, height, width


def drawn(rule: dict[str, Any], side: tuple[int, int], count: int, seed: int, epoch: int, index: int) -> dict[str, Any]:
    """One whole view: what `draw` returns for one index, as plain integers."""
    view = {"index": index, **unmixed(rule, side, seed, epoch, index)}
    if rule["mix"] == "none":
        return view
    state = word(word(seed, epoch), index)
    partner = below(word(state, 1), count)
    view["partner"] = {"index": partner, **unmixed(rule, side, seed, epoch, partner)}
    if rule["mix"] == "mixup":
        return {**view, "weight": below(word(state, 2), 2049)}
    size = rule["size"]
    half = isqrt(size * size * (word(state, 2) >> 32) >> 32) // 2
    row, column = below(word(state, 3), size), below(word(state, 4), size)
    top, left = max(0, row - half), max(0, column - half)
    return {**view, "patch": (top, left, min(size, row + half) - top, min(size, column + half) - left)}


def weights(length: int, size: int) -> tuple[list[list[int]], int]:
    """What each of `size` output pixels takes from each of `length` pixels, in how manieths."""
    reach = 2 * max(length, size)
    shares = []
    for output in range(size):
        near = [max(0, reach - abs((2 * j + 1) * size - (2 * output + 1) * length)) for j in range(length)]
        shares.append([Fraction(part, sum(near)) for part in near])
    most = max(max(parts) for parts in shares)
    one = 2 ** sum(floor(most * 2**k + Fraction(1, 2)) < 2**15 for k in range(1, 23))
    return [[floor(part * one + Fraction(1, 2)) for part in parts] for parts in shares], one


def resize(rows: Image, size: int) -> Image:
    """Resize the first dimension."""
    mixed, (shares, one) = [], weights(len(rows), size)
    for parts in shares:
        sums = [sum(part * row[x] for part, row in zip(parts, rows, strict=True)) for x in range(len(rows[0]))]
        mixed.append([floor(Fraction(total, one) + Fraction(1, 2)) for total in sums])
    return mixed


def turn(image: Image) -> Image:
    return [list(column) for column in zip(*image, strict=True)]


def ordered(rows: Image, strips: list[int]) -> Image:
    tall = len(rows) // len(strips)
    return [row for strip in strips for row in rows[strip * tall : (strip + 1) * tall]]


def rendered(image: Image, view: dict[str, Any], size: int) -> Image:
    """One channel of one view, without its partner."""
    top, left, height, width = view["box"]
    shuffled = turn(ordered(turn(ordered(image, view["rows"])), view["columns"]))
    cut = [row[left : left + width] for row in shuffled[top : top + height]]
    result = resize(turn(resize(turn(cut), size)), size)
    return [row[::-1] for row in result] if view["flip"] else result


def mixed(image: Image, partner: Image, view: dict[str, Any]) -> Image:
    """Two rendered channels as one, by the patch or the weight of the view."""
    if "weight" in view:
        own = view["weight"]
        return [
            [(own * a + (2048 - own) * b + 1024) // 2048 for a, b in zip(*rows, strict=True)]
            for rows in zip(image, partner, strict=True)
        ]
    top, left, height, width = view["patch"]
    result = [row[:] for row in image]
    for y in range(top, top + height):
        result[y][left : left + width] = partner[y][left : left + width]
    return result
