"""Folders of class folders: their classes, their image files, and which of those are held out."""

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Final

from hellods.errors import SourceError
from hellods.sources.image_files import SUFFIXES

logger = logging.getLogger("hellods")

SHOWN: Final = 3  # names in a message


def subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in it, sorted, without hidden ones."""
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as cause:
        raise _unreadable(cause) from cause


def scan(root: Path) -> tuple[list[str], list[str]]:
    """Return the classes below `root` and their image files as class/…/name, both sorted.

    Raises:
        SourceError: fewer than two class folders, one without images, or folders that cannot be read.
    """
    classes, files, others = subfolders(root), list[str](), 0
    if len(classes) < 2:
        raise SourceError(f"{root}: {len(classes)} class folders, expected two or more with images of one class each")
    if all(_holds_classes(root / label) for label in classes):
        found = shorten([f"{label}/" for label in classes])
        raise SourceError(f"{root}: {found} hold folders, not images; call a split set's folders train/ and val/")
    own = {(root / label).resolve(): label for label in classes}
    if alias := [label for label in classes if own[(root / label).resolve()] != label]:
        other = own[(root / alias[0]).resolve()]
        raise SourceError(f"{root / alias[0]}: is the same folder as the class {other!a}; remove one of them")
    for label in classes:
        if not label.isprintable():
            raise SourceError(f"{root}: the class folder {label!a} has a name that is not printable text: rename it")
        before, entered = len(files), {(root / label).resolve()}
        for folder, inner, names in os.walk(root / label, onerror=_fail, followlinks=True):
            inner[:] = [name for name in sorted(inner) if _enters(Path(folder), name, label, own, entered)]
            images = _images(names)
            others += sum(not name.startswith(".") for name in names) - len(images)
            prefix = Path(folder).relative_to(root).as_posix()
            files += [f"{prefix}/{name}" for name in images]
        if len(files) == before:
            raise SourceError(
                f"{root / label}: no images; fill this folder, remove it, or name another one than {root} as data"
            )
    if others:
        logger.info("%s: %d other files beside the images are ignored", root, others)
    return classes, sorted(files)


def choose_held_out(names: Iterable[str], seed: int, share: float) -> set[str]:
    """Return the names, each class/…/name, that are held out: a share of every class, decided by a hash.

    It is at least one of a class, but never its last.
    """
    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault(name.split("/", 1)[0], []).append(name)
    chosen: set[str] = set()
    for group in members.values():
        group.sort(key=lambda name: hashlib.sha256(os.fsencode(f"{seed}/{name}")).digest())
        chosen.update(group[: min(len(group) - 1, max(1, round(share * len(group))))])
    return chosen


def shorten(names: Sequence[str]) -> str:
    """Return the first few names for a message, and how many more there are."""
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _holds_classes(folder: Path) -> bool:
    return len(subfolders(folder)) > 1 and not _images(entry.name for entry in folder.iterdir())


def _enters(folder: Path, name: str, label: str, own: Mapping[Path, str], entered: set[Path]) -> bool:
    """Return whether images are looked for in a folder of that name, and note it: each is entered once.

    Raises:
        SourceError: it is a link into another class.
    """
    inner = folder / name
    place = inner.resolve()
    if name.startswith(".") or place in entered or folder.resolve().is_relative_to(place):  # a link that leads back
        return False
    entered.add(place)
    other = next((own[parent] for parent in (place, *place.parents) if parent in own), label)
    if other != label:
        raise SourceError(f"{inner}: links into the class {other!a}, so its images are of two classes; remove the link")
    return True


def _images(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith(".") and PurePath(name).suffix.lower() in SUFFIXES]


def _fail(cause: OSError) -> None:
    raise _unreadable(cause) from cause


def _unreadable(cause: OSError) -> SourceError:
    return SourceError(f"{cause.filename}: {cause.strerror}; make this folder readable")
