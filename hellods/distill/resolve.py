"""resolve(): the recipe of a build without gaps, by what suits its images, teacher and base model."""

import math
from typing import Final

from hellods.distill.recipe import (
    LEAST_SIDE,
    NO_ASSISTANT,
    PRESETS,
    SMALL,
    Inputs,
    Recipe,
    Resolved,
    usual_network,
    usual_quality,
)
from hellods.errors import OptionError
from hellods.format import wire
from hellods.labels.config import check_template
from hellods.sources.source import Source, usual_side
from hellods.teachers.training import an_epoch

LEAST: Final = 3000  # views, unless 30 a real image are fewer: from 600 a projector learns next to nothing
MANY: Final = 100  # images of a file, beyond which a fit needs more views
LARGEST: Final = 224  # pixels of a side that nobody chose
FEW: Final = 5  # images of a class
EARLY: Final = 2  # epochs that teach so few
STEPS: Final = 80  # behind the last of these, or it is near chance; 640 images and more have as many in two epochs
BATCH: Final = 32  # many small steps come nearer to the teacher than few large ones
PIXELS: Final = BATCH * 224**2  # of a batch: 2.4 GB for a MobileNetV2 tower with its deltas


def resolve(recipe: Recipe, inputs: Inputs, source: Source, tower: int) -> Resolved:
    """Return the recipe with every default that depends on the images, the teacher or the base model filled in.

    Args:
        recipe: as the user gives it.
        inputs: name the teacher.
        source: the images to learn from.
        tower: side in pixels of what the base model takes; views are resized to it.

    Raises:
        OptionError: an assistant without a given teacher, epochs of no training, more texts than a reader embeds, or
            images that are too small or too many.
        SourceError: no image can be used.
    """
    check_template(recipe.template, len(source.classes))
    side, factor = side_and_factor(recipe, source)
    assistant = recipe.assistant or (NO_ASSISTANT if inputs.trained else usual_network(side))
    if inputs.trained and assistant != NO_ASSISTANT:
        raise OptionError(
            f"assistant {assistant!r} beside teacher {inputs.teacher!r}: an assistant needs a given teacher; "
            f"name a network with weights as `teacher`, or choose `assistant='none'`"
        )
    own_kind = inputs.trained or assistant != NO_ASSISTANT  # what teaches is of the students' kind
    for knob in () if own_kind else ("teacher_stages", "teacher_epochs"):
        if getattr(recipe, knob) != getattr(Recipe, knob):
            raise OptionError(
                f"`{knob}` beside teacher {inputs.teacher!r} without an assistant: nothing is trained; "
                "leave it out, or name an `assistant`"
            )
    fit_on = recipe.fit_on or ("own" if own_kind else "real")
    _, rate = PRESETS[recipe.preset]
    filled = {
        "side": side,
        "flip": not source.handed if recipe.flip is None else recipe.flip,
        "factor": factor,
        "quality": None if recipe.codec == "png" else recipe.quality or usual_quality(side),
        "assistant": assistant,
        "teacher_epochs": recipe.epochs if own_kind else None,
        "teacher_stages": recipe.teacher_stages or (best_stages(recipe, len(source)) if own_kind else None),
        "fit_on": fit_on,
        "fit_views": views_to_fit_on(recipe, source, tower) if recipe.fit_views is None else recipe.fit_views,
        "hard_weight": {"own": 0.0, "real": 0.1}[fit_on] if recipe.hard_weight is None else recipe.hard_weight,
        "fit_batch_size": recipe.fit_batch_size or batch_within_memory(max(side, tower)),
        "fit_learning_rate": rate if recipe.fit_learning_rate is None else recipe.fit_learning_rate,
    }
    return Resolved(**vars(recipe) | filled)


def side_and_factor(recipe: Recipe, source: Source) -> tuple[int, int]:
    """Return the side of the file's images in pixels, and how many patches lie along it.

    Raises:
        OptionError: the images are too small for a file, or too many.
        SourceError: no image can be used.
    """
    side = recipe.side or min(LARGEST, usual_side(source))
    factor = recipe.factor or (2 if side >= 128 and recipe.initializer == "patches" else 1)
    side -= 0 if recipe.side else side % factor
    if side < LEAST_SIDE:
        raise OptionError(
            f"{source.name}: the images are too small for an archive ({side} px, {LEAST_SIDE} are the least): "
            f"choose a `side` to enlarge them to"
        )
    count = len(source.classes) * recipe.images_per_class
    if count > wire.MAX_IMAGES or count * side * side * 3 > wire.MAX_PIXELS:
        raise OptionError(
            f"{count:,} images of {side} px are more than a file can hold: choose fewer `images_per_class`, or a "
            "smaller `side`"
        )
    return side, factor


def best_stages(recipe: Recipe, images: int) -> tuple[int, ...]:
    """Return the epochs of a training on so many images whose network teaches best: the last, or early ones for few.

    Those are the first two, or on a small set two later ones, where as many steps are taken.
    """
    last = recipe.epochs
    if recipe.images_per_class >= FEW:
        return (last,)
    steps, _ = an_epoch(images)
    last = min(last, max(EARLY, math.ceil(STEPS / steps)))
    return tuple(range(max(1, last - EARLY + 1), last + 1))


def views_to_fit_on(recipe: Recipe, source: Source, tower: int) -> int:
    """Return 30 a real image, at most 160,000, or 30,000 if the tower takes more than 64 px and so much longer.

    That is multiplied as the preset says, but no preset takes away what a small set needs; and for a file of more than
    100 images by √(images / 100).
    """
    images = len(source.classes) * recipe.images_per_class
    most = 160_000 if tower <= SMALL else 30_000
    times, _ = PRESETS[recipe.preset]
    usual = min(30 * len(source), most)
    return round(max(times * usual, min(usual, LEAST)) * max(1.0, math.sqrt(images / MANY)))


def batch_within_memory(side: int) -> int:
    """Return a batch size for a fit: what it keeps for the backward pass grows with the pixels of a batch."""
    return max(1, min(BATCH, PIXELS // side**2))
