"""Real data: folders of images, and scikit-learn's digits."""

import hashlib
import logging
import os
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median_low
from typing import Any, Final, TypeVar

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from hellods.errors import SourceError
from hellods.progress import Progress, silent, track
from hellods.sources.folders import choose_held_out, scan, shorten, subfolders
from hellods.sources.image_files import decode

S = TypeVar("S")
T = TypeVar("T")

logger = logging.getLogger("hellods")

HELD_OUT: Final = 0.2  # share of every class, where there is no val/ or test/
KEPT: Final = 1 << 30  # bytes of squares that a source keeps; a larger set is decoded anew each time
SIZED: Final = 100  # images whose sizes speak for all


class Source(ABC):
    """Real images and their classes, in a fixed order; images are decoded when asked for."""

    handed = False  # known to change their meaning when they are mirrored, as digits do

    def __init__(self, name: str, classes: Sequence[str], targets: Sequence[int]) -> None:
        self.name = name
        self.classes = tuple(classes)
        self.targets = torch.tensor(targets, dtype=torch.int64)
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}  # side -> squares (N, 3, side, side), which are known (N,)

    def __len__(self) -> int:
        return len(self.targets)

    @abstractmethod
    def image(self, index: int) -> Tensor:
        """Return uint8 (3, H, W) in its own size.

        Raises:
            SourceError: the file cannot be used.
        """

    @abstractmethod
    def check(self, progress: Progress = silent, *, decode: bool = True) -> None:
        """Read every image once, decode it if asked to, and say which were converted.

        Raises:
            SourceError: names the files that cannot be used.
        """

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Return name, number of images, bytes, and a SHA-256 over the images' names and bytes."""


class Pixels(Source):
    """A set that stands in memory."""

    def __init__(self, name: str, classes: Sequence[str], targets: Sequence[int], images: Tensor) -> None:
        super().__init__(name, classes, targets)
        self.images = images  # uint8 (N, 3, H, W)
        self.size = images.nbytes  # bytes of what they were made from

    def image(self, index: int) -> Tensor:
        return self.images[index]

    def check(self, progress: Progress = silent, *, decode: bool = True) -> None:
        """Do nothing: what stands in memory was decoded."""

    def provenance(self) -> dict[str, Any]:
        digest = hashlib.sha256(self.images.numpy().tobytes() + self.targets.numpy().astype("<i8").tobytes())
        return {"name": self.name, "images": len(self), "bytes": self.size, "sha256": digest.hexdigest()}


class Folder(Source):
    """Image files below class folders."""

    def __init__(self, name: str, root: Path, classes: Sequence[str], files: Sequence[str]) -> None:
        number = {label: index for index, label in enumerate(classes)}
        super().__init__(name, classes, [number[file.split("/", 1)[0]] for file in files])
        self.root = root
        self.files = files  # class/…/image, sorted
        self._facts: dict[str, Any] | None = None
        self.contents = np.zeros(len(files), np.uint64)  # the first bytes of each file's SHA-256

    def image(self, index: int) -> Tensor:
        return decode(self._read(index), str(self.root / self.files[index]))[0]

    def check(self, progress: Progress = silent, *, decode: bool = True) -> None:
        digest, size, notes, problems = hashlib.sha256(), 0, Counter[str](), dict[str, str]()
        examined = threaded(partial(self._examine, decoded=decode), range(len(self)))
        for index, (length, content, note, problem) in enumerate(track(examined, len(self), "Data", progress)):
            digest.update(os.fsencode(self.files[index]) + b"\0" + content)
            self.contents[index] = int.from_bytes(content[:8])
            size += length
            notes.update([note] if note else [])
            problems |= {str(self.root / self.files[index]): problem} if problem else {}
        if problems:
            _, *others = problems
            more = f"; so with {len(others)} more: {shorten(others)}" if others else ""
            raise SourceError(f"{next(iter(problems.values()))}{more}")
        if notes:
            kinds = ", ".join(f"{count} {note}" for note, count in sorted(notes.items()))
            logger.info("%s: converted to 8-bit RGB: %s", self.name, kinds)
        self._facts = {"name": self.name, "images": len(self), "bytes": size, "sha256": digest.hexdigest()}

    def provenance(self) -> dict[str, Any]:
        if self._facts is None:
            self.check()
        return dict(self._facts or {})

    def _read(self, index: int) -> bytes:
        path = self.root / self.files[index]
        try:
            return path.read_bytes()
        except OSError as cause:
            raise SourceError(f"{path}: {cause.strerror}; make this file readable or remove it") from cause

    def _examine(self, index: int, *, decoded: bool) -> tuple[int, bytes, str | None, str | None]:
        try:
            data = self._read(index)
            note = decode(data, str(self.root / self.files[index]))[1] if decoded else None
            return len(data), hashlib.sha256(data).digest(), note, None
        except SourceError as problem:
            return 0, b"", None, str(problem)


def open_source(where: str, *, seed: int = 0) -> tuple[Source, Source]:
    """Return the images to learn from and those held out; nothing is decoded yet.

    Args:
        where: a folder with train/ and val/ or test/, each with the same class folders; or a folder of class folders
            alone; or `digits`, scikit-learn's, enlarged to 32 px.
        seed: decides, by a hash of their names, which images are held out where there is no val/ or test/.

    Raises:
        SourceError: no such folder, no class folders, a class without images, or splits of different classes.
    """
    folder = Path(where)
    if where == "digits":
        if not folder.is_dir():
            return _digits(seed)
        logger.info("digits: the folder of this name is used, not scikit-learn's set")
    if not folder.is_dir():
        found = "not a folder" if folder.exists() else "no such folder"
        raise SourceError(f"{where}: {found}; give a folder that holds one folder of images per class, or digits")
    name, train = folder.resolve().name, folder / "train"
    if set(subfolders(folder)) - {"val", "test"} == {"train"} and not subfolders(train):
        raise SourceError(f"{train}: holds no class folders; give each class a folder of its images in it")
    if not name.isprintable():
        raise SourceError(f"{where!a}: this folder has a name that is not printable text: rename it")
    if not (train.is_dir() and subfolders(train)):
        return _split(name, folder, seed)
    other = next((folder / split for split in ("val", "test") if (folder / split).is_dir()), None)
    unused = [entry for entry in subfolders(folder) if entry != "train" and (other is None or entry != other.name)]
    if unused:
        logger.info("%s: of its folders these are not used: %s", where, shorten(unused))
    if other is None:
        logger.info("%s: no val/ or test/, so a part of train/ is held out", where)
        return _split(name, train, seed)
    (classes, files), (others, held) = scan(train), scan(other)
    for here, there, missing in (
        (train, other, set(classes) - set(others)),
        (other, train, set(others) - set(classes)),
    ):
        if missing:
            raise SourceError(f"{there}: lacks {shorten(sorted(missing))} of {here}; both need the same class folders")
    return Folder(name, train, classes, files), Folder(name, other, classes, held)


def squares(source: Source, indices: Tensor, side: int) -> Tensor:
    """Return uint8 (B, 3, side, side): each image's largest centered square, resized (bilinear, antialiased).

    Raises:
        SourceError: a file cannot be used.
    """

    def square(index: int) -> Tensor:
        image = source.image(index)
        resized: Tensor = TF.resize(TF.center_crop(image, [min(image.shape[1:])] * 2), [side, side], antialias=True)
        return resized

    if len(source) * 3 * side * side > KEPT:
        return torch.stack(list(threaded(square, indices.tolist())))
    if side not in source.kept:
        source.kept.clear()
        shape = (len(source), 3, side, side)
        pixels = torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last)  # a CPU renders them faster
        source.kept[side] = pixels, torch.zeros(len(source)).bool()
    pixels, known = source.kept[side]
    missing = torch.unique(indices[~known[indices]])
    rows = pixels.numpy()  # for such small copies torch's threads cost more than they save
    for index, image in zip(missing.tolist(), threaded(square, missing.tolist()), strict=True):
        rows[index] = image.numpy()
    known[missing] = True
    return pixels[indices]


def usual_side(source: Source) -> int:
    """Return the median of the shorter sides, in pixels, of 100 images spread evenly over the source.

    Raises:
        SourceError: none of them can be used.
    """

    def shorter(index: int) -> int | None:
        try:
            return min(source.image(index).shape[1:])
        except SourceError:  # `check` names it with all others
            return None

    count = min(SIZED, len(source))
    spread = [number * len(source) // count for number in range(count)]
    sides = [side for side in threaded(shorter, spread) if side]
    return median_low(sides) if sides else min(source.image(0).shape[1:])


def threaded(function: Callable[[S], T], items: Sequence[S]) -> Iterator[T]:
    """Yield what `function` makes of each item, in order, by threads: Pillow decodes without Python's lock.

    Few are made ahead of who takes them: photographs are large.
    """
    threads = min(8, os.cpu_count() or 1)
    ahead: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) > 2 * threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _split(name: str, root: Path, seed: int) -> tuple[Source, Source]:
    classes, files = scan(root)
    held = choose_held_out(files, seed, HELD_OUT)
    if not held:
        raise SourceError(f"{root}: one image per class leaves none to measure on; add images, or a val/ beside train/")
    unseen = sorted(set(classes) - {file.split("/", 1)[0] for file in held})
    if unseen:
        logger.warning(
            "%s: no accuracy counts the classes of one image, which is not held out: %s", root, shorten(unseen)
        )
    learned = [file for file in files if file not in held]
    return Folder(name, root, classes, learned), Folder(name, root, classes, sorted(held))


def _digits(seed: int) -> tuple[Source, Source]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as cause:
        raise SourceError('digits: needs scikit-learn; install it with: pip install "hellods[demo]"') from cause
    digits = load_digits()
    small = torch.from_numpy(digits.images) * (255 / 16)  # (N, 8, 8), 0..16
    images = TF.resize(small.round().to(torch.uint8)[:, None], [32, 32], antialias=True).expand(-1, 3, -1, -1)
    targets = digits.target.tolist()
    names = [f"{target}/{number:04d}" for number, target in enumerate(targets)]
    held = choose_held_out(names, seed, HELD_OUT)

    def part(keep: bool) -> Source:
        indices = [number for number, name in enumerate(names) if (name in held) is not keep]
        chosen = [targets[number] for number in indices]
        source = Pixels("digits", [str(label) for label in digits.target_names], chosen, images[indices].contiguous())
        source.size = len(chosen) * digits.images[0].size  # 8 × 8 bytes each, before they were enlarged
        source.handed = True
        return source

    return part(True), part(False)
