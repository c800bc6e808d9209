"""Subject: one archive beside the real data and the teacher, checked before any student learns."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hellods.data.dataset import HelloDataset
from hellods.distill.folders import listed
from hellods.distill.order import other_order
from hellods.distill.recipe import Inputs, Recipe
from hellods.distill.sources import Folder, Source, open_source, sample, squares
from hellods.distill.teacher import PER_CLASS, Teacher, check_teacher, get_teacher
from hellods.errors import FormatError, LabelError, SourceError
from hellods.evaluate.arms import Arm
from hellods.evaluate.presets import Protocol, resolve
from hellods.evaluate.question import Question
from hellods.format.archive import Archive
from hellods.format.codecs import encode
from hellods.format.header import Header
from hellods.labels import LabelMaker
from hellods.labels.backbones import BACKBONES
from hellods.labels.config import ProjectorConfig
from hellods.progress import Progress, track
from hellods.record import from_json
from hellods.views.rule import Views

BATCH = 250


@dataclass(frozen=True, kw_only=True)
class Subject:
    """All that the arms of one archive need, on the device."""

    path: Path
    header: Header
    content_id: str
    protocol: Protocol  # resolved
    views: Views  # of the archive's images
    images: Tensor  # uint8 (N, 3, H, W)
    targets: Tensor  # int64 (N,), on the CPU
    recipe: Recipe
    source: Source
    held_out: Source
    label_maker: LabelMaker | None
    teacher: Teacher | None
    teacher_accuracy: float | None
    base: dict[str, str | int] | None
    missing: Mapping[str, str]  # what labels or images cannot be had, and why

    @property
    def counts(self) -> list[int]:
        """How many images each class has."""
        return torch.bincount(self.targets, minlength=len(self.header.classes)).tolist()

    @property
    def label_bytes(self) -> int:
        """Bytes of the archive's label maker."""
        return sum(section.length for section in self.header.sections if section.name == "projector")

    def lacking(self, arm: Arm) -> str | None:
        """Return why the arm cannot be run here, None if it can."""
        needs = [arm.images, arm.labels, *(["hello"] if arm.stored else [])]
        return next((self.missing[need] for need in needs if need in self.missing), None)


def open_subject(path: str, question: Question, device: torch.device, progress: Progress) -> Subject:
    """Return the archive at `path` with everything that it is compared with.

    Raises:
        HelloError: the file, the real images, the teacher or the base model cannot be used, or do not fit each other.
    """
    with Archive.open(path) as archive:
        header, content_id = archive.header, archive.content_id
        images = torch.from_numpy(archive.pixels()).permute(0, 3, 1, 2).contiguous()
        targets = torch.tensor(archive.targets(), dtype=torch.int64)
    if header.images.height != header.images.width:
        raise SourceError(f"{path}: images of {header.images.height} × {header.images.width} px: students need squares")
    views = from_json(Views, header.views, f"{path}: header.views")
    protocol, views = resolve(question.protocol, views, len(images), len(header.classes))
    recipe = recipe_of(header, path)
    source, held_out = open_source(question.data, seed=recipe.seed)
    check_classes(path, header, source)
    source.check(progress)
    held_out.check(progress)
    check_unseen(path, header, source, held_out)
    missing = {}

    teacher, accuracy = None, None
    if question.teacher is None:
        missing["teacher"] = f"needs the teacher: give --teacher ({named(header)})"
    else:
        inputs = Inputs(
            data=question.data,
            teacher=question.teacher,
            teacher_weights=question.teacher_weights,
            teacher_mean=question.teacher_mean,
            teacher_std=question.teacher_std,
            device=str(device),
        )
        side = header.images.height
        teacher = get_teacher(inputs, recipe, source, side, progress).to(device)
        weak = question.allow_weak_teacher
        accuracy = check_teacher(teacher, held_out, side, more=source, allow_weak=weak, progress=progress)

    maker, base = None, None
    if header.projector is None:
        missing["hello"] = "the archive holds no label maker"
    else:
        maker, base = get_maker(path, header, question, device, missing)
    if maker is not None:
        check_order(maker, held_out, header.images.height, device, progress)
    return Subject(
        path=Path(path),
        header=header,
        content_id=content_id,
        protocol=protocol,
        views=views,
        images=images.to(device),
        targets=targets,
        recipe=recipe,
        source=source,
        held_out=held_out,
        label_maker=maker,
        teacher=teacher,
        teacher_accuracy=accuracy,
        base=base,
        missing=missing | too_few(source, targets),
    )


def recipe_of(header: Header, path: str) -> Recipe:
    """Return the recipe that the archive was made by; of an archive that states none, the default one."""
    try:
        return from_json(Recipe, header.recipe, f"{path}: header.recipe", lenient=True)
    except FormatError:
        return Recipe()


def named(header: Header) -> str:
    """Return what an archive says of its teacher."""
    name = header.teacher.get("architecture")
    return f"the archive was made with {name!a}" if name else "the archive does not name its own"


def check_classes(path: str, header: Header, source: Source) -> None:
    """Return if the real images have the archive's classes.

    Raises:
        SourceError: they lack some, have others, or count them in another order.
    """
    ours, theirs = header.classes, source.classes
    if set(ours) - set(theirs):
        raise SourceError(
            f"{source.name}: no images of {listed(sorted(set(ours) - set(theirs)))}, classes of {path}; give the data "
            "set that the archive was made from"
        )
    if set(theirs) - set(ours):
        extra = listed(sorted(set(theirs) - set(ours)))
        raise SourceError(f"{source.name}: classes that {path} does not know: {extra}; take their folders away")
    if ours != theirs:
        first = next(number for number, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
        raise SourceError(
            f"{source.name}: class {first} is {theirs[first]!a}, in {path} it is {ours[first]!a}; rename the folders "
            "so that they sort in the archive's order"
        )


def check_unseen(path: str, header: Header, source: Source, held_out: Source) -> None:
    """Return if the held-out images are no part of what the archive was made from.

    Raises:
        SourceError: nobody can tell: the folder has no images set apart, and is not the one that was distilled.
    """
    divided = isinstance(source, Folder) and isinstance(held_out, Folder) and source.root == held_out.root
    if divided and source.provenance()["sha256"] != header.source.get("sha256"):
        raise SourceError(
            f"{source.name}: has no val/ or test/, and is not what {path} was made from, so no image is known to be "
            "new to its students; put images that were never used into val/, beside train/"
        )


def get_maker(
    path: str, header: Header, question: Question, device: torch.device, missing: dict[str, str]
) -> tuple[LabelMaker | None, dict[str, str | int] | None]:
    """Return the archive's label maker, and the public base model beside it; or None, and the reason in `missing`."""
    dataset = HelloDataset(path, labels="logits", base=question.base)
    try:
        dataset.label_maker(torch.zeros(1, 3, header.images.height, header.images.width, dtype=torch.uint8))
    except LabelError as cause:
        missing["hello"] = str(cause)
        return None, None
    config = from_json(ProjectorConfig, header.projector, f"{path}: header.projector", lenient=True)
    tower = BACKBONES[config.architecture](question.base or config.base).tower
    size = 2 * sum(value.numel() for value in tower.state_dict().values())  # float16
    return dataset.label_maker, {
        "name": config.base.removeprefix("given:"),
        "sha256": config.base_sha256,
        "bytes": size,
    }


def check_order(maker: LabelMaker, held_out: Source, side: int, device: torch.device, progress: Progress) -> None:
    """Return if the archive's label maker counts the classes as the real images do.

    Raises:
        SourceError: it has them in another order.
    """
    chosen = sample(held_out, max(PER_CLASS, -(-2000 // len(held_out.classes))))
    parts = torch.split(chosen, BATCH)
    work = track(parts, len(parts), "Label check", progress)
    found = torch.cat([maker(squares(held_out, part, side).to(device)).argmax(1).cpu() for part in work])
    fault = other_order(held_out.targets[chosen], found, held_out.classes, who="label maker")
    if fault:
        raise SourceError(f"{held_out.name}: {fault}")


def too_few(source: Source, targets: Tensor) -> dict[str, str]:
    """Return why as many random real images cannot be drawn, if a class has fewer than the archive has of it."""
    classes = len(source.classes)
    real, ours = (torch.bincount(values, minlength=classes) for values in (source.targets, targets))
    if bool((real >= ours).all()):
        return {}
    label = int((real - ours).argmin())
    return {"random": f"class {source.classes[label]!a} has {real[label]} real images, and {ours[label]} are needed"}


def encoded_bytes(images: Tensor, subject: Subject) -> int:
    """Return the bytes of uint8 images (N, 3, H, W) when stored as the archive stores its own."""
    codec = subject.header.images.codec
    quality = subject.recipe.quality or (None if codec in ("png", "webp") else 90)
    pixels = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return sum(len(encode(image, codec, quality)) for image in pixels)
