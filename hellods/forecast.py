"""cost(): what a long piece of work will take, from its first few steps."""

import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import psutil

from hellods.progress import Progress

STEPS: Final = 3  # of a stage at least; the first is slow, since memory and kernels are new to it, and does not count
WATCHED: Final = 0.25  # seconds at least: a few short steps say little on a machine that has other work


class Trial(NamedTuple):
    """What begins a stage, the steps that it is watched for, and how often it counts."""

    begin: Callable[[Progress], object]  # runs until its progress callback raises
    steps: int = STEPS  # at least
    times: float = 1.0
    decodes: bool = False  # all real images once, beside its own work


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a stage will take."""

    stage: str  # as it reports itself
    steps: int
    seconds: float
    memory: int  # bytes that the process will have held at most until its end


class EnoughError(Exception):
    """A stage was watched for long enough."""


def warmed(begin: Callable[[Progress], object]) -> Callable[[Progress], object]:
    """Return what begins a stage anew after its first steps, whose images are then decoded."""

    def again(watch: Progress) -> None:
        with contextlib.suppress(EnoughError):
            begin(_few)
        begin(watch)

    return again


def _few(stage: str, done: int, of: int) -> None:
    if done >= min(STEPS, of):
        raise EnoughError


def cost(trial: Trial, later: int = 0, *, now: Callable[[], float] = time.monotonic) -> Cost | None:
    """Return what a stage will take; None for one that reports no steps.

    Args:
        trial: what begins it.
        later: bytes that it will hold beside what a few steps hold.
        now: tells the seconds, when the device has done what it was asked.
    """
    ends: list[float] = []
    name, total = "", 0

    def watch(stage: str, done: int, of: int) -> None:
        nonlocal name, total
        name, total = stage, of
        ends.append(now())
        if done >= min(trial.steps, of) and (done == of or ends[-1] - ends[0] >= WATCHED):
            raise EnoughError

    with contextlib.suppress(EnoughError):
        trial.begin(watch)
    if not total:
        return None
    counted = ends[1:] if len(ends) > 2 else ends
    seconds = (counted[-1] - counted[0]) / (len(counted) - 1)
    return Cost(stage=name, steps=total, seconds=trial.times * total * seconds, memory=peak() + later)


def peak() -> int:
    """Return the bytes that this process has held at most."""
    if sys.platform == "win32":
        held: int = psutil.Process().memory_info().peak_wset
        return held
    import resource

    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else held * 1024
