"""Does the teacher count its classes in another order than the data?

Two facts carry the test. Each half of the images gives a confusion matrix; the order is guessed from the first half
and judged on the second, so chance finds cannot pass for evidence. And in a cycle i -> o(i) -> … of classes that a
classifier truly confuses, the product of P(i | i) is at least that of P(o(i) | i), however it is biased between
classes: it answers j only where w_j·p_j(x) >= w_i·p_i(x), so P(o(i) | i) <= w_o(i) / w_i · P(o(i) | o(i)), and around
a cycle the weights cancel. Only another order of the classes turns this round.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import Tensor

from hellods.distill.folders import listed

MARGIN: Final = math.log(1.5)  # a class must answer to its other name 1.5 times as often, in the mean of its cycle
DEVIATIONS: Final = 4.0  # of the difference under equal frequencies: 3e-5 for one honest cycle


def other_order(targets: Tensor, predicted: Tensor, classes: Sequence[str], who: str = "teacher") -> str | None:
    """Return what is wrong with the order of the teacher's classes, or None if the data agree with it.

    Args:
        targets: int64 (N,), the classes of images.
        predicted: int64 (N,), what the label maker says; its halves are the even and the odd places.
        classes: their names, in the order of the data.
        who: names the label maker in the message.
    """
    guess, judge = (confusion(targets[start::2], predicted[start::2], len(classes)) for start in (0, 1))
    cycles = swapped(guess, judge)
    if not cycles:
        return None
    names = [f"{classes[here]!a} is called {classes[there]!a}" for cycle in cycles for here, there in _steps(cycle)]
    found, possible = (reorder(guess + judge, right) for right in ([], cycles))
    return (
        f"{who} and data have their classes in different orders: {listed(names)}; in its own order the {who} is "
        f"right on {possible:.1%} instead of {found:.1%}"
    )


def confusion(targets: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Return int64 (K, K): how often an image of class `row` was called `column`."""
    return torch.bincount(targets * classes + predicted, minlength=classes * classes).view(classes, classes)


def swapped(guess: Tensor, judge: Tensor) -> list[tuple[int, ...]]:
    """Return the cycles of classes whose images are called by the next one's name, longest first; none if orders agree.

    Args:
        guess: int64 (K, K) confusion of one half of the images, from which the order is guessed.
        judge: the same of the other half.
    """
    return sorted((cycle for cycle in _cycles(_assignment(guess)) if _holds(judge, cycle)), key=len, reverse=True)


def reorder(confused: Tensor, cycles: list[tuple[int, ...]]) -> float:
    """Return the accuracy in 0..1 that the teacher would have with the classes of `cycles` put right."""
    names = list(range(len(confused)))
    for cycle in cycles:
        for here, there in _steps(cycle):
            names[here] = there
    return (confused[range(len(names)), names].sum() / confused.sum()).item()


def _assignment(confused: Tensor) -> list[int]:
    """Give every class a name of its own, the most frequent answers first; a class keeps its name at a tie."""
    count = len(confused)
    ranked = (confused * 2 + torch.eye(count, dtype=torch.int64)).flatten().argsort(descending=True, stable=True)
    names, free = [-1] * count, [True] * count
    for place in ranked.tolist():
        row, column = divmod(place, count)
        if names[row] < 0 and free[column]:
            names[row], free[column] = column, False
    return names


def _cycles(names: list[int]) -> Iterator[tuple[int, ...]]:
    seen: set[int] = set()
    for start in range(len(names)):
        cycle = []
        while start not in seen:
            seen.add(start)
            cycle.append(start)
            start = names[start]
        if len(cycle) > 1:
            yield tuple(cycle)


def _holds(judge: Tensor, cycle: tuple[int, ...]) -> bool:
    own = judge[cycle, cycle].double()
    other = judge[[here for here, _ in _steps(cycle)], [there for _, there in _steps(cycle)]].double()
    ratio = ((other + 0.5) / (own + 0.5)).log().mean()
    deviation = (other.sum() - own.sum()) / (other.sum() + own.sum()).clamp_min(1).sqrt()
    return bool(ratio >= MARGIN and deviation >= DEVIATIONS)


def _steps(cycle: tuple[int, ...]) -> list[tuple[int, int]]:
    return list(zip(cycle, cycle[1:] + cycle[:1], strict=True))
