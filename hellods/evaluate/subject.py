"""Subject: one archive beside the real data and the teacher, checked before any student learns."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hellods.data.dataset import HelloDataset
from hellods.data.options import archived
from hellods.distill.folders import listed
from hellods.distill.order import other_order
from hellods.distill.recipe import Recipe
from hellods.distill.sources import Folder, Source, sample, squares
from hellods.distill.teacher import PER_CLASS, SAMPLE, Teacher
from hellods.errors import HelloError, LabelError, RecipeError, SourceError
from hellods.evaluate.arms import Arm
from hellods.evaluate.bench import Bench
from hellods.evaluate.presets import Protocol, resolve
from hellods.evaluate.question import Question
from hellods.format.archive import Archive
from hellods.format.header import Header
from hellods.labels import LabelMaker
from hellods.labels.backbones import BACKBONES
from hellods.labels.config import ProjectorConfig
from hellods.nets import create
from hellods.progress import Progress, track
from hellods.record import from_json
from hellods.views.draw import draw
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


def asked(path: str, question: Question) -> tuple[Header, str, Protocol, Views]:
    """Return an archive's header and content id, how its students are trained, and the views that they see.

    Raises:
        HelloError: the file cannot be used, or its images do not suit the protocol.
    """
    with Archive.open(path) as archive:
        header, content_id = archive.header, archive.content_id
    facts = header.images
    if facts.height != facts.width:
        raise SourceError(f"{path}: images of {facts.height} × {facts.width} px: students need squares")
    protocol, views = resolve(question.protocol, archived(header, path), facts.count, len(header.classes))
    try:
        draw(views, (facts.height, facts.width), facts.count, 0, 0, torch.tensor([0]))
    except ValueError as cause:
        raise RecipeError(f"{path}: {cause}") from cause
    return header, content_id, protocol, views


def open_subject(path: str, question: Question, bench: Bench) -> Subject:
    """Return the archive at `path` with everything that it is compared with.

    Raises:
        HelloError: the file, the real images, the teacher or the base model cannot be used, or do not fit each other.
    """
    header, content_id, protocol, views = asked(path, question)
    recipe, side = recipe_of(header, path), header.images.height
    source, held_out = bench.sources(recipe.seed)
    check_classes(path, header, source)
    check_student(protocol, len(header.classes), views.size)  # before every image is decoded
    bench.check(recipe.seed)
    check_unseen(path, header, source, held_out)
    missing = {}

    maker, base = None, None
    if header.projector is None:
        missing["hello"] = "the archive holds no label maker"
    else:
        maker, base = get_maker(path, header, question, missing)
    if maker is not None:  # before the teacher learns, which takes longer
        check_order(maker, source, held_out, side, bench.device, bench.progress)
    teacher, accuracy = bench.teacher(recipe, side) or (None, None)
    if teacher is None:
        missing["teacher"] = f"needs the teacher: give --teacher ({named(header)})"

    with Archive.open(path) as archive:
        images = torch.from_numpy(archive.pixels()).permute(0, 3, 1, 2).contiguous()
        targets = torch.tensor(archive.targets(), dtype=torch.int64)
    return Subject(
        path=Path(path),
        header=header,
        content_id=content_id,
        protocol=protocol,
        views=views,
        images=images.to(bench.device),
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
    """Return the recipe that the archive was made by; of an archive that states none of ours, the default one."""
    try:
        return from_json(Recipe, header.recipe, f"{path}: header.recipe", lenient=True)
    except HelloError:
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


def check_student(protocol: Protocol, classes: int, size: int) -> None:
    """Return if there is such a student for views of that size and for the protocol's batches.

    Raises:
        RecipeError: it is unknown, cannot take the views, or cannot learn from one at a time.
    """
    network = create(protocol.student, classes, size)
    if protocol.batch_size == 1:
        try:
            with torch.random.fork_rng(devices=[]):  # for its dropout
                network.train()(torch.zeros(1, 3, size, size))
        except ValueError as cause:  # BatchNorm's, where maps have shrunk to one pixel
            raise RecipeError(
                f"network {protocol.student!r} cannot learn from batches of one image of {size} px: {cause}; choose "
                "another, or larger batches"
            ) from cause


def check_unseen(path: str, header: Header, source: Source, held_out: Source) -> None:
    """Return if there are held-out images of every class, and they are no part of what the archive was made from.

    Raises:
        SourceError: a class has none; or nobody can tell: no images were set apart, and these were not distilled.
    """
    apart = isinstance(source, Folder) and isinstance(held_out, Folder) and source.root != held_out.root
    if not apart and source.provenance()["sha256"] != header.source.get("sha256"):
        raise SourceError(
            f"{source.name}: has no val/ or test/, and is not what {path} was made from, so no image is known to be "
            "new to its students; put images that were never used into val/, beside train/"
        )
    counts = torch.bincount(held_out.targets, minlength=len(held_out.classes))
    if not counts.all():
        label = held_out.classes[int(counts.argmin())]
        raise SourceError(f"{held_out.name}: class {label!a} has one image, and none to measure on; add images of it")


def get_maker(
    path: str, header: Header, question: Question, missing: dict[str, str]
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


def check_order(
    maker: LabelMaker, source: Source, held_out: Source, side: int, device: torch.device, progress: Progress
) -> None:
    """Return if the archive's label maker counts the classes as the real images do.

    Images of `source` help where fewer than 50 of a class are held out.

    Raises:
        SourceError: it has them in another order.
    """
    classes = len(held_out.classes)
    few = bool(torch.bincount(held_out.targets, minlength=classes).min() < PER_CLASS)
    chosen = [(origin, sample(origin, max(PER_CLASS, SAMPLE // classes))) for origin in [held_out, source][: 1 + few]]
    work = [(origin, part) for origin, indices in chosen for part in torch.split(indices, BATCH)]
    found = [
        maker(squares(origin, part, side).to(device)).argmax(1).cpu()
        for origin, part in track(work, len(work), "Label check", progress)
    ]
    targets = torch.cat([origin.targets[part] for origin, part in work])
    fault = other_order(targets, torch.cat(found), held_out.classes, who="label maker")
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
