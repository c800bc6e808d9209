"""How far along: the one callback between the library, which counts, and whoever draws."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

# (stage, steps done, steps in all); called with 0 when a stage begins, or with where an earlier build left it, and with
# the total when it ends.
Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Draw nothing."""


def track(items: Iterable[T], total: int, stage: str, progress: Progress) -> Iterator[T]:
    """Yield each of `total` items, and report when the caller has finished with it."""
    progress(stage, 0, total)
    for done, item in enumerate(items, start=1):
        yield item
        progress(stage, done, total)
