"""The mean and deviation of pixels that a teacher expects: plain numbers, no torch."""

from collections.abc import Sequence
from math import isfinite
from typing import Final

from hellods.errors import OptionError
from hellods.format import wire

MEAN: Final = (0.485, 0.456, 0.406)  # ImageNet's, which most published weights expect
STD: Final = (0.229, 0.224, 0.225)


def check_scale(mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise an OptionError where images less `mean`, divided by `std`, are not numbers that a file can state."""
    most, least = wire.MOST_MEAN, wire.LEAST_STD
    three = len(mean) == len(std) == 3 and all(map(isfinite, (*mean, *std)))
    if not three or max(map(abs, mean)) > most or min(std) < least:
        raise OptionError(
            f"mean {tuple(mean)} and std {tuple(std)}: give three numbers each, mean up to {most:g}, std from {least:g}"
        )
    if min(mean) > 1:  # no pixel reaches it
        raise OptionError(f"mean {tuple(mean)}: pixels are in 0..1, so divide mean and std by 255")
