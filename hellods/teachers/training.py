"""train_teacher(): a network learns from real images, as a Training says, and teaches."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count, islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hellods.device import to_device, training_dtype
from hellods.nets import channels_last, create
from hellods.progress import Progress, silent
from hellods.sources.source import Source, squares
from hellods.teachers.scale import MEAN, STD
from hellods.teachers.teacher import Teacher
from hellods.teachers.trajectory import Trajectory, average
from hellods.train import NO_CHECKPOINT, Checkpoint, Schedule, adamw, train
from hellods.views.draw import draw
from hellods.views.normalize import normalize
from hellods.views.render import render
from hellods.views.rule import Views


@dataclass(frozen=True, kw_only=True)
class Training:
    """All that decides what a network learns from given images."""

    architecture: str
    side: int  # of the images, in pixels
    seed: int  # of weights, order and crops
    epochs: int  # over which the learning rate falls
    stages: tuple[int, ...]  # epochs after which the network is kept, to average all logits; it ends with the last
    flip: bool = False  # mirror half of the crops
    mean: tuple[float, ...] = MEAN  # per channel, of pixels in 0..1
    std: tuple[float, ...] = STD


def an_epoch(images: int) -> tuple[int, int]:
    """Return the steps of an epoch over so many images, and its batch size: small sets see many steps in small ones."""
    batch_size = min(max(images // 40, 16), 128, images)
    return images // batch_size, batch_size


def train_teacher(
    training: Training,
    source: Source,
    *,
    assists: Teacher | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> Teacher:
    """Return a teacher trained from scratch on random crops.

    It learns the true classes; as an assistant, the mean of those and of its teacher's soft labels.

    Args:
        training: what decides the rest.
        source: what it learns from.
        assists: the teacher whose assistant it will be.
        device: where it learns, and is.
        progress: told of every step.
        checkpoint: told of every step.

    Raises:
        OptionError: an unknown architecture, or one that does not learn.
        SourceError: an image cannot be used.
    """
    network = create(training.architecture, len(source.classes), training.side, seed=training.seed)
    trajectory = Trajectory(channels_last(network.to(device), training.side), training.stages)
    train(
        trajectory,
        crops(training, source, assists, device, checkpoint.done),
        F.cross_entropy,
        epochs=max(training.stages),
        steps=an_epoch(len(source))[0],
        optimizers=[adamw(trajectory)],
        schedule=Schedule(epochs=training.epochs),
        stage="Assistant" if assists else "Teacher",
        seed=training.seed,
        precision=training_dtype(device),
        after=trajectory.reach,
        checkpoint=checkpoint,
        progress=progress,
    )
    return _teacher(training, trajectory.teacher())


def untrained(training: Training, classes: int) -> Teacher:
    """Return a teacher as a training makes it, on the CPU, but one that has learned nothing."""
    network = average([create(training.architecture, classes, training.side) for _ in training.stages])
    return _teacher(training, network)


def _teacher(training: Training, network: nn.Module) -> Teacher:
    name, mean, std = training.architecture, training.mean, training.std
    return Teacher(channels_last(network, training.side), architecture=name, mean=mean, std=std, trained=True)


def crops(
    training: Training, source: Source, assists: Teacher | None, device: torch.device | str, done: int
) -> Callable[[int], Iterator[tuple[Tensor, Tensor]]]:
    """Return what yields an epoch's batches: normalized crops, and their classes (B,) or the shares of each (B, K).

    The epoch in which a training goes on begins after the `done` steps that lie behind.
    """
    steps, batch_size = an_epoch(len(source))
    begin, skipped = divmod(done, steps)
    views = Views(size=training.side, scale=(0.35, 1.0), flip=training.flip)
    generator = torch.Generator().manual_seed(training.seed)
    orders = islice((torch.randperm(len(source), generator=generator) for _ in count()), begin, None)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        parts = next(orders)[: steps * batch_size].view(steps, batch_size)
        for indices in parts[skipped if epoch == begin else 0 :]:
            drawn = draw(views, (views.size, views.size), len(source), training.seed, epoch, indices)
            images = to_device(squares(source, indices, views.size), device)
            seen = render(images, replace(drawn, index=torch.arange(batch_size)))
            truth = to_device(source.targets[indices], device)
            if assists is not None:
                truth = (F.one_hot(truth, len(source.classes)) + assists(seen).softmax(1)) / 2
            yield normalize(seen, training.mean, training.std), truth

    return batches
