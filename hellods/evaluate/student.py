"""learn(): one student, trained as a protocol says and measured on held-out images."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms.v2 import functional as TF

from hellods.distill.sources import Source, sample, squares
from hellods.evaluate.fidelity import SEEN, fidelity
from hellods.evaluate.presets import Protocol
from hellods.labels import LabelMaker
from hellods.nets import create
from hellods.progress import Progress, silent
from hellods.train import Schedule, predict, train
from hellods.views.draw import blend, draw
from hellods.views.render import render
from hellods.views.rule import Views

CHECKS: Final = 10  # points of a training curve
SAMPLE: Final = 1000  # held-out images that a point is measured on
AHEAD: Final = 1 << 22  # values of the views that are rendered and labelled at once, over as many epochs as it takes
BATCH: Final = 250  # held-out images at once


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What one student learns from, and what it is measured with."""

    pixels: Callable[[Tensor], Tensor]  # int64 (B,) -> uint8 (B, 3, H, W), on the device
    side: int  # H and W
    targets: Tensor  # int64 (N,)
    views: Views
    labels: LabelMaker | None  # None: the true classes, as mixed
    repeat: int | None = None  # the same views, with the same labels, come again after so many epochs
    protocol: Protocol  # resolved
    steps: int  # in each of the protocol's epochs
    held_out: Source
    mean: tuple[float, ...]
    std: tuple[float, ...]
    teacher: LabelMaker | None = None  # with whom the labels are compared


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one student; accuracies in 0..1, times in seconds, FLOPs counted, not measured."""

    accuracy: float  # after the last epoch, on all held-out images
    per_class: tuple[float, ...]
    epochs: tuple[int, ...]  # where the curve has its points
    curve: tuple[float, ...]  # accuracy on a sample of the held-out images
    losses: tuple[float, ...]  # mean since the point before
    views: int  # that the student saw
    seconds: dict[str, float]  # views, labels, student; and, to measure them, compare, check
    flops: dict[str, int]  # of a view: labels, student
    fidelity: dict[str, Any] | None  # None without labels of its own
    parameters: int


def learn(
    lesson: Lesson, seed: int, device: torch.device, precision: torch.dtype, progress: Progress = silent
) -> Outcome:
    """Return what became of a student with the weights, the order of images and the views of this seed.

    Raises:
        RecipeError: the network is unknown, cannot take the images, or does not learn.
    """
    protocol, held_out, classes = lesson.protocol, lesson.held_out, len(lesson.held_out.classes)
    network = create(protocol.student, classes, lesson.views.size, seed=seed)
    network = network.to(device).to(memory_format=torch.channels_last)
    clock = Clock(device)
    feed = Feed(lesson, seed, device, clock)
    stream = iter(feed)
    chosen = sample(held_out, -(-SAMPLE // classes))
    points = sorted({-(-protocol.epochs * point // CHECKS) for point in range(1, CHECKS + 1)})
    curve: list[float] = []
    losses: list[float] = []
    running: list[Tensor] = []

    def right(indices: Tensor) -> Tensor:
        batches = (prepared(lesson, squared(lesson, some).to(device)) for some in torch.split(indices, BATCH))
        return predict(network, batches, precision) == held_out.targets[indices]

    def loss(logits: Tensor, target: tuple[Tensor | None, Tensor]) -> Tensor:
        value = criterion(protocol, logits, *target)
        running.append(value.detach())
        return value

    def after(epochs: int) -> None:
        if epochs in points:
            losses.append(round(torch.stack(running).mean().item(), 6))
            running.clear()
            with clock("check"):
                curve.append(share(right(chosen)))

    schedule = Schedule(
        learning_rate=protocol.learning_rate or 0.0,
        weight_decay=protocol.weight_decay,
        multiplier=protocol.multiplier,
    )
    start = time.monotonic()
    train(
        network,
        lambda epoch: islice(stream, lesson.steps),
        loss,
        epochs=protocol.epochs,
        steps=lesson.steps,
        schedule=schedule,
        stage="Student",
        seed=seed,
        precision=precision,
        after=after,
        progress=progress,
    )
    student = time.monotonic() - start - sum(clock.seconds.values())
    with clock("check"):
        hits = right(torch.arange(len(held_out)))
    counts, found = (
        torch.bincount(targets, minlength=classes) for targets in (held_out.targets, held_out.targets[hits])
    )
    view = torch.zeros(1, 3, lesson.views.size, lesson.views.size, dtype=torch.uint8, device=device)
    return Outcome(
        accuracy=share(hits),
        per_class=tuple(round(value, 6) for value in (found / counts).tolist()),
        epochs=tuple(points),
        curve=tuple(curve),
        losses=tuple(losses),
        views=feed.views,
        seconds={name: round(value, 3) for name, value in (clock.seconds | {"student": student}).items()},
        # A backward pass costs two forward ones.
        flops={
            "labels": flops(lesson.labels, view) if lesson.labels else 0,
            "student": 3 * flops(network.eval(), prepared(lesson, view)),
        },
        fidelity=feed.fidelity(),
        parameters=sum(value.numel() for value in network.parameters()),
    )


def pilot(lesson: Lesson, device: torch.device, precision: torch.dtype) -> float:
    """Return the seconds that a student would take, from one batch of views, a few steps and some held-out images."""
    protocol, clock, steps = lesson.protocol, Clock(device), 4
    feed = Feed(replace(lesson, protocol=replace(protocol, epochs=-(-steps // lesson.steps))), 0, device, clock)
    batches = list(islice(feed, steps))
    network = create(protocol.student, len(lesson.held_out.classes), lesson.views.size).to(device)
    network = network.to(memory_format=torch.channels_last)
    spent = []
    for _ in range(2):  # the first time is longer: memory is had, kernels are chosen
        start = time.monotonic()
        train(
            network,
            lambda epoch: batches,
            lambda logits, target: criterion(protocol, logits, *target),
            epochs=1,
            steps=len(batches),
            schedule=Schedule(),
            stage="Measure",
            precision=precision,
        )
        spent.append(time.monotonic() - start)
    some = torch.arange(len(lesson.held_out))[:BATCH]
    with clock("check"):
        predict(network, [prepared(lesson, squared(lesson, some).to(device))], precision)
    all_steps = protocol.epochs * lesson.steps
    views = all_steps * (protocol.batch_size or 1)
    checked = CHECKS * min(SAMPLE, len(lesson.held_out)) + len(lesson.held_out)
    made = feed.views  # and compared, being few
    return (
        (clock.seconds["views"] + clock.seconds["labels"]) / made * views
        + clock.seconds["compare"] / made * min(SEEN, views)
        + spent[-1] / len(batches) * all_steps
        + clock.seconds["check"] / len(some) * checked
    )


class Feed:
    """Yields what each step learns: normalized views, and (logits or None, the share of every class).

    Views are rendered and labelled ahead, over several epochs where the batches are small.
    """

    def __init__(self, lesson: Lesson, seed: int, device: torch.device, clock: "Clock") -> None:
        self.lesson, self.seed, self.device, self.clock = lesson, seed, device, clock
        self.views = 0  # rendered so far
        self._compared: list[tuple[Tensor, Tensor | None, Tensor]] = []

    def __iter__(self) -> Iterator[tuple[Tensor, tuple[Tensor | None, Tensor]]]:
        lesson, size = self.lesson, self.lesson.views.size
        left = lesson.protocol.epochs * lesson.steps
        batches = self._order()
        while left:
            first = next(batches)
            ahead = min(left, max(1, AHEAD // (len(first[1]) * 3 * size * size)))
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
            for indices in torch.split(order, self.lesson.protocol.batch_size or 1):
                yield epoch, indices

    def _view(self, epochs: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return uint8 views and float32 (B, K), how much of each class they show."""
        lesson = self.lesson
        epochs = epochs % lesson.repeat if lesson.repeat else epochs
        drawn = draw(lesson.views, (lesson.side, lesson.side), len(lesson.targets), self.seed, epochs, indices)
        self.views += len(indices)
        needed = torch.cat([drawn.index, drawn.partner.index] if drawn.partner else [drawn.index])
        images, places = torch.unique(needed, return_inverse=True)
        here = replace(drawn, index=places[: len(indices)])
        if drawn.partner:
            here = replace(here, partner=replace(drawn.partner, index=places[len(indices) :]))
        truth = F.one_hot(lesson.targets[images], len(lesson.held_out.classes)).float()
        return render(lesson.pixels(images).to(self.device), here), blend(truth, here).to(self.device)

    @torch.no_grad()
    def _compare(self, seen: Tensor, labels: Tensor | None, truth: Tensor) -> None:
        lesson = self.lesson
        if labels is not None:
            total = lesson.protocol.epochs * lesson.steps * (lesson.protocol.batch_size or 1)
            # As many as are due by the end of these, so that all of the training counts alike.
            due = self.views * min(SEEN, total) // total - sum(len(part) for part, _, _ in self._compared)
            if due:
                theirs = lesson.teacher(seen[:due]) if lesson.teacher else None
                self._compared.append((labels[:due], theirs, truth[:due]))


class Clock:
    """Seconds by what they were spent on; `with clock("labels"): …`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = {"views": 0.0, "labels": 0.0, "compare": 0.0, "check": 0.0}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = self._now()
        yield
        self.seconds[name] += self._now() - start

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.monotonic()


def criterion(protocol: Protocol, logits: Tensor, labels: Tensor | None, truth: Tensor) -> Tensor:
    """Return the loss, a scalar.

    Args:
        protocol: names the loss of soft labels.
        logits: float (B, K), the student's.
        labels: float (B, K) logits; None: the loss is the cross-entropy with `truth`.
        truth: float (B, K), the share of every class in the view.
    """
    if labels is None:
        return F.cross_entropy(logits, truth)
    if protocol.loss == "mse":
        soft = F.mse_loss(logits, labels)
    else:
        ours, theirs = (F.log_softmax(value / (protocol.temperature or 1.0), dim=1) for value in (logits, labels))
        soft = F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
    return soft + protocol.hard_weight * F.cross_entropy(logits, truth) if protocol.hard_weight else soft


def squared(lesson: Lesson, indices: Tensor) -> Tensor:
    """Return uint8 (B, 3, S, S) held-out images as RDED's code cuts them: resized to 8/7 of S, the middle taken.

    Its 8/7 is S // 7 * 8, which is less than S for a few small sizes; those keep the whole image.
    """
    size = lesson.views.size
    middle: Tensor = TF.center_crop(squares(lesson.held_out, indices, max(size, size // 7 * 8)), [size, size])
    return middle


def prepared(lesson: Lesson, images: Tensor) -> Tensor:
    """Return float32 images as the student takes them."""
    scaled = TF.normalize(TF.to_dtype(images, torch.float32, scale=True), list(lesson.mean), list(lesson.std))
    ready: Tensor = scaled.contiguous(memory_format=torch.channels_last)
    return ready


def share(hits: Tensor) -> float:
    """Return the share of true values."""
    return round(hits.double().mean().item(), 6)


@torch.no_grad()
def flops(answer: Callable[[Tensor], Tensor], images: Tensor) -> int:
    """Return the floating-point operations of one call; a multiplication and an addition are two."""
    with FlopCounterMode(display=False) as counter:
        answer(images)
    return int(counter.get_total_flops())
