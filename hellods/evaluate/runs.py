"""Runs: which students a question needs, each kept in a file of its own, so that none is trained twice."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from hellods.device import describe_device, processor
from hellods.digests import software
from hellods.distill.recipe import usual_quality
from hellods.distill.store import as_stored
from hellods.errors import HelloError
from hellods.evaluate.arms import Arm
from hellods.evaluate.feed import Lesson, batch_sizes
from hellods.evaluate.makers import Storage, logit_range, ship, truncated
from hellods.evaluate.sizes import image_bytes
from hellods.evaluate.student import Outcome, learn, pilot
from hellods.evaluate.subject import Subject
from hellods.format.files import replacing
from hellods.labels import LabelMaker
from hellods.progress import Progress
from hellods.record import to_json
from hellods.sources.sampling import pick
from hellods.sources.source import squares
from hellods.views.draw import draw
from hellods.views.render import render

BATCH: Final = 250  # images labelled at once
RANDOM: Final = 1 << 31  # added to a seed, so that other images are drawn than by a build of random ones
PARTS: Final = ("images", "labels")  # whose bytes are kept with an outcome


@dataclass(frozen=True, kw_only=True)
class Run:
    """One student to train."""

    subject: Subject
    name: str  # of the arm
    arm: Arm
    seed: int
    key: str  # digest of all that decides the outcome
    file: Path  # where the outcome is kept

    @property
    def views(self) -> int:
        """That the student sees."""
        return self.subject.protocol.epochs * len(self.subject.images)


def runs_of(subject: Subject, arms: Iterable[tuple[str, Arm]], seeds: int, precision: str, folder: Path) -> list[Run]:
    """Return the runs that these arms need of one archive."""
    runs = []
    for name, arm in arms:
        for seed in range(seeds):
            key = run_key(subject, arm, seed, precision)
            # Labels that are stored whole are the same in a larger budget, and learned once.
            file = folder / f"{name.partition('-')[0]}-{seed}-{key[:16]}.json"
            runs.append(Run(subject=subject, name=name, arm=arm, seed=seed, key=key, file=file))
    return runs


def run_key(subject: Subject, arm: Arm, seed: int, precision: str) -> str:
    """Return the SHA-256 of all that decides the outcome of a run, but for the rounding of other hardware."""
    used = subject.teacher if arm.labels != "truth" else None
    teacher = used and used.provenance()
    decides = {
        "images": "random, as stored" if arm.images == "random" else arm.images,
        "labels": arm.labels,
        "bits": arm.bits,
        # All real images are learned without anything of the archive, but for how its images are seen.
        "archive": None if arm.images == "all" else subject.content_id,
        "storage": to_json(subject.storage(arm)) if arm.stored else None,
        "steps": steps_of(subject),
        "side": subject.header.images.height,
        "normalized": to_json([subject.header.images.mean, subject.header.images.std]),
        "protocol": to_json(subject.protocol),
        "views": to_json(subject.views),
        "real": None if arm.images == "archive" else subject.source.provenance()["sha256"],
        "held_out": subject.held_out.provenance()["sha256"],
        "teacher": teacher,
        "seed": seed,
        "precision": precision,
        "software": software(),
    }
    return sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def steps_of(subject: Subject) -> int:
    """Return the steps in each of the protocol's epochs; real data are seen for as many as the archive."""
    return len(batch_sizes(len(subject.images), subject.protocol.batch_size))


def kept(run: Run) -> dict[str, Any] | None:
    """Return what is kept of a run that was finished before: its outcome and its bytes; None if it was not.

    Raises:
        HelloError: the file is not one of ours.
    """
    if not run.file.exists():
        return None
    try:
        value: dict[str, Any] = json.loads(run.file.read_text())
        if value["key"] != run.key:
            raise ValueError("of another run")
        Outcome(**value["outcome"])  # knows the keys that it needs
        if not value["bytes"].keys() >= set(PARTS):
            raise ValueError("without its bytes")
        if not isinstance(value["hardware"], str):
            raise ValueError("without its hardware")
        return value
    except (ValueError, KeyError, TypeError, AttributeError) as cause:
        raise HelloError(
            f"{run.file}: not the outcome of this run ({cause}); delete it to train this student again"
        ) from cause


def finish(run: Run, device: torch.device, precision: torch.dtype, progress: Progress) -> dict[str, Any]:
    """Train the student, keep what became of it, and return that."""
    lesson, size = lesson_of(run)
    outcome = learn(lesson, run.seed, device, precision, progress)
    value = {
        "key": run.key,
        "arm": run.name,
        "seed": run.seed,
        "hardware": f"{processor()}, {describe_device(device)}",
        "bytes": size,
        "outcome": asdict(outcome),
    }
    run.file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(run.file, overwrite=True) as file:
        file.write_text(json.dumps(value, indent=1) + "\n")
    return value


def lesson_of(run: Run) -> tuple[Lesson, dict[str, int]]:
    """Return what the student of a run learns from, and the bytes of its images and its labels."""
    subject, arm = run.subject, run.arm
    images, targets, size = pictures(subject, arm, run.seed)
    # Real images are whole: to exchange their strips would only harm them.
    views = subject.views if arm.images == "archive" else replace(subject.views, shuffle=1)
    facts, storage = subject.header.images, subject.storage(arm) if arm.stored else None
    labels, label_bytes = labels_of(subject, arm, storage, run.seed)
    lesson = Lesson(
        pixels=images,
        side=facts.height,
        targets=targets,
        views=views,
        labels=labels,
        repeat=storage.views if storage else None,
        protocol=subject.protocol,
        steps=steps_of(subject),
        held_out=subject.held_out,
        mean=facts.mean,
        std=facts.std,
        teacher=subject.teacher,
    )
    return lesson, {"images": size, "labels": label_bytes}


def pictures(subject: Subject, arm: Arm, seed: int) -> tuple[Callable[[Tensor], Tensor], Tensor, int]:
    """Return an arm's images, int64 (B,) -> uint8 (B, 3, H, W), the class of each, and their bytes."""
    source, side = subject.source, subject.header.images.height
    if arm.images == "archive":
        return subject.images.__getitem__, subject.targets, sum(image_bytes(subject))
    if arm.images == "all":
        return partial(squares, source, side=side), source.targets, source.provenance()["bytes"]
    generator = torch.Generator().manual_seed(RANDOM + seed)
    chosen = torch.cat([pick(source, label, count, generator) for label, count in enumerate(subject.counts)])
    codec = subject.header.images.codec
    unsaid = None if codec in ("png", "webp") else usual_quality(side)  # WebP as it was once: lossless
    quality = subject.recipe.quality or unsaid
    streams, images = as_stored(squares(source, chosen, side), codec, quality)
    _, index = image_bytes(subject)
    return images.__getitem__, source.targets[chosen], sum(map(len, streams)) + index


def labels_of(subject: Subject, arm: Arm, storage: Storage | None, seed: int) -> tuple[LabelMaker | None, int]:
    """Return an arm's label maker, None for the true classes, and its bytes."""
    if arm.labels == "truth":
        return None, 0
    if arm.labels == "hello":
        return subject.label_maker, subject.label_bytes
    teacher = subject.teacher
    assert teacher is not None
    if storage:
        count, side = len(subject.images), subject.header.images.height
        parts = torch.split(torch.arange(count), BATCH)
        drawn = (draw(subject.views, (side, side), count, seed, 0, part) for part in parts)
        low, high = logit_range(teacher, (render(subject.images, some) for some in drawn))
        return truncated(teacher, storage, low, high), storage.bytes
    shipped, size = ship(teacher, arm.bits or 16)
    return (shipped if arm.bits else teacher), size


def expected_seconds(run: Run, device: torch.device, precision: torch.dtype) -> float:
    """Return how long a run takes, from a few measured steps."""
    lesson, _ = lesson_of(run)
    return pilot(lesson, device, precision)
