"""INITIALIZERS: the images of an archive, from real ones."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from hellods.errors import SourceError
from hellods.progress import Progress, silent
from hellods.sources.sampling import pick
from hellods.sources.source import Source, squares, threaded
from hellods.teachers.teacher import Teacher
from hellods.train import NO_CHECKPOINT, Checkpoint

BATCH: Final = 100  # real images whose crops are held and scored at once


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How many images a class gets, their side in pixels, and how many patches stand along a side."""

    images_per_class: int
    side: int
    factor: int
    candidates: int
    crops: int

    @property
    def patches(self) -> int:
        """Patches that a class needs."""
        return self.images_per_class * self.factor**2


# The images of one class, uint8 (ipc, 3, S, S).
Initializer = Callable[[Source, Teacher, Layout, int, torch.Generator], Tensor]


def real(source: Source, teacher: Teacher, layout: Layout, label: int, generator: torch.Generator) -> Tensor:
    """Return random real images of a class: uint8 (ipc, 3, S, S)."""
    return squares(source, pick(source, label, layout.images_per_class, generator), layout.side)


def patches(source: Source, teacher: Teacher, layout: Layout, label: int, generator: torch.Generator) -> Tensor:
    """Return RDED images of a class (Sun et al. 2024, arXiv 2312.03526): uint8 (ipc, 3, S, S).

    Of `candidates` random real images (all, if fewer), each gives `crops` square random resized crops of area 0.08 to
    1 and side S/factor; each is zero-padded to S after normalization and scored by the teacher's cross-entropy; the
    best crop of each image stays; the best ipc·factor² of those are tiled, the k-th chunk of ipc patches filling cell
    k.
    """
    available = min(layout.candidates, int((source.targets == label).sum()))
    chosen = pick(source, label, max(available, layout.patches), generator)
    found = []
    for part in torch.split(chosen, BATCH):  # not all at once: each has several crops
        crops = torch.stack([random_crops(image, layout, generator) for image in threaded(source.image, part.tolist())])
        # (B, C, 3, s, s) -> (B, C)
        scores = torch.stack([score(teacher, crop, label, layout.side) for crop in crops.unbind(1)], dim=1)
        found.append((crops[torch.arange(len(crops)), scores.argmin(1)], scores.amin(1)))
    best, scores = (torch.cat(parts) for parts in zip(*found, strict=True))  # (M, 3, s, s), (M,)
    return tile(best[scores.argsort(stable=True)[: layout.patches]], layout.factor)


INITIALIZERS: dict[str, Initializer] = {"patches": patches, "real": real}


def initialize(
    name: str,
    source: Source,
    teacher: Teacher,
    layout: Layout,
    seed: int,
    progress: Progress = silent,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> Tensor:
    """Return the images of an archive, uint8 (K·ipc, 3, S, S), class after class.

    Args:
        name: of INITIALIZERS.
        source: real images.
        teacher: chooses among them.
        layout: of the images.
        seed: of what is drawn.
        progress: told of every class.
        checkpoint: told of every class.
    """
    generator, count, done = torch.Generator().manual_seed(seed), len(source.classes), checkpoint.done
    images = []
    if done:
        images.append(checkpoint.state["images"])
        generator.set_state(checkpoint.state["random"])
    progress("Images", done, count)
    for label in range(done, count):
        images.append(INITIALIZERS[name](source, teacher, layout, label, generator))
        checkpoint.save(label + 1, count, partial(_state, label + 1, images, generator))
        progress("Images", label + 1, count)
    return torch.cat(images)


def _state(done: int, images: list[Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    return {"done": torch.tensor(done), "images": torch.cat(images), "random": generator.get_state()}


def check_enough(source: Source, layout: Layout, initializer: str) -> None:
    """Check that every class has the real images that the initializer takes.

    Raises:
        SourceError: a class has fewer; the message says what to choose.
    """
    each = layout.factor**2 if initializer == "patches" else 1
    needed = layout.images_per_class * each
    counts = torch.bincount(source.targets, minlength=len(source.classes))
    fewest, label = int(counts.min()), int(counts.argmin())
    if fewest < needed:
        kind = f" ({layout.images_per_class} of {each} patches each)" if each > 1 else ""
        most = fewest // each
        choose = f"`images_per_class={most}` or fewer" if most else "`factor=1`"
        raise SourceError(
            f"{source.name}: class {source.classes[label]!a} has {fewest} training images, and {needed} are "
            f"needed{kind}: choose {choose}"
        )


def random_crops(image: Tensor, layout: Layout, generator: torch.Generator) -> Tensor:
    """Return uint8 (crops, 3, s, s): torchvision's RandomResizedCrop at aspect 1, with a generator of its own."""
    height, width = image.shape[1:]
    side = layout.side // layout.factor
    results = []
    for _ in range(layout.crops):
        # Ten tries to fit a square of the drawn area, else the largest central square, as torchvision does.
        areas = torch.empty(10).uniform_(0.08, 1.0, generator=generator) * height * width
        edges = [round(math.sqrt(area)) for area in areas.tolist()]
        fitting = [edge for edge in edges if 0 < edge <= min(height, width)]
        edge = fitting[0] if fitting else min(height, width)
        if fitting:
            top = int(torch.randint(0, height - edge + 1, (), generator=generator))
            left = int(torch.randint(0, width - edge + 1, (), generator=generator))
        else:
            top, left = (height - edge) // 2, (width - edge) // 2
        results.append(TF.resized_crop(image, top, left, edge, edge, [side, side], antialias=True))
    return torch.stack(results)


@torch.no_grad()
def score(teacher: Teacher, crops: Tensor, label: int, side: int) -> Tensor:
    """Return the teacher's cross-entropy (B,) for uint8 crops (B, 3, s, s), each centered in zeros of side S."""
    before, after = (side - crops.shape[-1]) // 2, side - crops.shape[-1] - (side - crops.shape[-1]) // 2
    logits = teacher.classify(F.pad(teacher.normalize(crops), (before, after, before, after)))
    return F.cross_entropy(logits, torch.full((len(crops),), label, device=logits.device), reduction="none").cpu()


def tile(patches: Tensor, factor: int) -> Tensor:
    """Return (B, 3, f·s, f·s) from patches (f²·B, 3, s, s): chunk k of B patches fills cell k, row by row."""
    count, channels, side, _ = patches.shape
    grid = patches.view(factor, factor, count // factor**2, channels, side, side)
    return grid.permute(2, 3, 0, 4, 1, 5).reshape(-1, channels, factor * side, factor * side)
