"""plan(): what a build will take, from its first few steps."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Final

import torch
from torch import Tensor

from hellods.distill.arrange import Setting, lessons
from hellods.distill.fit import fit_projector, quantize_projector
from hellods.distill.initialize import Layout, initialize
from hellods.distill.measure import measure
from hellods.distill.mentors import check_mentor, get_assistant, get_teacher, training_of
from hellods.distill.prototypes import prototypes
from hellods.distill.store import as_stored
from hellods.forecast import STEPS, Cost, Trial, cost, warmed
from hellods.progress import Progress, silent, track
from hellods.sources.source import KEPT, squares
from hellods.teachers.teacher import Teacher
from hellods.teachers.training import untrained

IMAGES: Final = 64  # where a step is one image
CLASSES: Final = 2  # where it is a class
CANDIDATES: Final = 8  # of such a class, in place of hundreds


def plan(setting: Setting, progress: Progress = silent) -> tuple[Cost, ...]:
    """Return what the stages of a build will take, in order; nothing is written, and the setting stays as it was.

    Each stage runs as it does in a build, is stopped after a few steps, and their mean is multiplied. The memory is the
    most that this process has held until then (getrusage), and the images that a build will keep decoded beside it;
    that of a GPU is not counted, nor is loading the base model.

    Raises:
        HelloError: the teacher cannot be had, or does not fit the images.
    """
    source, held_out, side = setting.source, setting.held_out, setting.recipe.side
    count, decoded = len(source.classes) * setting.recipe.images_per_class, len(source) * 3 * side**2
    images = torch.zeros(count, 3, side, side, dtype=torch.uint8)
    kept = decoded <= KEPT
    trials = trials_of(setting, images, kept=kept)
    later = images.nbytes + (decoded if kept else 0)
    costs = [cost(trial, later, now=setting.clock.now) for trial in track(trials, len(trials), "Plan", progress)]
    data = costs[0].seconds if costs[0] else 0.0
    decoding = data * len(source) / (len(source) + len(held_out))
    return tuple(
        replace(cost, seconds=cost.seconds + decoding) if trial.decodes else cost
        for trial, cost in zip(trials, costs, strict=True)
        if cost
    )


def trials_of(setting: Setting, images: Tensor, *, kept: bool) -> list[Trial]:
    """Return what each stage of a build begins with, in order; that of the data comes first.

    Args:
        setting: of the build.
        images: stand for those of the file, uint8 (N, 3, S, S).
        kept: real images are decoded once, not each time.
    """
    recipe, source, held_out, views = setting.recipe, setting.source, setting.held_out, setting.views
    projector = deepcopy(setting.projector)  # a few steps fit it
    mentors, learning = teacher_trials(setting, kept=kept)
    seen, how = lessons(recipe, source, images, views)
    trials = [
        Trial(source.check, IMAGES, 1 + len(held_out) / len(source)),
        *learning,
        choosing(setting, mentors[0]),
        encoding(setting, len(images)),
    ]
    if recipe.head == "prototypes":
        trials.append(Trial(partial(prototypes, projector, source, recipe.side), CLASSES))
    fitting = partial(fit_projector, projector, mentors[-1], seen, how, setting.fit)
    trials.append(Trial(warmed(fitting) if kept and recipe.fit_on == "real" else fitting))
    if recipe.quantization == "int4":
        trials.append(Trial(partial(quantize_projector, projector, seen, how, setting.fit)))
    return [*trials, Trial(partial(measure, projector.label, mentors, held_out, images, views))]


def teacher_trials(setting: Setting, *, kept: bool) -> tuple[list[Teacher], list[Trial]]:
    """Return a teacher and, if the recipe asks for one, its assistant, and what making and checking them begins with.

    What is trained in a build is of the same size here. With `kept` images are decoded once, not in every epoch.
    """
    inputs, recipe = setting.inputs, setting.recipe

    def training(begin: Callable[[Progress], object]) -> Trial:
        return Trial(warmed(begin) if kept else begin, decodes=kept)

    trials = []
    if not inputs.trained:
        teacher = get_teacher(setting, silent)
    else:
        teacher = standing_in(setting, inputs.network(recipe.side))
        trials.append(training(partial(get_teacher, setting)))
    trials.append(Trial(partial(check_mentor, setting, teacher, "teacher")))
    if not recipe.assisted:
        return [teacher], trials
    assistant = standing_in(setting, recipe.assistant)
    trials.append(training(partial(get_assistant, setting, teacher)))
    trials.append(Trial(partial(check_mentor, setting, assistant, "assistant")))
    return [teacher, assistant], trials


def standing_in(setting: Setting, architecture: str) -> Teacher:
    """Return a teacher that answers as fast as the one that a build trains."""
    training = training_of(architecture, setting.inputs, setting.recipe, setting.recipe.side)
    return untrained(training, len(setting.source.classes)).to(setting.device)


def choosing(setting: Setting, teacher: Teacher) -> Trial:
    """Return what begins the choice of images; of each class fewer are looked at than in a build."""
    layout, source, name = setting.layout, setting.source, setting.recipe.initializer
    few = replace(layout, images_per_class=1, candidates=min(CANDIDATES, layout.candidates))

    def looked_at(layout: Layout) -> float:
        candidates = min(layout.candidates, len(source) / len(source.classes))
        return layout.images_per_class if name == "real" else max(candidates, layout.patches)

    begin = partial(initialize, name, source, teacher, few, setting.recipe.seed)
    return Trial(begin, CLASSES, looked_at(layout) / looked_at(few))


def encoding(setting: Setting, count: int) -> Trial:
    """Return what begins to encode and decode the file's `count` images; real ones stand for them."""
    recipe, source = setting.recipe, setting.source
    real = squares(source, torch.arange(min(STEPS, count, len(source))), recipe.side)
    shown = [real[number % len(real)] for number in range(count)]
    return Trial(partial(as_stored, shown, recipe.codec, recipe.quality))
