"""A recipe and real images -> what each stage of a build works with; nothing is learned here."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from hellods.device import Clock, get_device
from hellods.distill.embed import embed
from hellods.distill.fit import Fit
from hellods.distill.initialize import Layout, check_enough
from hellods.distill.recipe import (
    LEAST_SIDE,
    NO_ASSISTANT,
    PRESETS,
    RANK,
    RANKS,
    SMALL,
    Inputs,
    Recipe,
    Resolved,
    usual_base,
    usual_network,
    usual_quality,
)
from hellods.errors import OptionError, SourceError
from hellods.format import wire
from hellods.labels.config import check_descriptions, check_template
from hellods.labels.projector import Projector
from hellods.nets import create
from hellods.progress import Progress, silent
from hellods.sources.source import Pixels, Source, open_source, usual_side
from hellods.teachers.training import an_epoch
from hellods.views.rule import Views

MANY: Final = 100  # images of a file, beyond which a fit needs more views
LARGEST: Final = 224  # pixels of a side that nobody chose
FEW: Final = 5  # images of a class
EARLY: Final = 2  # epochs that teach so few
STEPS: Final = 80  # behind the last of these, or it is near chance; 640 images and more have as many in two epochs
BATCH: Final = 32  # many small steps come nearer to the teacher than few large ones
PIXELS: Final = BATCH * 224**2  # of a batch: 2.4 GB for a MobileNetV2 tower with its deltas


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a build works with: the real images, a recipe without gaps, and a projector that has learned nothing yet."""

    inputs: Inputs
    recipe: Resolved
    source: Source
    held_out: Source
    device: torch.device
    projector: Projector  # on the device; a build fits it
    layout: Layout
    views: Views  # of the file's images
    fit: Fit
    clock: Clock  # on which a build goes on


def prepare(inputs: Inputs, recipe: Recipe, progress: Progress = silent) -> Setting:
    """Return what a build of these works with; of the real images only a few are read, for their size.

    Raises:
        HelloError: the inputs do not fit each other, as far as that shows without reading all images, or the base model
            cannot be had.
    """
    device = get_device(inputs.device)
    clock = Clock(device)
    source, held_out = open_source(inputs.data, seed=recipe.seed)
    with clock("base model"):  # before all else that takes long, since it may be missing
        side, _ = side_and_factor(recipe, source)
        base = inputs.base or usual_base(side)
        rank = recipe.encoder_rank or RANKS.get(base, RANK)
        progress("Base model", 0, 1)  # its first use may be a download
        projector = make_projector(base, rank, describe(source.classes, inputs.descriptions), recipe).to(device)
        progress("Base model", 1, 1)
    recipe = replace(recipe, side=side, encoder_rank=rank)
    resolved = resolve(recipe, inputs, source, projector.config.preprocess.side)
    network = inputs.network(side) if inputs.trained else resolved.assistant
    if network != NO_ASSISTANT:
        create(network, len(source.classes), resolved.side)  # a wrong name is found before any long work
    layout, views, fit = arrange(resolved)
    check_enough(source, layout, resolved.initializer)
    return Setting(
        inputs=inputs,
        recipe=resolved,
        source=source,
        held_out=held_out,
        device=device,
        projector=projector,
        layout=layout,
        views=views,
        fit=fit,
        clock=clock,
    )


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
    try:
        check_template(recipe.template, len(source.classes))
    except ValueError as cause:
        raise OptionError(str(cause)) from cause
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

    That is multiplied as the preset says, and for a file of more than 100 images by √(images / 100).
    """
    images = len(source.classes) * recipe.images_per_class
    most = 160_000 if tower <= SMALL else 30_000
    times, _ = PRESETS[recipe.preset]
    return round(times * min(30 * len(source), most) * max(1.0, math.sqrt(images / MANY)))


def batch_within_memory(side: int) -> int:
    """Return a batch size for a fit: what it keeps for the backward pass grows with the pixels of a batch."""
    return max(1, min(BATCH, PIXELS // side**2))


def arrange(recipe: Resolved) -> tuple[Layout, Views, Fit]:
    """Return how the images are put together, the view of them that a student sees (RDED's, both), and the fit."""
    layout = Layout(
        images_per_class=recipe.images_per_class,
        side=recipe.side,
        factor=recipe.factor,
        candidates=recipe.candidates,
        crops=recipe.crops,
    )
    views = Views(
        size=recipe.side,
        scale=(1 / recipe.factor, 1.0),
        flip=recipe.flip,
        shuffle=recipe.factor,
        mix=recipe.mix,
    )
    fit = Fit(
        views=recipe.fit_views,
        batch_size=recipe.fit_batch_size,
        learning_rate=recipe.fit_learning_rate,
        head_learning_rate=recipe.head_learning_rate,
        hard_weight=recipe.hard_weight,
        seed=recipe.seed,
    )
    return layout, views, fit


def crops_of_any_size(views: Views) -> Views:
    """Return crops of real images as distilled ones are made of; the whole photograph is one of them."""
    return replace(views, scale=(0.08, 1.0), shuffle=1)


def lessons(recipe: Resolved, source: Source, images: Tensor, views: Views) -> tuple[Source, Views]:
    """Return what a projector is fitted on: the images, uint8 (N, 3, S, S), as students see them, or real ones."""
    if recipe.fit_on == "real":
        return source, crops_of_any_size(views)
    return Pixels(source.name, source.classes, class_by_class(source, recipe).tolist(), images), views


def class_by_class(source: Source, recipe: Recipe) -> Tensor:
    """Return the class of each of the file's images, int64 (N,)."""
    return torch.arange(len(source.classes)).repeat_interleave(recipe.images_per_class)


def make_projector(base: str, rank: int, texts: tuple[str, ...], recipe: Recipe) -> Projector:
    """Return a projector that equals zero-shot CLIP, or waits for prototypes.

    Args:
        base: names the base model.
        rank: of the deltas on its tower.
        texts: one a class.
        recipe: of the rest.

    Raises:
        HelloError: the base model cannot be had, or not be embedded if it shall.
    """
    projector = Projector.create(
        base,
        texts,
        template=recipe.template,
        ranks=(rank, recipe.head_rank),
        seed=recipe.seed,
        quantization=recipe.quantization,
        head=recipe.head,
        precision=recipe.label_precision,
    )
    if recipe.embed_base:
        embed(projector, base)
    return projector


def describe(classes: tuple[str, ...], descriptions: Mapping[str, str] | None) -> tuple[str, ...]:
    """Return one text a class: the user's, or the folder's name with spaces.

    Raises:
        SourceError: the user describes some classes but not all, or one at too great a length.
    """
    if descriptions is None:
        descriptions = {name: name.replace("_", " ") for name in classes}
    missing = [name for name in classes if name not in descriptions]
    if missing:
        raise SourceError(f"class descriptions: none for {missing[0]!a}; each class folder needs one")
    texts = tuple(descriptions[name] for name in classes)
    try:
        check_descriptions(texts)
    except ValueError as cause:
        raise SourceError(f"class descriptions: {cause}; give a shorter one") from cause
    return texts
