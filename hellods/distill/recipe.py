"""Recipe: every knob of a build, checked, torch-free."""

import unicodedata
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from itertools import pairwise
from typing import Final, Literal

from hellods.errors import OptionError
from hellods.format.header import Codec
from hellods.knobs import documented, knob, wrong_field
from hellods.labels.config import Head, Precision, Quantization, check_template
from hellods.teachers.scale import MEAN, STD, check_scale
from hellods.views.rule import Mix

NO_ASSISTANT: Final = "none"
RANKS: Final = {"hello-convnet": 16}  # its three convolutions need more than each of many layers,
RANK: Final = 6  # which learn no more from 8 (tests/benchmarks/LOG.md)
PLENTY: Final = 25  # images of a class
TINY: Final = 32  # pixels of images that `hello-convnet` sees whole
LEAST_SIDE: Final = 8
SMALL: Final = 64  # pixels, of images and of what a tower takes

Initializer = Literal["patches", "real"]
FitOn = Literal["own", "real"]
Preset = Literal["fast", "default", "best"]

# How many times the default's views a projector is fitted on, and the rate of the tower's deltas.
PRESETS: Final[Mapping[Preset, tuple[float, float]]] = {
    "fast": (0.1, 0.008),  # so few steps come farther in longer ones
    "default": (1.0, 0.004),
    "best": (2.0, 0.004),
}


@documented
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an archive is made from real images; the archive's header holds it whole.

    The defaults of images and views are RDED's (arXiv 2312.03526), the head's rank HeLlO's (arXiv 2408.08201); the
    others are this project's own, also where HeLlO has others: whom the projector learns from, on what, by what loss.
    """

    preset: Preset = knob(
        "default",
        "How long to fit the projector. fast, to try things out: a tenth of the default, at twice the rate; best: "
        "twice the default.",
    )
    images_per_class: int = knob(10, "Synthetic images per class.", bounds=(1, 100_000))
    side: int | None = knob(
        None,
        "Side of the synthetic images in pixels.",
        bounds=(LEAST_SIDE, 4096),
        unset="that of the real images, their median, at most 224",
    )
    initializer: Initializer = knob("patches", "Start from RDED's patches, or from random real images.")
    factor: int | None = knob(
        None, "Patches along each side of an image.", bounds=(1, 16), unset="2 for patches from 128 px, else 1"
    )
    candidates: int = knob(300, "Real images per class that patches are chosen from.", bounds=(1, 10**9))
    crops: int = knob(5, "Random crops tried per candidate image.", bounds=(1, 1000))
    codec: Codec = knob("webp", "Image format in the file.")
    quality: int | None = knob(
        None, "Image quality.", bounds=(1, 100), unset="75 up to 64 px, else 90; png is lossless"
    )
    flip: bool | None = knob(None, "Mirror half of the views.", unset="yes, but not digits")
    mix: Mix = knob("cutmix", "How pairs of views are mixed.")
    assistant: str | None = knob(
        None,
        "Network that learns from a given teacher, and teaches the projector in its place; `none` for no assistant.",
        unset="convnet3 up to 64 px, else resnet18",
    )
    teacher_epochs: int | None = knob(
        None,
        "Epochs over which the learning rate falls, of a teacher that is trained here or of the assistant; it stops at "
        "the last of `teacher_stages`.",
        bounds=(1, 10_000),
        unset="12, or 24 from 25 images a class",
    )
    teacher_stages: tuple[int, ...] | None = knob(
        None,
        "Epochs of that training after which the network is kept, to average the logits of all kept.",
        unset="1,2 below 5 images a class, later ones on fewer than 640 real images, else the last",
    )
    head: Head = knob(
        "text",
        "Head starts at text embeddings of class names, or at mean image features of the classes, which are stored.",
    )
    # CLIP's own.
    template: str = knob(
        "a photo of a {}", "Prompt around each class name, with {}; several, separated by |, are averaged."
    )
    # See RANKS; HeLlO has 8.
    encoder_rank: int | None = knob(
        None, "LoRA rank on the layers of the image tower.", bounds=(1, 4096), unset="16 on hello-convnet, else 6"
    )
    # HeLlO's for ImageNet-100.
    head_rank: int = knob(64, "LoRA rank on the classification head.", bounds=(1, 4096))
    # A fifth of the bytes of fp16, and students learn as much (tests/benchmarks/LOG.md).
    quantization: Quantization = knob("int4", "Number format of the stored deltas.")
    label_precision: Precision = knob("fp32", "Arithmetic that labels are made in; bf16 and fp16 are faster on a GPU.")
    embed_base: bool = knob(
        False, "Store the base model's image tower in the file, up to 128 MiB, so that labels need no other."
    )
    fit_on: FitOn | None = knob(
        None,
        "Fit the projector on views of the synthetic images, or of all real ones.",
        unset="own where a network is trained here, else real",
    )
    fit_views: int | None = knob(
        None,
        "Number of views to fit the projector on.",
        bounds=(0, 10**12),
        unset="30 per real image, at most 160,000, or 30,000 if the base model takes more than 64 px; by the preset, "
        "but with fast no fewer than 3,000 of these; beyond 100 synthetic images times √(images / 100)",
    )
    fit_batch_size: int | None = knob(
        None, "Batch size of the projector's fit.", bounds=(1, 10**6), unset="32, fewer above 224 px"
    )
    fit_learning_rate: float | None = knob(
        None,
        "Learning rate of the deltas on the image tower, by Muon.",
        bounds=(0, 10),
        unset="0.004, 0.008 with `preset='fast'`",
    )
    # New classes need a head far from their texts, and soon.
    head_learning_rate: float = knob(0.01, "Learning rate of the head, by AdamW.", bounds=(0, 10))
    hard_weight: float | None = knob(
        None,
        "Weight of cross-entropy with the true class in the fit.",
        bounds=(0, 1000),
        unset="0.1 on real images, else 0",
    )
    # The header holds no larger numbers.
    seed: int = knob(0, "Random seed of the whole build.", bounds=(0, 2**53 - 1))

    def __post_init__(self) -> None:
        if fault := wrong_field(self):
            raise OptionError(fault)
        if not _is_text(self.template):
            raise OptionError(f"template {self.template!a:.80} has characters that are no text")
        check_template(self.template, classes=1)
        self._check_together()

    def _check_together(self) -> None:
        """Raise an OptionError where knobs that are well alone do not go with each other."""
        if self.teacher_stages is not None:
            stages, last = self.teacher_stages, self.epochs
            if not stages or not all(epoch < later for epoch, later in pairwise((0, *stages, last + 1))):
                raise OptionError(f"teacher_stages are {list(stages)}, expected rising epochs, 1 to {last}")
        if self.codec == "png" and self.quality is not None:
            raise OptionError("quality does not apply to png, which is lossless: leave it out, or choose another codec")
        if self.initializer == "real" and self.factor not in (None, 1):
            raise OptionError(
                f"factor {self.factor} does not apply to whole real images: leave it out, or choose patches"
            )
        needs = {
            "candidates": ("initializer", "patches"),
            "crops": ("initializer", "patches"),
            "template": ("head", "text"),
        }
        for name, (cause, value) in needs.items():
            if getattr(self, cause) != value and getattr(self, name) != getattr(Recipe, name):
                raise OptionError(f"{name} does not apply to {cause} {getattr(self, cause)!r}: leave it out")
        if self.side and self.factor and self.side % self.factor:
            raise OptionError(f"side {self.side} cannot be cut into {self.factor} patches: choose a multiple")

    @property
    def assisted(self) -> bool:
        """Whether an assistant stands between teacher and projector; of a recipe whose defaults are filled in."""
        return self.assistant not in (None, NO_ASSISTANT)

    @property
    def stages(self) -> tuple[int, ...]:
        """The epochs whose logits are averaged, in a training of `epochs`."""
        return self.teacher_stages or (self.epochs,)

    @property
    def epochs(self) -> int:
        """The epochs of that training: many images can use what a longer one knows."""
        return self.teacher_epochs or (12 if self.images_per_class < PLENTY else 24)


@dataclass(frozen=True, kw_only=True)
class Resolved(Recipe):
    """A recipe with every default filled in that depends on the images, the teacher or the base model."""

    side: int
    factor: int
    flip: bool
    assistant: str
    fit_on: FitOn
    fit_views: int
    fit_batch_size: int
    fit_learning_rate: float
    hard_weight: float


# Knobs whose defaults follow from others, each after its causes. Two of the causes are inputs: the base model, which a
# recipe file names if it is public, and the kind of teacher, trained in the build or given.
FOLLOWS: Final[Mapping[str, tuple[str, ...]]] = {
    "factor": ("side", "initializer"),
    "quality": ("codec", "side"),
    "assistant": ("side", "teacher"),
    "teacher_epochs": ("assistant", "teacher", "images_per_class"),
    "teacher_stages": ("assistant", "teacher", "teacher_epochs", "images_per_class"),
    "encoder_rank": ("base", "side"),
    "fit_on": ("assistant", "teacher"),
    "fit_views": ("preset", "images_per_class", "base"),
    "fit_batch_size": ("side", "base"),
    "fit_learning_rate": ("preset",),
    "hard_weight": ("fit_on",),
}


@documented
@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What an archive is made from, and what it is called; paths of the user's own stay out of the file."""

    data: str = knob(
        MISSING,
        "Folder with train/ and val/ (or test/), each with a folder of images for every class; or a folder of class "
        "folders, of which a fifth is held out; or `digits`.",
    )
    base: str | None = knob(
        None,
        "Base model: hello-convnet, hello-tiny, MODEL/TAG of open_clip, hf-hub:OWNER/NAME or local-dir:FOLDER.",
        unset="hello-convnet up to 32 px, else hello-tiny",
    )
    teacher: str = knob(
        "train",
        "Teacher: train:NETWORK, FILE.py:FUNCTION, or a network of torchvision or timm by name; `train` alone trains "
        "a convnet3 up to 64 px, else a resnet18.",
    )
    teacher_weights: str | None = knob(None, "The teacher's weights: safetensors, or a PyTorch checkpoint.")
    teacher_mean: tuple[float, float, float] = knob(
        MEAN,
        "Mean that the teacher expects, per channel, for pixels in 0..1; students get images normalized by it too.",
    )
    teacher_std: tuple[float, float, float] = knob(STD, "Standard deviation that the teacher expects, likewise.")
    allow_weak_teacher: bool = knob(False, "Build even if the teacher is near chance or orders classes differently.")
    descriptions: Mapping[str, str] | None = knob(
        None, "A text for each class, which the head starts at.", unset="its name"
    )
    name: str | None = knob(None, "Name of the archive.", unset="that of the data")
    license: str = knob("NOASSERTION", "License of the archive, an SPDX expression.")
    source_url: str | None = knob(None, "Where the real images come from.")
    device: str = knob("cpu", "Device to compute on: cpu, cuda, cuda:1, …")

    def __post_init__(self) -> None:
        if fault := wrong_field(self):
            raise OptionError(fault)
        if self.trained and self.teacher_weights:
            raise OptionError(
                f"`teacher_weights` beside {self.teacher!r}, which is trained here: name the network that they are for "
                "as `teacher`"
            )
        check_scale(self.teacher_mean, self.teacher_std)
        for name in ("teacher_mean", "teacher_std"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))  # (0, 0, 0) is (0.0, 0.0, 0.0)
        for text in (self.name, self.license, self.source_url):
            if text and not text.isprintable():
                raise OptionError(f"{text!a}: name, license and source URL are printable text")
        for label, text in (self.descriptions or {}).items():
            if not text.strip() or not _is_text(text):
                raise OptionError(f"class {label!a} is described by {text!a:.80}: give it a text")

    @property
    def trained(self) -> bool:
        """Whether a network is trained to be the teacher; else it is given."""
        return trains(self.teacher)

    def network(self, side: int) -> str:
        """Return the name of the network that is trained, for images of that side."""
        _, colon, named = self.teacher.partition(":")
        return named if colon else usual_network(side)


def trains(teacher: str) -> bool:
    """Return whether a teacher of that name is trained in the build."""
    return teacher.partition(":")[0] == "train"


def usual_network(side: int) -> str:
    """Return what a student of images of that side is in the field."""
    return "convnet3" if side <= SMALL else "resnet18"


def usual_quality(side: int) -> int:
    """Return the lowest quality of which students were seen to miss nothing; above 64 px they miss some of 75."""
    return 75 if side <= SMALL else 90


def usual_base(side: int) -> str:
    """Return which of this package's base models labels images of that side."""
    return "hello-convnet" if side <= TINY else "hello-tiny"


def _is_text(text: str) -> bool:
    """Return whether there is no control character, and no half of a pair of surrogates, which no file can hold."""
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in text)
