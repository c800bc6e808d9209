"""INITIALIZERS: the images of an archive, from real ones."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2
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
Initializer = Callable[[Source, Teacher, Layout, int], Tensor]


def real(source: Source, teacher: Teacher, layout: Layout, label: int) -> Tensor:
    """Return random real images of a class: uint8 (ipc, 3, S, S)."""
    return squares(source, pick(source, label, layout.images_per_class, torch.default_generator), layout.side)


def patches(source: Source, teacher: Teacher, layout: Layout, label: int) -> Tensor:
    """Return RDED images of a class (Sun et al. 2024, arXiv 2312.03526): uint8 (ipc, 3, S, S).

    Of `candidates` random real images (all, if fewer), each gives `crops` square random resized crops of area 0.08 to
    1 and side S/factor; each is zero-padded to S after normalization and scored by the teacher's cross-entropy; the
    best crop of each image stays; the best ipc·factor² of those are tiled, the k-th chunk of ipc patches filling cell
    k.
    """
    available = min(layout.candidates, int((source.targets == label).sum()))
    chosen = pick(source, label, max(available, layout.patches), torch.default_generator)
    crop = v2.RandomResizedCrop(layout.side // layout.factor, scale=(0.08, 1.0), ratio=(1.0, 1.0))
    found = []
    for part in torch.split(chosen, BATCH):  # not all at once: each has several crops
        images = threaded(source.image, part.tolist())
        crops = torch.stack([torch.stack([crop(image) for _ in range(layout.crops)]) for image in images])
        # (B, C, 3, s, s) -> (B, C)
        scores = torch.stack([score(teacher, some, label, layout.side) for some in crops.unbind(1)], dim=1)
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
    count, done, images = len(source.classes), checkpoint.done, []
    with torch.random.fork_rng(devices=[]):  # torchvision's transforms draw from the global generator
        torch.default_generator.manual_seed(seed)
        if done:
            images.append(checkpoint.state["images"])
            torch.set_rng_state(checkpoint.state["random"])
        progress("Images", done, count)
        for label in range(done, count):
            images.append(INITIALIZERS[name](source, teacher, layout, label))
            checkpoint.save(label + 1, count, partial(_state, label + 1, images))
            progress("Images", label + 1, count)
    return torch.cat(images)


def _state(done: int, images: list[Tensor]) -> dict[str, Tensor]:
    return {"done": torch.tensor(done), "images": torch.cat(images), "random": torch.get_rng_state()}


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


@torch.no_grad()
def score(teacher: Teacher, crops: Tensor, label: int, side: int) -> Tensor:
    """Return the teacher's cross-entropy (B,) for uint8 crops (B, 3, s, s), each centered in zeros of side S."""
    logits = teacher.classify(TF.center_crop(teacher.normalize(crops), [side, side]))
    return F.cross_entropy(logits, torch.full((len(crops),), label, device=logits.device), reduction="none").cpu()


def tile(patches: Tensor, factor: int) -> Tensor:
    """Return (B, 3, f·s, f·s) from patches (f²·B, 3, s, s): chunk k of B patches fills cell k, row by row."""
    count, channels, side, _ = patches.shape
    grid = patches.view(factor, factor, count // factor**2, channels, side, side)
    return grid.permute(2, 3, 0, 4, 1, 5).reshape(-1, channels, factor * side, factor * side)
