"""Recipe: every knob of a build, checked, torch-free."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from hellods.errors import OptionError
from hellods.format.header import Codec
from hellods.labels.config import Head, Precision, Quantization, check_template
from hellods.record import wrong_word
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


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an archive is made from real images; the archive's header holds it whole.

    The defaults of images and views are RDED's (arXiv 2312.03526), the head's rank HeLlO's (arXiv 2408.08201); the
    others are this project's own, also where HeLlO has others: whom the projector learns from, on what, by what loss.
    """

    images_per_class: int = 10
    side: int | None = None  # pixels of a square image; None: the median of the real ones', at most 224
    seed: int = 0

    initializer: Initializer = "patches"
    factor: int | None = None  # RDED: patches per side of an image; None: 2 from 128 px, else, and for `real`, 1
    candidates: int = 300  # RDED: real images looked at per class
    crops: int = 5  # RDED: crops tried per real image
    codec: Codec = "webp"
    quality: int | None = None  # 1 to 100; None: see `usual_quality`; png is lossless

    flip: bool | None = None  # views are mirrored at random; None: unless they are scikit-learn's digits
    mix: Mix = "cutmix"  # RDED's students see CutMix

    # Learns from a given teacher, and the projector from it; None: convnet3 up to 64 px, else resnet18.
    assistant: str | None = None
    teacher_epochs: int | None = None  # of a teacher that is trained, or of the assistant; None: see `epochs`
    teacher_stages: tuple[int, ...] | None = None  # epochs whose logits are averaged; None: by images per class
    head: Head = "text"  # starts at embedded class names, or at mean features of real images, which are stored
    template: str = "a photo of a {}"  # CLIP's own; several, between `|`, are averaged
    encoder_rank: int | None = None  # None: by the base model, see RANKS; HeLlO has 8
    head_rank: int = 64  # HeLlO, ImageNet-100
    quantization: Quantization = "int4"  # of the deltas: a fifth of the bytes of fp16, and students learn as much
    label_precision: Precision = "fp32"  # bf16 and fp16 are faster on a GPU, and differ more from one to another
    embed_base: bool = False  # the base model's image tower is in the archive too, so that labels need nothing else
    # Views of the file's own images, or of real ones; None: own if a network is trained here.
    fit_on: FitOn | None = None
    preset: Preset = "default"  # how long to fit
    fit_views: int | None = None  # None: by the preset, and the numbers of real images and of the file's
    fit_batch_size: int | None = None  # None: 32 up to 224 px, then as memory allows
    fit_learning_rate: float | None = None  # of the tower's deltas, by Muon; None: by the preset
    head_learning_rate: float = 0.01  # new classes need a head far from their texts, and soon
    # Of the cross-entropy with the true class, beside MSE on logits; None: 0.1 on real images, 0 on the file's own.
    hard_weight: float | None = None

    def __post_init__(self) -> None:
        bounds = {
            "images_per_class": (1, 100_000),
            "side": (LEAST_SIDE, 4096),
            "seed": (0, 2**53 - 1),  # what the header can hold
            "factor": (1, 16),
            "candidates": (1, 10**9),
            "crops": (1, 1000),
            "quality": (1, 100),
            "teacher_epochs": (1, 10_000),
            "encoder_rank": (1, 4096),
            "head_rank": (1, 4096),
            "fit_views": (0, 10**12),
            "fit_batch_size": (1, 10**6),
        }
        rates = {"fit_learning_rate": (0, 10), "head_learning_rate": (0, 10), "hard_weight": (0, 1000)}
        for name, (low, high) in (bounds | rates).items():
            value = getattr(self, name)
            fits = type(value) in ((int,) if name in bounds else (int, float)) and low <= value <= high
            if not fits and not self._unset(name):
                whole = " as an int" if name in bounds and type(value) is not int else ""
                raise OptionError(f"{name} is {value!r}, expected {low} to {high}{whole}")
        for name in ("flip", "embed_base"):
            if type(getattr(self, name)) is not bool and not self._unset(name):
                raise OptionError(f"{name} is {getattr(self, name)!r}, expected True or False")
        if fault := wrong_word(self):
            raise OptionError(fault)
        for name in ("assistant", "template"):
            if not isinstance(getattr(self, name), str) and not self._unset(name):
                raise OptionError(f"{name} is {getattr(self, name)!r}, expected a text")
        stages = self.teacher_stages
        if stages is not None and not (isinstance(stages, tuple) and all(type(epoch) is int for epoch in stages)):
            raise OptionError(
                f"teacher_stages is {stages!r}, expected rising epochs, each an int, in a tuple or a TOML list"
            )
        if not _is_text(self.template):
            raise OptionError(f"template {self.template!a:.80} has characters that are no text")
        try:
            check_template(self.template, classes=1)
        except ValueError as cause:
            raise OptionError(str(cause)) from cause
        self._check_together()

    def _unset(self, name: str) -> bool:
        """Whether this is left to be filled in."""
        return getattr(self, name) is None and getattr(Recipe, name) is None

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


# Knobs whose defaults follow from others, each after its causes. Of the inputs, which a recipe lacks and which must be
# named anew, only the kind of teacher is one: trained in the build, or given. Which base model `encoder_rank`,
# `fit_views` and `fit_batch_size` were for, a recipe does not tell, so they are kept.
FOLLOWS: Final[Mapping[str, tuple[str, ...]]] = {
    "factor": ("side", "initializer"),
    "quality": ("codec", "side"),
    "assistant": ("side", "teacher"),
    "teacher_epochs": ("assistant", "teacher", "images_per_class"),
    "teacher_stages": ("assistant", "teacher", "teacher_epochs", "images_per_class"),
    "encoder_rank": ("side",),
    "fit_on": ("assistant", "teacher"),
    "fit_views": ("preset", "images_per_class"),
    "fit_batch_size": ("side",),
    "fit_learning_rate": ("preset",),
    "hard_weight": ("fit_on",),
}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What an archive is made from: the user's own paths and names, which stay out of the file."""

    data: str  # a folder of real images, or `digits`
    base: str | None = None  # see `load_open_clip`; None: hello-convnet up to 32 px, else hello-tiny
    teacher: str = "train"  # or `train:NETWORK`, `FILE.py:FUNCTION`, or a torchvision or timm name
    teacher_weights: str | None = None
    teacher_mean: tuple[float, float, float] = MEAN
    teacher_std: tuple[float, float, float] = STD
    descriptions: Mapping[str, str] | None = None  # class -> words for the text encoder
    name: str | None = None  # None: that of the data
    license: str = "NOASSERTION"  # an SPDX expression
    source_url: str | None = None
    allow_weak_teacher: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
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
