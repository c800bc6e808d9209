"""Does the teacher count its classes in another order than the data?

Two facts carry the test. Each half of the images gives a confusion matrix; the order is guessed from the first half
and judged on the second, so chance finds cannot pass for evidence. And in a cycle i -> o(i) -> … of classes that a
classifier truly confuses, the product of P(i | i) is at least that of P(o(i) | i), however it is biased between
classes: it answers j only where w_j·p_j(x) >= w_i·p_i(x), so P(o(i) | i) <= w_o(i) / w_i · P(o(i) | o(i)), and around
a cycle the weights cancel. Only another order of the classes turns this round.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Final

from torch import Tensor

from hellods.sources.folders import shorten

Confusion = Counter[tuple[int, int]]  # (class, what it was called) -> how often; of K² pairs few occur

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
    guess, judge = (confusion(targets[start::2], predicted[start::2]) for start in (0, 1))
    cycles = swapped(guess, judge, len(classes))
    if not cycles:
        return None
    names = [f"{classes[here]!a} is called {classes[there]!a}" for cycle in cycles for here, there in _steps(cycle)]
    found, possible = (reorder(guess + judge, right) for right in ([], cycles))
    return (
        f"{who} and data have their classes in different orders: {shorten(names)}; in its own order the {who} is "
        f"right on {possible:.1%} instead of {found:.1%}"
    )


def confusion(targets: Tensor, predicted: Tensor) -> Confusion:
    """Return how often an image of one class was called another, for int64 (N,) classes and answers."""
    return Counter(zip(targets.tolist(), predicted.tolist(), strict=True))


def swapped(guess: Confusion, judge: Confusion, classes: int) -> list[tuple[int, ...]]:
    """Return the cycles of classes whose images are called by the next one's name, longest first; none if orders agree.

    Args:
        guess: of one half of the images, from which the order is guessed.
        judge: of the other half.
        classes: how many there are.
    """
    cycles = _cycles(_assignment(guess, classes))
    return sorted((cycle for cycle in cycles if _holds(judge, cycle)), key=len, reverse=True)


def reorder(confused: Confusion, cycles: list[tuple[int, ...]]) -> float:
    """Return the accuracy in 0..1 that the teacher would have with the classes of `cycles` put right."""
    names = {here: there for cycle in cycles for here, there in _steps(cycle)}
    right = sum(count for (label, found), count in confused.items() if found == names.get(label, label))
    return right / confused.total()


def _assignment(confused: Confusion, classes: int) -> list[int]:
    """Give every class a name of its own, the most frequent answers first; a class keeps its name at a tie."""
    names, taken = [-1] * classes, [False] * classes
    pairs = confused.keys() | {(label, label) for label in range(classes)}
    for label, name in sorted(pairs, key=lambda pair: (-confused[pair], pair[0] != pair[1], pair)):
        if names[label] < 0 and not taken[name]:
            names[label], taken[name] = name, True
    free = (name for name in range(classes) if not taken[name])
    return [next(free) if name < 0 else name for name in names]


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


def _holds(judge: Confusion, cycle: tuple[int, ...]) -> bool:
    own, other = [judge[here, here] for here in cycle], [judge[step] for step in _steps(cycle)]
    ratio = fmean(math.log((there + 0.5) / (here + 0.5)) for here, there in zip(own, other, strict=True))
    deviation = (sum(other) - sum(own)) / math.sqrt(max(1, sum(other) + sum(own)))
    return ratio >= MARGIN and deviation >= DEVIATIONS


def _steps(cycle: tuple[int, ...]) -> list[tuple[int, int]]:
    return list(zip(cycle, cycle[1:] + cycle[:1], strict=True))
