"""The teacher: loaded, and measured on the data before anything is learned from it."""

import logging
import math
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, is_tensor, nn
from torchvision.transforms.v2 import functional as TF

from hellods.digests import digest
from hellods.errors import OptionError, SourceError
from hellods.labels import LabelMaker
from hellods.labels.parts import in_parts
from hellods.nets import channels_last, create, logits_shape
from hellods.progress import Progress, silent, track
from hellods.record import decimal
from hellods.sources.folders import shorten
from hellods.sources.sampling import PER_CLASS, accuracy, evaluation_indices
from hellods.sources.source import Source, squares
from hellods.teachers.class_order import other_order
from hellods.teachers.scale import MEAN, STD, check_scale
from hellods.teachers.trajectory import Average
from hellods.teachers.weights import EXTRA, fit_weights, own_network, published, read_weights, side_of_stem
from hellods.views.normalize import normalize

logger = logging.getLogger("hellods")

BATCH: Final = 100
GIVEN: Final = "check its weights, `teacher_mean` and `teacher_std`"
TRAINED: Final = "build with later `teacher_stages`, more `teacher_epochs`, or another network"


class Teacher(nn.Module):
    """A classifier that labels uint8 images; it stays in eval mode and learns nothing."""

    def __init__(
        self,
        network: nn.Module,
        *,
        architecture: str,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
        side: int | None = None,
        trained: bool = False,
        code: str | None = None,
    ) -> None:
        """Wrap `network`, float (B, 3, H, W) -> (B, K).

        Args:
            network: expects images less `mean`, divided by `std`.
            architecture: its name.
            mean: per channel, of pixels in 0..1.
            std: likewise.
            side: that it shall see, in pixels; None: whatever side images come in.
            trained: by this package, on the images at hand.
            code: SHA-256 of the user's code that makes the network, which its weights say nothing of.

        Raises:
            OptionError: mean or std are not three numbers that float32 can divide by.
        """
        super().__init__()
        check_scale(mean, std)
        self.network = network.requires_grad_(False).float()
        self.architecture, self.side, self.trained, self.code = architecture, side, trained, code
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self.train(False)

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in eval mode, whatever the module around it does."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return float32 (B, K) logits, on the teacher's device, for uint8 (B, 3, H, W)."""
        return self.classify(self.normalize(images))

    def normalize(self, images: Tensor) -> Tensor:
        """Return the images, uint8 (B, 3, H, W), as float32 of the mean and deviation that the network expects."""
        parameter = next(self.network.parameters(), images)
        return normalize(images.to(parameter.device), self.mean, self.std)

    @torch.no_grad()
    def classify(self, normalized: Tensor) -> Tensor:
        """Return float32 (B, K) logits for normalized images, which are resized first if the network needs it."""
        if self.side and normalized.shape[-2:] != (self.side, self.side):
            normalized = TF.resize(normalized, [self.side, self.side], antialias=True)
        return in_parts(self.network, normalized, self.network).float()

    def provenance(self) -> dict[str, Any]:
        """Return what an archive states of it: architecture, SHA-256, numbers of parameters and of averaged networks;
        mean, standard deviation and side of the images; SHA-256 of a user's own code.
        """
        return {
            "architecture": self.architecture,
            "sha256": digest({name: value for name, value in self.network.state_dict().items() if is_tensor(value)}),
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
            "networks": len(self.network) if isinstance(self.network, Average) else 1,
            "mean": [decimal(value) for value in self.mean],
            "std": [decimal(value) for value in self.std],
            "side": self.side,
        } | ({"code": self.code} if self.code else {})


def load_teacher(
    spec: str, weights: str | None, mean: Sequence[float], std: Sequence[float], classes: tuple[str, ...], side: int
) -> Teacher:
    """Return a trained teacher, on the CPU.

    Args:
        spec: `FILE.py:FUNCTION`, whose function returns the network, or a name that `nets.create` knows.
        weights: a .safetensors file or a checkpoint; None: what the function returns has them, or the weights that
            torchvision or timm publishes for the name.
        mean: per channel, of pixels in 0..1; published weights bring their own.
        std: likewise.
        classes: of the data; the teacher's must be as many and, as `check_teacher` measures, in the same order.
        side: of the images that it will label.

    Raises:
        SourceError: a file or function is missing or fails, the weights do not fit, or the classes are another number.
        OptionError: an unknown name, or a mean or std that cannot be.
    """
    facts: dict[str, Any] = {"mean": mean, "std": std}
    state: dict[str, Tensor] = {}
    if ":" in spec or spec.endswith(".py"):
        (network, facts["code"]), architecture = own_network(spec), spec.rpartition(":")[2]
    elif weights:
        state = read_weights(weights)
        network, architecture = create(spec, len(classes), side_of_stem(spec, state, side)), spec
    elif (tuple(mean), tuple(std)) != (MEAN, STD):
        raise OptionError(f"{spec}: published weights bring the mean and std that they expect: leave yours out")
    else:
        (network, facts), architecture = published(spec), spec
    side = facts.get("side") or side
    check_logits(network.float(), spec, len(classes), side)
    if weights:
        fit_weights(network, state or read_weights(weights), weights, len(classes))
    if odd := [name for name, value in network.state_dict().items() if not (is_tensor(value) or EXTRA in name)]:
        raise SourceError(f"{spec}: its state_dict has {shorten(odd)}, no tensor; give the network before quantization")
    try:
        return Teacher(channels_last(network, side), architecture=architecture, **facts)
    except RuntimeError as cause:  # of a ScriptModule, whose parameters cannot be frozen
        raise SourceError(f"{spec}: cannot be used as it is: {cause}; return the plain network") from cause


def check_logits(network: nn.Module, spec: str, classes: int, side: int) -> None:
    """Check that a network answers an image of that side with as many logits.

    Raises:
        SourceError: it cannot take the image, or answers otherwise.
    """
    try:
        shape = logits_shape(network, side)
    except Exception as cause:  # whatever a layer of someone else's network raises
        text = f"{type(cause).__name__}: {' '.join(str(cause).split())}"
        raise SourceError(
            f"{spec}: cannot take images of {side} px: {text}; give another teacher, or build with another `side`"
        ) from cause
    if len(shape) != 2:
        raise SourceError(f"{spec}: returns {shape or 'no tensor'} for one image, expected logits (1, K)")
    if shape[1] != classes:
        raise SourceError(f"{spec}: a teacher of {shape[1]} classes, the data has {classes}; give another teacher")


def check_teacher(
    teacher: Teacher,
    source: Source,
    side: int,
    *,
    more: Source | None = None,
    allow_weak: bool = False,
    progress: Progress = silent,
    who: str = "teacher",
) -> float:
    """Return the teacher's accuracy, 0..1, on `source`, from 2,000 images, or 50 of each class if that is more.

    Args:
        teacher: may be loaded or trained here.
        source: images that it did not learn from.
        side: in pixels, of the squares that it is shown.
        more: images that help to find the order of classes when `source` has fewer than 50 of one.
        allow_weak: warn instead of raising.
        progress: told of every batch.
        who: what it is called.

    Raises:
        SourceError: the accuracy is near chance, the teacher has its classes in another order than the data, or not all
            logits are finite.
    """
    targets, predicted, chosen = classify_sample(teacher, source, side, more, f"{who.capitalize()} check", progress)
    score = accuracy(source, chosen, (targets == predicted)[: len(chosen)])
    fault = other_order(targets, predicted, source.classes, who)
    if fault:
        fault += "; put its outputs in the order of the class folders"
    else:
        advice = TRAINED if teacher.trained else GIVEN
        fault = near_chance(who, score, len(chosen), source, advice)
    if fault and not allow_weak:
        raise SourceError(f"{source.name}: {fault}, or give `allow_weak_teacher=True`")
    if fault:
        logger.warning("%s: %s", source.name, fault)
    return score


def classify_sample(
    label_maker: LabelMaker, source: Source, side: int, more: Source | None, stage: str, progress: Progress
) -> tuple[Tensor, Tensor, Tensor]:
    """Return sampled images' classes, int64 (N,), what a label maker takes them for, and which of `source` come first.

    Args:
        label_maker: takes images on the CPU.
        source: 2,000 of its images, or 50 of each class if that is more.
        side: in pixels, of the squares that are shown.
        more: as many of its images follow when `source` has fewer than 50 of a class.
        stage: names the work in progress.
        progress: told of every batch.

    Raises:
        SourceError: it answers with what is no number, or with probabilities.
    """
    chosen = evaluation_indices(source)
    work = [(source, indices) for indices in torch.split(chosen, BATCH)]
    if more is not None and torch.bincount(source.targets, minlength=len(source.classes)).min() < PER_CLASS:
        work += [(more, indices) for indices in torch.split(evaluation_indices(more), BATCH)]
    predicted = []
    for origin, indices in track(work, len(work), stage, progress):
        logits = label_maker(squares(origin, indices, side))
        if not logits.isfinite().all():
            raise SourceError(f"{source.name}: {stage}: not all of its logits are finite; check its weights")
        if logits.min() >= 0 and (logits.sum(1) - 1).abs().max() < 1e-4:
            raise SourceError(
                f"{source.name}: {stage}: its answers are probabilities, which labels are made from as if they were "
                "logits; leave out its softmax"
            )
        predicted.append(logits.argmax(1).cpu())
    targets = torch.cat([origin.targets[indices] for origin, indices in work])
    return targets, torch.cat(predicted), chosen


def near_chance(who: str, score: float, images: int, source: Source, advice: str) -> str | None:
    """Return what to say of a label maker that may be guessing, for it is right on so few images; else None.

    Args:
        who: what it is called.
        score: its accuracy on `source`, 0..1.
        images: that the score was measured on.
        source: whose most frequent class is what a guess would name.
        advice: what to do.
    """
    chance = torch.bincount(source.targets).max().item() / len(source)
    right = f"the {who} is right on {score:.1%} of {images} images"
    if score < chance + min(0.1 * (1 - chance), 2 * chance):  # a tenth of the way to perfect; with many classes, less
        return f"{right}, near chance ({chance:.1%}); {advice}"
    if score < min(1.0, chance + 2 * math.sqrt(chance * (1 - chance) / images)):
        return f"{right}, too few to tell that from chance ({chance:.1%}); hold out more images"
    return None
