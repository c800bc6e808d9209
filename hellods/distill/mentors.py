"""Who teaches the projector: a teacher, given or trained here, and an assistant of the students' kind."""

from copy import deepcopy
from typing import Any

import torch

from hellods.digests import digest
from hellods.distill.arrange import Setting
from hellods.distill.recipe import Inputs, Recipe
from hellods.distill.resume import Work
from hellods.progress import Progress
from hellods.record import to_json
from hellods.sources.source import squares
from hellods.teachers.teacher import Teacher, check_teacher, load_teacher
from hellods.teachers.training import Training, train_teacher
from hellods.train import NO_CHECKPOINT, Checkpoint


def get_mentors(setting: Setting, work: Work, progress: Progress) -> tuple[list[Teacher], dict[str, Any], Work]:
    """Return the teacher and, if the recipe asks for one, its assistant; what is known of them; and the work so far.

    Raises:
        HelloError: one of them cannot be had, or is near chance.
    """
    source = setting.source
    with setting.clock("teacher"):
        teacher = get_teacher(setting, progress, work.stage("teacher"))
        known = facts(setting, teacher, "teacher", progress)
    # A network of the user's own is code, which only its answers tell apart: those of a CPU, the same each time.
    answers = deepcopy(teacher).cpu()(squares(source, torch.arange(min(len(source), 8)), setting.recipe.side))
    work = work.given(taught=teacher.provenance(), answers=digest({"logits": answers}))
    if not setting.recipe.assisted:
        return [teacher], known, work
    with setting.clock("assistant"):
        assistant = get_assistant(setting, teacher, progress, work.stage("assistant"))
        known["assistant"] = facts(setting, assistant, "assistant", progress)
    return [teacher, assistant], known, work.given(assisted=assistant.provenance())


def get_teacher(setting: Setting, progress: Progress, checkpoint: Checkpoint = NO_CHECKPOINT) -> Teacher:
    """Return the user's teacher, or one trained on the real images (`train`), on the device.

    Raises:
        HelloError: it cannot be had, or does not learn.
    """
    inputs, source, side, device = setting.inputs, setting.source, setting.recipe.side, setting.device
    if not inputs.trained:
        return load_given_teacher(inputs, source.classes, side).to(device)
    training = training_of(inputs.network(side), inputs, setting.recipe, side)
    return train_teacher(training, source, device=device, progress=progress, checkpoint=checkpoint)


def training_of(architecture: str, inputs: Inputs, recipe: Recipe, side: int) -> Training:
    """Return how a recipe has a network trained, for images of that side."""
    return Training(
        architecture=architecture,
        side=side,
        seed=recipe.seed,
        epochs=recipe.epochs,
        stages=recipe.stages,
        flip=bool(recipe.flip),
        mean=inputs.teacher_mean,
        std=inputs.teacher_std,
    )


def load_given_teacher(inputs: Inputs, classes: tuple[str, ...], side: int) -> Teacher:
    """Return the user's own teacher, on the CPU, for images of that side.

    Raises:
        HelloError: it cannot be had.
    """
    mean, std = inputs.teacher_mean, inputs.teacher_std
    return load_teacher(inputs.teacher, inputs.teacher_weights, mean, std, classes, side)


def get_assistant(
    setting: Setting, teacher: Teacher, progress: Progress, checkpoint: Checkpoint = NO_CHECKPOINT
) -> Teacher:
    """Return a network of the students' kind that learns from the teacher, for a recipe that asks for one.

    It stands between a strong teacher and a small student (teacher assistant, arXiv 1902.03393).

    Raises:
        HelloError: it does not learn.
    """
    training = training_of(setting.recipe.assistant, setting.inputs, setting.recipe, setting.recipe.side)
    return train_teacher(
        training, setting.source, assists=teacher, device=setting.device, progress=progress, checkpoint=checkpoint
    )


def check_mentor(setting: Setting, mentor: Teacher, who: str, progress: Progress) -> float:
    """Return a teacher's or an assistant's accuracy on held-out images, 0..1.

    Raises:
        SourceError: it is near chance, or has its classes in another order than the data.
    """
    return check_teacher(
        mentor,
        setting.held_out,
        setting.recipe.side,
        more=setting.source,
        allow_weak=setting.inputs.allow_weak_teacher,
        progress=progress,
        who=who,
    )


def facts(setting: Setting, mentor: Teacher, who: str, progress: Progress) -> dict[str, Any]:
    """Return what the archive says of a teacher or an assistant, which is checked."""
    accuracy = check_mentor(setting, mentor, who, progress)
    return mentor.provenance() | {"held_out_accuracy": to_json(round(accuracy, 4))}
