"""build(): from a folder of real images to one archive."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from hellods.data.probe import make_probe
from hellods.device import usable, where
from hellods.distill.fit import Fit, fit_projector
from hellods.distill.initialize import INITIALIZERS, Layout, check_enough
from hellods.distill.measure import measure
from hellods.distill.recipe import Inputs, Recipe
from hellods.distill.sources import Source, open_source
from hellods.distill.teacher import check_teacher, get_teacher
from hellods.errors import SourceError
from hellods.format.archive import check_target, image_sections, write
from hellods.format.codecs import decode, encode
from hellods.format.header import Header, Images
from hellods.labels.projector import Projector
from hellods.progress import Progress, silent, track
from hellods.record import to_json
from hellods.views.rule import Views


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a build made, and the seconds that each stage took; all else stands in the archive."""

    path: Path
    content_id: str
    seconds: dict[str, float]


def build(
    inputs: Inputs,
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Report:
    """Return a report of the archive written to `out`.

    On a CPU with the same number of threads, the same inputs and recipe give the same bytes.

    Raises:
        HelloError: the inputs do not fit each other, or `out` cannot be written; nothing is written then.
    """
    check_target(out, overwrite)
    device = usable(inputs.device)
    clock = Clock()
    with clock("data"):
        source, held_out = open_source(inputs.data, seed=recipe.seed)
        recipe = resolve(recipe, source)
        layout, views, fit = arrange(recipe)
        check_enough(source, layout, recipe.initializer)
        source.check(progress)
        held_out.check(progress)
    with clock("base model"):  # before the teacher learns, since it may be missing
        progress("Base model", 0, 1)  # its first use may be a download
        projector = make_projector(inputs, recipe, source.classes).to(device)
        progress("Base model", 1, 1)
    with clock("teacher"):
        teacher = get_teacher(inputs, recipe, source, layout.side, progress).to(device)
        allow_weak = inputs.allow_weak_teacher
        accuracy = check_teacher(teacher, held_out, layout.side, more=source, allow_weak=allow_weak, progress=progress)
    with clock("projector"):
        # Crops of any size, as the images are made of; the whole photograph is one of them.
        seen = replace(views, scale=(0.08, 1.0), shuffle=1)
        fit_projector(projector, teacher, source, seen, fit, progress)
        projector.load(projector.state())  # from here on just what the archive holds
    with clock("images"):
        generator = torch.Generator().manual_seed(recipe.seed)
        chosen = INITIALIZERS[recipe.initializer](source, teacher, layout, generator, progress)
        streams, images = through_codec(chosen, recipe, progress)
    with clock("check"):
        metrics = measure(projector, teacher, held_out, images, views, progress)
        probe = make_probe(projector.cpu(), images, views)
    header = replace(
        outline(inputs, recipe, source, views, device),
        projector=to_json(projector.config),
        teacher=teacher.provenance() | {"held_out_accuracy": to_json(round(accuracy, 4))},
        metrics=to_json(metrics),
    )
    targets = torch.arange(len(source.classes)).repeat_interleave(recipe.images_per_class)
    sections = image_sections(streams) | {
        "targets": targets.numpy().astype("<u4").tobytes(),
        "projector": save(projector.state()),
        "probe": save(probe),
    }
    with clock("write"):
        content_id = write(out, header, sections, overwrite=overwrite, progress=progress)
    return Report(path=Path(out), content_id=content_id, seconds=clock.seconds)


def outline(inputs: Inputs, recipe: Recipe, source: Source, views: Views, device: torch.device) -> Header:
    """Return what the header says of the inputs; teacher, projector and metrics are still to come."""
    images = Images(
        count=len(source.classes) * recipe.images_per_class,
        codec=recipe.codec,
        height=views.size,
        width=views.size,
        mean=inputs.teacher_mean,
        std=inputs.teacher_std,
    )
    return Header(
        name=inputs.name or source.name,
        license=inputs.license,
        created_by=f"hellods {version('hellods')}, torch {torch.__version__}, {where(device)}",
        source=source.provenance() | ({"url": inputs.source_url} if inputs.source_url else {}),
        classes=source.classes,
        images=images,
        views=to_json(views),
        projector=None,
        teacher={},
        recipe=to_json(recipe),
        metrics={},
    )


class Clock:
    """Seconds by stage; `with clock("teacher"): …`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[stage] = round(time.monotonic() - start, 2)


def resolve(recipe: Recipe, source: Source) -> Recipe:
    """Return the recipe with every default that depends on the images filled in."""
    side = recipe.side or min(224, *source.image(0).shape[1:])
    factor = recipe.factor or (2 if side >= 128 and recipe.initializer == "patches" else 1)
    side -= 0 if recipe.side else side % factor
    small = side <= 64
    lossless = recipe.codec == "png" or (small and recipe.codec == "webp")
    budget = min(30 * len(source), 160_000 if small else 30_000)
    return replace(
        recipe,
        side=side,
        flip=not source.handed if recipe.flip is None else recipe.flip,
        factor=factor,
        quality=recipe.quality if recipe.quality or lossless else 90,
        fit_images=budget if recipe.fit_images is None else recipe.fit_images,
    )


def arrange(recipe: Recipe) -> tuple[Layout, Views, Fit]:
    """Return how the images are put together, the view of them that a student sees (RDED's, both), and the fit."""
    assert recipe.side
    assert recipe.factor
    assert recipe.fit_images is not None
    assert recipe.flip is not None
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
        images=recipe.fit_images,
        batch_size=recipe.fit_batch,
        learning_rate=recipe.fit_learning_rate,
        head_learning_rate=recipe.head_learning_rate,
        hard_weight=recipe.hard_weight,
        seed=recipe.seed,
    )
    return layout, views, fit


def make_projector(inputs: Inputs, recipe: Recipe, classes: tuple[str, ...]) -> Projector:
    """Return a projector that equals zero-shot CLIP."""
    texts = describe(classes, inputs.descriptions)
    ranks = (recipe.encoder_rank, recipe.head_rank)
    return Projector.create(inputs.base, texts, template=recipe.template, ranks=ranks, seed=recipe.seed)


def describe(classes: tuple[str, ...], descriptions: Mapping[str, str] | None) -> tuple[str, ...]:
    """Return one text a class: the user's, or the folder's name with spaces.

    Raises:
        SourceError: the user describes some classes but not all.
    """
    if descriptions is None:
        return tuple(name.replace("_", " ") for name in classes)
    missing = [name for name in classes if name not in descriptions]
    if missing:
        raise SourceError(f"class descriptions: none for {missing[0]!a}; each class folder needs one")
    return tuple(descriptions[name] for name in classes)


def through_codec(images: Tensor, recipe: Recipe, progress: Progress) -> tuple[list[bytes], Tensor]:
    """Return the encoded images, and uint8 (N, 3, S, S) as a reader will decode them."""
    pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
    streams = [encode(image, recipe.codec, recipe.quality) for image in track(pixels, len(pixels), "Encode", progress)]
    height, width = pixels.shape[1:3]
    decoded = [decode(stream, recipe.codec, height, width, "new image") for stream in streams]
    return streams, torch.stack([torch.tensor(image) for image in decoded]).permute(0, 3, 1, 2).contiguous()
