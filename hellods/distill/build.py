"""build(): from a folder of real images to one archive."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save
from torch import Tensor

from hellods.device import describe_device, float32_on_cpu
from hellods.digests import digest, software
from hellods.display.card import card
from hellods.distill.arrange import Setting, class_by_class, lessons, prepare
from hellods.distill.fit import fit_projector, quantize_projector
from hellods.distill.initialize import initialize
from hellods.distill.measure import measure
from hellods.distill.mentors import get_mentors
from hellods.distill.prototypes import prototypes
from hellods.distill.recipe import Inputs, Recipe
from hellods.distill.resume import Work
from hellods.distill.store import as_stored
from hellods.errors import SourceError
from hellods.format import wire
from hellods.format.archive import write
from hellods.format.files import check_target
from hellods.format.header import Header, Images, emit
from hellods.format.streams import image_sections
from hellods.probe import Probe, make_probe
from hellods.progress import Progress, silent
from hellods.record import to_json
from hellods.sources.apart import check_apart
from hellods.teachers.teacher import Teacher, near_chance

logger = logging.getLogger("hellods")

LATER: Final = 1 << 14  # bytes of a header, for teacher, metrics and sections


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a build made, and the seconds that each stage took; all else stands in the archive."""

    path: Path
    content_id: str
    seconds: dict[str, float]


@float32_on_cpu()
def build(
    inputs: Inputs,
    recipe: Recipe = Recipe(),  # noqa: B008  # frozen
    *,
    out: str | os.PathLike[str],
    overwrite: bool = False,
    progress: Progress = silent,
) -> Report:
    """Return a report of the archive written to `out`.

    On the same kind of CPU with the same number of threads, the same inputs and recipe give the same bytes, also after
    a build was killed: what it had done is kept in a folder beside `out`, and the same call goes on from there.

    Args:
        inputs: The real images, the base model and the teacher, and what the archive is called.
        recipe: How the archive is made of them.
        out: The file to write.
        overwrite: Whether to replace `out` if it exists.
        progress: A callback, given (stage, steps done, steps in all) when a stage begins and after every step.

    Raises:
        HelloError: the inputs do not fit each other, or `out` cannot be written. There is no `out` then, but what was
            done is kept beside it.
    """
    check_target(out, overwrite)
    with Work(out) as kept:
        return carry_out(prepare(inputs, recipe, progress), kept, overwrite=overwrite, progress=progress)


def carry_out(setting: Setting, kept: Work, *, overwrite: bool = False, progress: Progress = silent) -> Report:
    """Return a report of the archive that is written beside what is kept of it; the setting's projector is fitted."""
    clock = setting.clock
    with clock("data"):
        check_data(setting, progress)
    mentors, known, work = get_mentors(setting, kept.given(**deciding_facts(setting)), progress)
    with clock("images"):
        how, layout, stage = setting.recipe, setting.layout, work.stage("images")
        chosen = initialize(how.initializer, setting.source, mentors[0], layout, how.seed, progress, stage)
        streams, images = as_stored(chosen, how.codec, how.quality, progress)
    with clock("projector"):
        sections = fit_sections(setting, mentors[-1], images, work, progress)
    with clock("check"):
        metrics, probe = measured(setting, mentors, images, progress)
    with clock("write"):
        header = replace(outline(setting), teacher=known, metrics=to_json(metrics))
        targets = class_by_class(setting.source, setting.recipe).numpy().astype("<u4").tobytes()
        sections |= image_sections(streams)
        sections |= {"targets": targets, "probe": save(vars(probe)), "card": card(header).encode()}
        content_id = write(kept.out, header, sections, overwrite=overwrite, progress=progress)
        kept.remove()
    seconds = {stage: round(value, 2) for stage, value in clock.seconds.items()}
    return Report(path=kept.out, content_id=content_id, seconds=seconds)


def check_data(setting: Setting, progress: Progress) -> None:
    """Check every image, and that a header has room for what is known of the file before anything is learned.

    Raises:
        SourceError: images cannot be used, held-out ones are copies, or the names of the classes are too long.
    """
    setting.source.check(progress)
    setting.held_out.check(progress)
    check_apart(setting.source, setting.held_out)
    header = outline(setting)
    size = len(emit(header)) + LATER
    if size > wire.MAX_HEADER:
        raise SourceError(
            f"{header.source['name']}: the names of {len(header.classes):,} classes take too much of a file's header, "
            f"{size:,} bytes of {wire.MAX_HEADER:,}: shorten the folders' names, or the texts that describe them"
        )


def deciding_facts(setting: Setting) -> dict[str, Any]:
    """Return, as JSON holds it, all that decides what the first stage makes."""
    inputs, source = setting.inputs, setting.source
    return software() | {
        "device": describe_device(setting.device),
        "recipe": to_json(setting.recipe),
        "data": source.provenance() | {"classes": list(source.classes)},
        "teacher": to_json([inputs.teacher, inputs.teacher_mean, inputs.teacher_std]),
    }


def fit_sections(setting: Setting, mentor: Teacher, images: Tensor, work: Work, progress: Progress) -> dict[str, bytes]:
    """Return the sections of the projector, which is fitted to the mentor, and from here on as a reader will have it.

    Args:
        setting: of the build.
        mentor: the assistant, or the teacher where there is none.
        images: of the file, uint8 (N, 3, S, S).
        work: keeps what was done.
        progress: told of every step.
    """
    recipe, source, projector, fit = setting.recipe, setting.source, setting.projector, setting.fit
    if recipe.head == "prototypes":
        projector.set_prototypes(prototypes(projector, source, recipe.side, progress))
    work = work.given(projector=to_json(projector.config), images=digest({"images": images}))
    seen, how = lessons(recipe, source, images, setting.views)
    fit_projector(projector, mentor, seen, how, fit, progress, checkpoint=work.stage("projector"))
    if recipe.quantization == "int4":  # rounding to int8 costs nothing
        quantize_projector(projector, seen, how, fit, progress, checkpoint=work.stage("quantize"))
    projector.load(projector.state())  # just what the archive holds
    sections = {"projector": save(projector.state())}
    if recipe.embed_base:
        sections["backbone"] = save(projector.base())
    projector.merge()
    return sections


def measured(
    setting: Setting, mentors: Sequence[Teacher], images: Tensor, progress: Progress
) -> tuple[dict[str, float], Probe]:
    """Return what is measured of the projector, which goes to the CPU, and answers that a reader's must come near."""
    held_out, views = setting.held_out, setting.views
    metrics, shown = measure(setting.projector.label, mentors, held_out, images, views, progress)
    right = metrics["projector_held_out_accuracy"]
    remedy = "its labels may teach nothing: try more `fit_views`, or `preset='best'`"
    if fault := near_chance("projector", right, shown, held_out, remedy):
        logger.warning("%s: %s", setting.source.name, fault)
    return metrics, make_probe(setting.projector.cpu().label, images, views)


def outline(setting: Setting) -> Header:
    """Return what the header says of a setting; teacher and metrics are still to come."""
    inputs, recipe, source, views = setting.inputs, setting.recipe, setting.source, setting.views
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
        created_by=f"hellods {version('hellods')}, torch {torch.__version__}, {describe_device(setting.device)}",
        source=source.provenance() | ({"url": inputs.source_url} if inputs.source_url else {}),
        classes=source.classes,
        images=images,
        views=to_json(views),
        projector=to_json(setting.projector.config),
        teacher={},
        recipe=to_json(recipe),
        metrics={},
    )
