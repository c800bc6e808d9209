"""What must hold between an archive, its student and the real images, before any student learns."""

import torch
from torch import Tensor

from hellods.errors import OptionError, SourceError
from hellods.evaluate.presets import ResolvedProtocol
from hellods.format.header import Header
from hellods.labels import LabelMaker
from hellods.nets import create
from hellods.progress import Progress
from hellods.sources.apart import check_apart
from hellods.sources.folders import shorten
from hellods.sources.source import Folder, Source
from hellods.teachers.class_order import other_order
from hellods.teachers.teacher import classify_sample


def check_classes(path: str, header: Header, source: Source) -> None:
    """Check that the real images have the archive's classes.

    Raises:
        SourceError: they lack some, have others, or count them in another order.
    """
    ours, theirs = header.classes, source.classes
    if set(ours) - set(theirs):
        raise SourceError(
            f"{source.name}: no images of {shorten(sorted(set(ours) - set(theirs)))}, classes of {path}; give the data "
            "set that the archive was made from"
        )
    if set(theirs) - set(ours):
        extra = shorten(sorted(set(theirs) - set(ours)))
        raise SourceError(f"{source.name}: classes that {path} does not know: {extra}; remove these folders")
    if ours != theirs:
        first = next(number for number, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
        raise SourceError(
            f"{source.name}: class {first} is {theirs[first]!a}, in {path} it is {ours[first]!a}; rename the folders "
            "so that they sort in the archive's order"
        )


def check_student(protocol: ResolvedProtocol, classes: int, size: int) -> None:
    """Check that there is such a student for views of that size and for the protocol's batches.

    Raises:
        OptionError: it is unknown, cannot take the views, or cannot learn from one at a time.
    """
    network = create(protocol.student, classes, size)
    if protocol.batch_size == 1:
        try:
            with torch.random.fork_rng(devices=[]):  # for its dropout
                network.train()(torch.zeros(1, 3, size, size))
        except ValueError as cause:  # BatchNorm's, where maps have shrunk to one pixel
            raise OptionError(
                f"network {protocol.student!r} cannot learn from batches of one image of {size} px: {cause}; choose "
                "another, or larger batches"
            ) from cause


def check_unseen(path: str, header: Header, source: Source, held_out: Source) -> None:
    """Check that there are held-out images of every class, and that they are no part of what the archive was made from.

    Raises:
        SourceError: a class has none; or they are copies of those to learn from; or nobody can tell: no images were set
            apart, and these were not distilled.
    """
    apart = isinstance(source, Folder) and isinstance(held_out, Folder) and source.root != held_out.root
    if not apart and source.provenance()["sha256"] != header.source.get("sha256"):
        raise SourceError(
            f"{source.name}: has no val/ or test/, and is not what {path} was made from, so no image is known to be "
            "new to its students; put images that were never used into val/, beside train/"
        )
    check_apart(source, held_out)
    counts = torch.bincount(held_out.targets, minlength=len(held_out.classes))
    if not counts.all():
        label = held_out.classes[int(counts.argmin())]
        raise SourceError(f"{held_out.name}: class {label!a} has one image, and none to measure on; add images of it")


def check_order(
    maker: LabelMaker, source: Source, held_out: Source, side: int, device: torch.device, progress: Progress
) -> None:
    """Check that the archive's label maker counts the classes as the real images do.

    Images of `source` help where fewer than 50 of a class are held out.

    Raises:
        SourceError: it has them in another order.
    """
    targets, found, _ = classify_sample(
        lambda images: maker(images.to(device)), held_out, side, source, "Label check", progress
    )
    fault = other_order(targets, found, held_out.classes, who="label maker")
    if fault:
        remedy = "rename the class folders to sort in the archive's order, or give `allow_weak_teacher=True`"
        raise SourceError(f"{held_out.name}: {fault}; {remedy}")


def too_few(source: Source, targets: Tensor) -> dict[str, str]:
    """Return why as many random real images cannot be drawn, if a class has fewer than the archive has of it."""
    classes = len(source.classes)
    real, ours = (torch.bincount(values, minlength=classes) for values in (source.targets, targets))
    if bool((real >= ours).all()):
        return {}
    label = int((real - ours).argmin())
    return {"random": f"class {source.classes[label]!a} has {real[label]} real images, and {ours[label]} are needed"}
