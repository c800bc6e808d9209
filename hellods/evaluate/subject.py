"""Subject: one archive beside the real data and the teacher, checked before any student learns."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from hellods.data.dataset import HelloDataset
from hellods.data.memory import room
from hellods.data.options import read_projector_config, read_views
from hellods.device import CPU
from hellods.distill.recipe import Recipe
from hellods.errors import HelloError, LabelError, OptionError, SourceError
from hellods.evaluate.arms import Arm
from hellods.evaluate.bench import Bench
from hellods.evaluate.checks import check_classes, check_order, check_student, check_unseen, too_few
from hellods.evaluate.makers import Storage, storage_within
from hellods.evaluate.presets import ResolvedProtocol, resolve
from hellods.evaluate.question import Question
from hellods.format.archive import Archive
from hellods.format.header import Header
from hellods.labels import LabelMaker
from hellods.labels.backbones import BACKBONES
from hellods.labels.config import needs_base
from hellods.record import from_json
from hellods.sources.source import Source
from hellods.teachers.teacher import Teacher
from hellods.views.rule import Views

logger = logging.getLogger("hellods")

MAX_SIZE: Final = 1024  # pixels of a view's side; at the 4096 that a file may ask for, a ConvNet's first maps take 9 GB


@dataclass(frozen=True, kw_only=True)
class Subject:
    """All that the arms of one archive need, on the device."""

    path: Path
    shown: str  # what reports call it: its file's name, or the path where another file has the same
    header: Header
    content_id: str
    protocol: ResolvedProtocol
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
        """Bytes of the archive's label maker, with its base model if the archive holds that."""
        return sum(section.length for section in self.header.sections if section.name in ("projector", "backbone"))

    def storage(self, arm: Arm) -> Storage | None:
        """Return how an arm's labels are stored; None where one view of each image takes more than it may."""
        budget = self.label_bytes * (arm.stored or 0)
        return storage_within(budget, len(self.images), self.protocol.epochs, len(self.header.classes))

    def lacking(self, arm: Arm) -> str | None:
        """Return why the arm cannot be run here, None if it can."""
        needs = [arm.images, arm.labels, *(["hello"] if arm.stored else [])]
        missing = next((self.missing[need] for need in needs if need in self.missing), None)
        if missing is None and arm.stored and self.storage(arm) is None:
            return "the labels of one view of each image take more bytes"
        return missing


def read_archive(path: str, question: Question) -> tuple[Header, str, ResolvedProtocol, Views]:
    """Return an archive's header and content id, how its students are trained, and the views that they see.

    Raises:
        HelloError: the file cannot be used, or its images do not suit the protocol.
    """
    with Archive.open(path) as archive:
        header, content_id = archive.header, archive.content_id
    facts = header.images
    if facts.height != facts.width:
        raise SourceError(f"{path}: images of {facts.height} × {facts.width} px: students need squares")
    protocol, views = resolve(question.protocol, read_views(header, path), facts.count, len(header.classes))
    size, most = 3 * facts.count * facts.height * facts.width, room(CPU)
    if size > most:
        raise SourceError(f"{path}: {size:,} bytes of images are more than the {most:,} that this machine has room for")
    if views.size > MAX_SIZE:
        raise SourceError(f"{path}: views of {views.size} px: students learn from {MAX_SIZE} px at most")
    try:
        views.check(facts.height, facts.width)
    except OptionError as cause:
        raise OptionError(f"{path}: {cause}") from cause
    return header, content_id, protocol, views


def open_subject(path: str, question: Question, bench: Bench) -> Subject:
    """Return the archive at `path` with everything that it is compared with.

    Raises:
        HelloError: the file, the real images, the teacher or the base model cannot be used, or do not fit each other.
    """
    header, content_id, protocol, views = read_archive(path, question)
    recipe, side = recipe_of(header, path), header.images.height
    source, held_out = bench.sources(recipe.seed)
    check_classes(path, header, source)
    check_student(protocol, len(header.classes), views.size)  # before every image is read
    bench.check(recipe.seed)
    check_unseen(path, header, source, held_out)
    missing = {}

    maker, base = None, None
    if header.projector is None:
        missing["hello"] = "the archive holds no label maker"
    else:
        try:
            maker, base = get_maker(path, header, question)
        except LabelError as cause:
            missing["hello"] = str(cause)
    # One that learned little may be taken for one of another order, as a teacher may.
    if maker is not None and not question.allow_weak_teacher:  # before the teacher learns, which takes longer
        check_order(maker, source, held_out, side, bench.device, bench.progress)
    teacher, accuracy = bench.teacher(recipe, side) or (None, None)
    if teacher is None:
        missing["teacher"] = f"needs the teacher: give `teacher` ({named(header)})"

    with Archive.open(path) as archive:
        images = torch.from_numpy(archive.pixels()).permute(0, 3, 1, 2)
        targets = torch.tensor(archive.targets(), dtype=torch.int64)
    return Subject(
        path=Path(path),
        shown=Path(path).name,
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
    except HelloError as cause:
        if header.recipe:
            logger.warning("%s: so the default recipe says what is held out, and how a teacher is trained", cause)
        return Recipe()


def named(header: Header) -> str:
    """Return what an archive says of its teacher."""
    name = header.teacher.get("architecture")
    return f"the archive was made with {name!a}" if name else "the archive does not name its own"


def get_maker(path: str, header: Header, question: Question) -> tuple[LabelMaker, dict[str, str | int] | None]:
    """Return the archive's label maker, and what is public of it: the base model, unless the archive holds its own.

    Raises:
        LabelError: the base model is missing or another one.
    """

    def opened(base: str | None) -> LabelMaker:
        label_maker = HelloDataset(path, labels="logits", base=base).label_maker
        label_maker(torch.zeros(1, 3, header.images.height, header.images.width, dtype=torch.uint8))
        return label_maker

    config = read_projector_config(header, path)
    base = question.base
    try:
        label_maker = opened(base)
    except LabelError:  # it may be that of another archive
        if base is None or needs_base(header.projector or {}):
            raise
        label_maker, base = opened(None), None
    if config.tower is not None:
        return label_maker, None
    tower = BACKBONES[config.architecture](base or config.base, config.head).tower
    size = 2 * sum(value.numel() for value in tower.state_dict().values())  # float16
    return label_maker, {
        "name": config.base.removeprefix("given:"),
        "sha256": config.base_sha256,
        "bytes": size,
    }
