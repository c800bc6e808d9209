"""Feed: what one student learns from, made step by step."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from hellods.device import CPU, Clock, to_device
from hellods.evaluate.fidelity import SEEN, fidelity
from hellods.evaluate.presets import ResolvedProtocol
from hellods.labels import LabelMaker
from hellods.sources.source import Source
from hellods.views.draw import blend, draw
from hellods.views.normalize import normalize
from hellods.views.render import render
from hellods.views.rule import Views

# Values of the views that are rendered and labelled at once, over as many epochs as it takes. On a CPU they stay in its
# cache; a GPU waits for the first of each chunk.
AHEAD: Final = 1 << 22
AHEAD_ON_GPU: Final = 1 << 27


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What one student learns from, and what it is measured with."""

    pixels: Callable[[Tensor], Tensor]  # int64 (B,) -> uint8 (B, 3, H, W), on the device
    side: int  # H and W
    targets: Tensor  # int64 (N,)
    views: Views
    labels: LabelMaker | None  # None: the true classes, as mixed
    repeat: int | None = None  # the same views, with the same labels, come again after so many epochs
    protocol: ResolvedProtocol
    steps: int  # in each of the protocol's epochs
    held_out: Source
    mean: tuple[float, ...]
    std: tuple[float, ...]
    teacher: LabelMaker | None = None  # with whom the labels are compared


class Feed:
    """Yields what each step learns: normalized views, and (logits or None, the share of every class).

    Views are rendered and labelled ahead, over several epochs where the batches are small.
    """

    def __init__(self, lesson: Lesson, seed: int, device: torch.device, clock: Clock) -> None:
        self.lesson, self.seed, self.device, self.clock = lesson, seed, device, clock
        self.sizes = batch_sizes(len(lesson.targets), lesson.protocol.batch_size)
        self.views = 0  # rendered so far
        self._compared: list[tuple[Tensor, Tensor | None, Tensor]] = []

    def __iter__(self) -> Iterator[tuple[Tensor, tuple[Tensor | None, Tensor]]]:
        lesson, size = self.lesson, self.lesson.views.size
        most = (AHEAD if self.device == CPU else AHEAD_ON_GPU) // (3 * size * size)
        left = lesson.protocol.epochs * lesson.steps
        batches = self._order()
        while left:
            first = next(batches)
            ahead = min(left, max(1, most // len(first[1])))
            left -= ahead
            chosen = [first, *islice(batches, ahead - 1)]
            indices = torch.cat([some for _, some in chosen])
            epochs = torch.cat([torch.full_like(some, epoch) for epoch, some in chosen])
            with self.clock("views"):
                seen, truth = self._view(epochs, indices)
            labels = None
            if lesson.labels is not None:
                with self.clock("labels"), torch.no_grad():
                    labels = lesson.labels(seen)
            with self.clock("compare"):
                self._compare(seen, labels, truth)
            lengths = [len(some) for _, some in chosen]
            parts = [torch.split(values, lengths) for values in (seen, truth)]
            own = [None] * ahead if labels is None else torch.split(labels, lengths)
            for part, shares, label in zip(*parts, own, strict=True):
                yield prepared(lesson, part), (label, shares)

    def fidelity(self) -> dict[str, Any] | None:
        """Return how the labels of some views compare with the teacher's; None without labels."""
        if not self._compared:
            return None
        labels, teacher, truth = zip(*self._compared, strict=True)
        return fidelity(torch.cat(labels), None if teacher[0] is None else torch.cat(teacher), torch.cat(truth))

    def _order(self) -> Iterator[tuple[int, Tensor]]:
        """Yield (how often the images were seen before, indices) for ever, each time in another order."""
        generator = torch.Generator().manual_seed(self.seed)
        for epoch in count():
            order = torch.randperm(len(self.lesson.targets), generator=generator)
            for indices in torch.split(order, self.sizes):
                yield epoch, indices

    def _view(self, epochs: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return uint8 views and float32 (B, K), how much of each class they show."""
        lesson = self.lesson
        epochs = epochs % lesson.repeat if lesson.repeat else epochs
        drawn = draw(lesson.views, (lesson.side, lesson.side), len(lesson.targets), self.seed, epochs, indices)
        self.views += len(indices)
        images, here = drawn.compact()
        truth = F.one_hot(lesson.targets[images], len(lesson.held_out.classes)).float()
        pixels = to_device(lesson.pixels(images), self.device)
        return render(pixels, here), to_device(blend(truth, here), self.device)

    @torch.no_grad()
    def _compare(self, seen: Tensor, labels: Tensor | None, truth: Tensor) -> None:
        lesson = self.lesson
        if labels is not None:
            total = lesson.protocol.epochs * lesson.steps * max(self.sizes)
            # As many as are due by the end of these, so that all of the training counts alike.
            due = self.views * min(SEEN, total) // total - sum(len(part) for part, _, _ in self._compared)
            if due:
                theirs = lesson.teacher(seen[:due]) if lesson.teacher else None
                self._compared.append((labels[:due], theirs, truth[:due]))


def batch_sizes(images: int, most: int) -> list[int]:
    """Return how many images each step of an epoch sees: `most`, and the last one what is left over.

    One image alone joins the step before: where a network's maps have shrunk to one pixel, BatchNorm cannot learn from
    a single one.
    """
    sizes, left = [most] * (images // most), images % most
    if left == 1 and sizes:
        sizes[-1] += 1
    elif left:
        sizes.append(left)
    return sizes


def prepared(lesson: Lesson, images: Tensor) -> Tensor:
    """Return float32 images as the student takes them."""
    return normalize(images, lesson.mean, lesson.std).contiguous(memory_format=torch.channels_last)
