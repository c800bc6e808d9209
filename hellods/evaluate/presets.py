"""Protocol: how a student is trained; PRESETS: as the literature trains it. Torch-free."""

from dataclasses import dataclass, replace
from typing import Final, Literal

from hellods.distill.recipe import usual_network
from hellods.errors import OptionError
from hellods.knobs import documented, knob, wrong_field
from hellods.views.rule import Mix, Views

Loss = Literal["kl", "mse"]
LRSchedule = Literal["cosine", "half-cosine"]

# RDED's published code; networks that it does not name learn at 1e-3 as its ResNets and ConvNets do.
LEARNING_RATES: Final = {
    "vgg11": 5e-4,
    "efficientnet_b0": 2e-3,
    "mobilenet_v2": 2.5e-3,
    "alexnet": 1e-4,
    "vit_b_16": 1e-4,
    "swin_v2_t": 1e-4,
}
TEMPERATURES: Final = {"cutmix": 20.0, "mixup": 4.0, "none": 20.0}  # RDED's; it has none without mixing


@documented
@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How every student is trained; the defaults are RDED's published code (Sun et al. 2024, arXiv 2312.03526).

    By AdamW. What is None depends on the archive: `resolve` fills it in.
    """

    student: str | None = knob(
        None,
        "Student network: convnet3 to convnet6, resnet18, or one of torchvision or timm.",
        unset="convnet3 up to 64 px, else resnet18",
    )
    epochs: int = knob(300, "Epochs of a student, counted in the archive's images.", bounds=(1, 10**6))
    batch_size: int | None = knob(
        None,
        "Batch size of a student.",
        bounds=(1, 10**6),
        unset="10, 50, 100 from 1, 10, 50 images a class, doubled from 100 classes",
    )
    learning_rate: float | None = knob(
        None, "AdamW's initial learning rate.", bounds=(0, 10), unset="by the network, 0.001 for ResNets and ConvNets"
    )
    weight_decay: float = knob(0.01, "AdamW's weight decay, on weight matrices only.", bounds=(0, 10))
    lr_schedule: LRSchedule = knob(
        "half-cosine", "Schedule of the learning rate, by epochs; half-cosine ends at half of it."
    )
    loss: Loss = knob("kl", "Loss on soft labels: KL divergence, or MSE of logits.")
    temperature: float | None = knob(
        None,
        "Temperature of the loss kl, which RDED does not multiply by its square.",
        bounds=(1e-3, 1e6),
        unset="20, with mixup 4",
    )
    hard_weight: float = knob(0.0, "Weight of cross-entropy with the true class, beside soft labels.", bounds=(0, 1000))
    min_scale: float | None = knob(
        None, "Smallest share of an image's area that a crop shows.", bounds=(1e-4, 1), unset="the archive's"
    )
    shuffle: int | None = knob(
        None, "Patches per side that RDED's ShufflePatches permutes; 1 for none.", bounds=(1, 16), unset="the archive's"
    )
    mix: Mix | None = knob(None, "How pairs of views are mixed.", unset="the archive's")

    def __post_init__(self) -> None:
        if fault := wrong_field(self):
            raise OptionError(fault)
        if self.loss == "mse" and self.temperature is not None:
            raise OptionError("a temperature belongs to the loss kl; mse compares logits as they are")


@dataclass(frozen=True, kw_only=True)
class ResolvedProtocol(Protocol):
    """A protocol with every default filled in that depends on the archive."""

    student: str
    batch_size: int
    learning_rate: float
    min_scale: float
    shuffle: int
    mix: Mix


PRESETS: Final = {
    "rded": Protocol(),
    # SRe2L's published code (Yin et al. 2023, arXiv 2306.13092), which CDA (arXiv 2311.18838) uses too.
    "sre2l": Protocol(batch_size=1024, lr_schedule="cosine", min_scale=0.08, shuffle=1, mix="cutmix"),
    # HeLlO's loss; its β and all else are not published. β is that of G-VBSM (arXiv 2311.17950).
    "hello": Protocol(loss="mse", hard_weight=0.1),
}


def resolve(protocol: Protocol, views: Views, images: int, classes: int) -> tuple[ResolvedProtocol, Views]:
    """Return the protocol with everything filled in, and the views that its students see.

    Args:
        protocol: as the user wants it.
        views: of the archive.
        images: in the archive.
        classes: of it.
    """
    mix = protocol.mix or views.mix
    shuffle = protocol.shuffle or views.shuffle
    least = views.scale[0] if protocol.min_scale is None else protocol.min_scale
    student = protocol.student or usual_network(views.size)
    rate = protocol.learning_rate
    filled = {
        "student": student,
        "batch_size": min(images, protocol.batch_size or batch_size(images // classes, classes)),
        "learning_rate": LEARNING_RATES.get(student, 1e-3) if rate is None else rate,
        "temperature": protocol.temperature or (TEMPERATURES[mix] if protocol.loss == "kl" else None),
        "min_scale": least,
        "shuffle": shuffle,
        "mix": mix,
    }
    complete = ResolvedProtocol(**(vars(protocol) | filled))
    return complete, replace(views, scale=(least, max(least, views.scale[1])), shuffle=shuffle, mix=mix)


def batch_size(images_per_class: int, classes: int) -> int:
    """Return RDED's batch size; between its 1, 10 and 50 images a class, that of the next lower."""
    size = 10 if images_per_class < 10 else 50 if images_per_class < 50 else 100
    return size * (2 if classes >= 100 else 1)
