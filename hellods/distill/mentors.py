"""Who teaches the projector: a teacher, given or trained here, and an assistant of the students' kind."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from hellods.device import training_dtype
from hellods.distill.recipe import MEAN, STD, Inputs, Recipe, Resolved
from hellods.distill.sources import Source, squares
from hellods.distill.teacher import Teacher, load_teacher
from hellods.distill.trajectory import Trajectory
from hellods.nets import create
from hellods.progress import Progress, silent
from hellods.train import NO_CHECKPOINT, Checkpoint, Schedule, train
from hellods.views.draw import draw
from hellods.views.normalize import normalize
from hellods.views.render import render
from hellods.views.rule import Views


def check_network(inputs: Inputs, recipe: Resolved, source: Source) -> None:
    """Make the network that will be trained here, if one will, so that a wrong name is found before any long work.

    Raises:
        RecipeError: the name is unknown, or the network cannot take the images.
    """
    name = inputs.trains or (recipe.assistant if recipe.assisted else None)
    if name is not None:
        create(name, len(source.classes), recipe.side)


def get_teacher(
    inputs: Inputs,
    recipe: Recipe,
    source: Source,
    side: int,
    progress: Progress,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> Teacher:
    """Return the user's teacher, or one trained on the real images (`train:ARCH`)."""
    if inputs.trains is not None:
        return _trained(inputs.trains, None, inputs, recipe, source, side, progress, checkpoint)
    return load_teacher(
        inputs.teacher,
        inputs.teacher_weights,
        inputs.teacher_mean,
        inputs.teacher_std,
        source.classes,
        side,
    )


def get_assistant(
    inputs: Inputs,
    recipe: Resolved,
    source: Source,
    teacher: Teacher,
    side: int,
    progress: Progress,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> Teacher:
    """Return a network of the students' kind that learns from the teacher, for a recipe that asks for one.

    It stands between a strong teacher and a small student (teacher assistant, arXiv 1902.03393).
    """
    return _trained(recipe.assistant, teacher, inputs, recipe, source, side, progress, checkpoint)


def _trained(
    architecture: str,
    assists: Teacher | None,
    inputs: Inputs,
    recipe: Recipe,
    source: Source,
    side: int,
    progress: Progress,
    checkpoint: Checkpoint,
) -> Teacher:
    return train_teacher(
        architecture,
        source,
        side,
        assists=assists,
        seed=recipe.seed,
        epochs=recipe.epochs,
        stages=recipe.stages,
        flip=bool(recipe.flip),
        mean=inputs.teacher_mean,
        std=inputs.teacher_std,
        device=inputs.device,
        progress=progress,
        checkpoint=checkpoint,
    )


def an_epoch(images: int) -> tuple[int, int]:
    """Return the steps of an epoch over so many images, and its batch size: small sets see many steps in small ones."""
    batch_size = min(max(images // 40, 16), 128, images)
    return images // batch_size, batch_size


def train_teacher(
    architecture: str,
    source: Source,
    side: int,
    *,
    assists: Teacher | None = None,
    seed: int,
    epochs: int,
    stages: Sequence[int] | None = None,
    flip: bool = False,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> Teacher:
    """Return a teacher trained from scratch on random crops.

    It learns the true classes; as an assistant, the mean of those and of its teacher's soft labels.

    Args:
        architecture: names the network.
        source: what it learns from.
        side: of the images, in pixels.
        assists: the teacher whose assistant it will be.
        seed: of weights, order and crops.
        epochs: of the whole training, over which the learning rate falls.
        stages: epochs after which the logits of the network as it then is are averaged; the training ends with the last
            of them. None: the last epoch alone.
        flip: mirror half of the crops.
        mean: per channel, of pixels in 0..1.
        std: likewise.
        device: where it learns.
        progress: told of every step.
        checkpoint: told of every step.

    Raises:
        RecipeError: an unknown architecture, or one that does not learn.
        SourceError: an image cannot be used.
    """
    stages = stages or (epochs,)
    network = create(architecture, len(source.classes), side, seed=seed)
    trajectory = Trajectory(network.to(device).to(memory_format=torch.channels_last), stages)
    views = Views(size=side, scale=(0.35, 1.0), flip=flip)
    generator = torch.Generator().manual_seed(seed)
    steps, batch_size = an_epoch(len(source))
    begin, skipped = divmod(checkpoint.done, steps)
    for _ in range(begin):
        torch.randperm(len(source), generator=generator)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(source), generator=generator)
        for indices in order[: steps * batch_size].view(steps, batch_size)[skipped if epoch == begin else 0 :]:
            drawn = draw(views, (side, side), len(source), seed, epoch, indices)
            images = squares(source, indices, side).to(device)
            seen = render(images, replace(drawn, index=torch.arange(batch_size)))
            truth = source.targets[indices].to(device)
            if assists is not None:
                truth = (F.one_hot(truth, len(source.classes)) + assists(seen).softmax(1)) / 2
            yield normalize(seen, mean, std), truth

    train(
        trajectory,
        batches,
        F.cross_entropy,
        epochs=max(stages),
        steps=steps,
        schedule=Schedule(epochs=epochs),
        stage="Assistant" if assists else "Teacher",
        seed=seed,
        precision=training_dtype(device),
        after=trajectory.reach,
        checkpoint=checkpoint,
        progress=progress,
    )
    return Teacher(trajectory.teacher(), source.classes, architecture=architecture, mean=mean, std=std, trained=True)
