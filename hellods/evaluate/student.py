"""learn(): one student, trained as a protocol says and measured on held-out images."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms.v2 import functional as TF

from hellods.device import Clock, to_device
from hellods.evaluate.feed import Feed, Lesson, prepared
from hellods.evaluate.fidelity import SEEN, divergence
from hellods.evaluate.presets import Protocol
from hellods.nets import channels_last, create
from hellods.progress import Progress, silent
from hellods.sources.sampling import accuracy, sample
from hellods.sources.source import Source, squares
from hellods.train import Schedule, adamw, predict, train

CHECKS: Final = 10  # points of a training curve
SAMPLE: Final = 1000  # held-out images that a point is measured on
BATCH: Final = 250  # held-out images at once,
PIXELS: Final = 1 << 24  # or as many as have so many pixels
PARTS: Final = ("views", "labels", "compare", "check", "student")  # of the time that a student takes


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


class Curve:
    """Points of a training: the accuracy there, and the mean loss since the point before."""

    def __init__(self, epochs: int, accuracy: Callable[[], float]) -> None:
        self.points = sorted({-(-epochs * point // CHECKS) for point in range(1, CHECKS + 1)})
        self.accuracies: list[float] = []
        self.losses: list[float] = []
        self._accuracy = accuracy
        self._running: list[Tensor] = []

    def note(self, loss: Tensor) -> None:
        """Take the loss of a step, a scalar, which is read at the next point alone, since that stops a GPU."""
        self._running.append(loss.detach())

    def after(self, epochs: int) -> None:
        """Add a point if one lies after so many epochs."""
        if epochs in self.points:
            self.losses.append(round(torch.stack(self._running).mean().item(), 6))
            self._running.clear()
            self.accuracies.append(self._accuracy())


def learn(
    lesson: Lesson, seed: int, device: torch.device, precision: torch.dtype, progress: Progress = silent
) -> Outcome:
    """Return what became of a student with the weights, the order of images and the views of this seed.

    Raises:
        OptionError: the network is unknown, cannot take the images, or does not learn.
    """
    protocol, held_out = lesson.protocol, lesson.held_out
    network, clock = new_student(lesson, seed, device), Clock(device)
    feed = Feed(lesson, seed, device, clock)
    chosen = sample(held_out, -(-SAMPLE // len(held_out.classes)))

    def check() -> float:
        with clock("check"):
            return round(accuracy(held_out, chosen, right(network, lesson, chosen, precision)), 6)

    curve = Curve(protocol.epochs, check)

    def loss(logits: Tensor, target: tuple[Tensor | None, Tensor]) -> Tensor:
        value = criterion(protocol, logits, *target)
        curve.note(value)
        return value

    optimizer = adamw(network, learning_rate=protocol.learning_rate, weight_decay=protocol.weight_decay)
    stream, start = iter(feed), time.monotonic()
    train(
        network,
        lambda epoch: islice(stream, lesson.steps),
        loss,
        epochs=protocol.epochs,
        steps=lesson.steps,
        optimizers=[optimizer],
        schedule=Schedule(multiplier=protocol.lr_schedule),
        stage="Student",
        seed=seed,
        precision=precision,
        after=curve.after,
        progress=progress,
    )
    clock.seconds["student"] = time.monotonic() - start - sum(clock.seconds.values())
    with clock("check"):
        hits = right(network, lesson, torch.arange(len(held_out)), precision)
    return Outcome(
        accuracy=round(hits.double().mean().item(), 6),
        per_class=per_class(held_out, hits),
        epochs=tuple(curve.points),
        curve=tuple(curve.accuracies),
        losses=tuple(curve.losses),
        views=feed.views,
        seconds={part: round(clock.seconds[part], 3) for part in PARTS},
        flops=flops_of_a_view(lesson, network, device),
        fidelity=feed.fidelity(),
        parameters=sum(value.numel() for value in network.parameters()),
    )


def new_student(lesson: Lesson, seed: int, device: torch.device) -> nn.Module:
    """Return a student that has learned nothing, with the weights of this seed."""
    network = create(lesson.protocol.student, len(lesson.held_out.classes), lesson.views.size, seed=seed)
    return channels_last(network.to(device), lesson.views.size)


def right(network: nn.Module, lesson: Lesson, indices: Tensor, precision: torch.dtype) -> Tensor:
    """Return which of these held-out images a student is right on, bool (B,)."""
    device = next(network.parameters()).device
    parts = torch.split(indices, at_once(lesson))
    batches = (prepared(lesson, to_device(squared(lesson, some), device)) for some in parts)
    return predict(network, batches, precision) == lesson.held_out.targets[indices]


def per_class(held_out: Source, hits: Tensor) -> tuple[float, ...]:
    """Return the share of each class's images that a student is right on, of all of them, bool (N,)."""
    counts, found = (
        torch.bincount(targets, minlength=len(held_out.classes))
        for targets in (held_out.targets, held_out.targets[hits])
    )
    return tuple(round(value, 6) for value in (found / counts).tolist())


def flops_of_a_view(lesson: Lesson, network: nn.Module, device: torch.device) -> dict[str, int]:
    """Return the FLOPs that its label and the student take for one view."""
    view = torch.zeros(1, 3, lesson.views.size, lesson.views.size, dtype=torch.uint8, device=device)
    return {
        "labels": flops(lesson.labels, view) if lesson.labels else 0,
        "student": 3 * flops(network.eval(), prepared(lesson, view)),  # a backward pass costs two forward ones
    }


def pilot(lesson: Lesson, device: torch.device, precision: torch.dtype) -> float:
    """Return the seconds that a student would take, from one batch of views, a few steps and some held-out images."""
    protocol, clock, steps = lesson.protocol, Clock(device), 4
    some = torch.arange(len(lesson.held_out))[: at_once(lesson)]
    few = replace(lesson, protocol=replace(protocol, epochs=-(-steps // lesson.steps)))
    for timed in (Clock(device), clock):  # the first time real images are decoded, which are kept from then on
        feed = Feed(few, 0, device, timed)
        batches = list(islice(feed, steps))
        squared(lesson, some)
    network, spent = new_student(lesson, 0, device), list[float]()
    for _ in range(2):  # the first time is longer: memory is had, kernels are chosen
        start = time.monotonic()
        train(
            network,
            lambda epoch: batches,
            lambda logits, target: criterion(protocol, logits, *target),
            epochs=1,
            steps=len(batches),
            optimizers=[adamw(network)],
            schedule=Schedule(),
            stage="Measure",
            precision=precision,
        )
        spent.append(time.monotonic() - start)
    with clock("check"):
        right(network, lesson, some, precision)
    all_steps = protocol.epochs * lesson.steps
    views = all_steps * protocol.batch_size
    checked = CHECKS * min(SAMPLE, len(lesson.held_out)) + len(lesson.held_out)
    made = feed.views  # and compared, being few
    return (
        (clock.seconds["views"] + clock.seconds["labels"]) / made * views
        + clock.seconds["compare"] / made * min(SEEN, views)
        + spent[-1] / len(batches) * all_steps
        + clock.seconds["check"] / len(some) * checked
    )


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
        soft = divergence(labels, logits, protocol.temperature or 1.0)
    return soft + protocol.hard_weight * F.cross_entropy(logits, truth) if protocol.hard_weight else soft


def at_once(lesson: Lesson) -> int:
    """Return how many held-out images the student is asked about at once."""
    return max(1, min(BATCH, PIXELS // lesson.views.size**2))


def squared(lesson: Lesson, indices: Tensor) -> Tensor:
    """Return uint8 (B, 3, S, S) held-out images as RDED's code cuts them: resized to 8/7 of S, the middle taken.

    Its 8/7 is S // 7 * 8, which is less than S for a few small sizes; those keep the whole image.
    """
    size = lesson.views.size
    middle: Tensor = TF.center_crop(squares(lesson.held_out, indices, max(size, size // 7 * 8)), [size, size])
    return middle


@torch.no_grad()
def flops(answer: Callable[[Tensor], Tensor], images: Tensor) -> int:
    """Return the floating-point operations of one call; a multiplication and an addition are two."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its fused attention is not counted,
    try:
        # nor are all kernels of scaled_dot_product_attention, in every version of torch.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            answer(images)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops())
