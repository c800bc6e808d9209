"""A recipe and real images -> what each stage of a build works with; nothing is learned here."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hellods.device import Clock, get_device
from hellods.distill.embed import embed
from hellods.distill.fit import Fit
from hellods.distill.initialize import Layout, check_enough
from hellods.distill.recipe import NO_ASSISTANT, RANK, RANKS, Inputs, Recipe, Resolved, usual_base
from hellods.distill.resolve import resolve, side_and_factor
from hellods.errors import OptionError, SourceError
from hellods.labels.config import check_descriptions
from hellods.labels.projector import Projector
from hellods.nets import create
from hellods.progress import Progress, silent
from hellods.sources.folders import shorten
from hellods.sources.source import Pixels, Source, open_source
from hellods.views.rule import Views

logger = logging.getLogger("hellods")


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
        beyond = sorted(descriptions.keys() - set(classes))
        found = f", while no class folder is named {shorten(beyond)}" if beyond else ""
        raise SourceError(f"class descriptions: none for {shorten(missing)}{found}; each class folder needs one")
    texts = tuple(descriptions[name] for name in classes)
    if same := [text for text, count in Counter(texts).items() if count > 1]:
        logger.warning("class descriptions: several classes are called %s, which no text tells apart", shorten(same))
    try:
        check_descriptions(texts)
    except OptionError as cause:
        raise SourceError(f"class descriptions: {cause}; give a shorter one") from cause
    return texts
