"""What an archive says of its projector: plain facts, no torch."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final, Literal

from hellods.errors import OptionError
from hellods.knobs import bounded, wrong_field

Quantization = Literal["fp16", "int8", "int4"]  # how deltas are stored
Head = Literal["text", "prototypes"]  # where the head starts: at embedded descriptions, or at stored mean features
Precision = Literal["fp32", "bf16", "fp16"]  # of the arithmetic that makes labels

OWN: Final = ("hello-tiny", "hello-convnet")  # base models that this package holds

# Of a tower that a file describes: a file must not make its reader work for hours. open_clip's own stay within half.
MAX_LAYERS: Final = 128
MAX_GRID: Final = 64  # patches along a side
# Of the attention of one image, which torch may hold whole: numbers for each of its pixels, and in all. open_clip's own
# stay below 100 and 2^25.
MAX_ATTENTION: Final = (512, 1 << 28)

# Of the texts that it embeds. CLIP's authors average 80 templates, over 1,000 classes.
MAX_TEMPLATES: Final = 128
MAX_TEMPLATE: Final = 256  # characters, as of a description
MAX_PROMPTS: Final = 1 << 17


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How a base model wants its images: the side in pixels, then mean and deviation of values in 0..1."""

    side: int = bounded(1, 4096)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    def __post_init__(self) -> None:
        if fault := wrong_field(self):
            raise OptionError(fault)
        most, least = 1e6, 1e-6  # which float32 can divide by
        if not (len(self.mean) == len(self.std) == 3 and max(map(abs, self.mean)) <= most and min(self.std) >= least):
            raise OptionError(f"mean and std need three channels, at most {most:g} and at least {least:g}")


@dataclass(frozen=True, kw_only=True)
class Tower:
    """The image tower that an archive holds: its digest, and open_clip's names and values for what it is built from."""

    sha256: str  # as base_sha256, but of the tower's tensors alone, by their names within it
    embed_dim: int = bounded(1, 1 << 16)
    image_size: int = bounded(1, 1024)
    layers: tuple[int, ...]  # one number for a transformer, four for a ResNet
    width: int = bounded(1, 1 << 13)
    head_width: int = bounded(1, 1 << 13)
    mlp_ratio: float = bounded(0, 64)
    patch_size: int | None = bounded(1, 1024)
    ls_init_value: float | None
    no_ln_pre: bool
    final_ln_after_pool: bool
    pool_type: Literal["tok", "avg", "none"]
    attentional_pool: bool
    attn_pooler_queries: int = bounded(1, 1 << 12)
    attn_pooler_heads: int = bounded(1, 1 << 10)
    output_tokens: bool
    timm_model_name: str | None  # a network of timm's, in place of all from `layers` on
    timm_pool: Literal["avg", "token", "map", "abs_attn", "rot_attn", ""]
    timm_proj: Literal["linear", "mlp", "none", ""] | None
    timm_proj_bias: bool

    def __post_init__(self) -> None:
        if fault := wrong_field(self):
            raise OptionError(fault)
        if len(self.layers) not in (1, 4) or min(self.layers) < 1 or sum(self.layers) > MAX_LAYERS:
            raise OptionError(f"layers {self.layers!s:.40} are not one or four numbers above 0, in all {MAX_LAYERS}")
        if self.patch_size is not None and self.image_size // self.patch_size > MAX_GRID:
            raise OptionError(
                f"patches of {self.patch_size} in {self.image_size} px: more than {MAX_GRID} along a side"
            )
        per_pixel, in_all = MAX_ATTENTION
        if self._attention() > min(per_pixel * self.image_size**2, in_all):
            raise OptionError(f"its attention takes {self._attention():,} numbers for an image of {self.image_size} px")
        # A plain name: timm takes one with a colon or a slash for an address.
        if self.timm_model_name is not None and not re.fullmatch(r"[a-z0-9_]{1,64}", self.timm_model_name):
            raise OptionError(f"timm_model_name {self.timm_model_name!a:.80} is not letters, digits and _")

    def _attention(self) -> int:
        """Return how many numbers the largest attention of one image has; those of a network of timm's are its own."""
        if self.timm_model_name is not None:
            return 0
        if len(self.layers) == 4:  # a ResNet ends in one, on maps of a 32nd of the image's side, 32 times as wide
            return 32 * self.width // self.head_width * ((self.image_size // 32) ** 2 + 1) ** 2
        tokens = (self.image_size // (self.patch_size or self.image_size)) ** 2 + 1
        pooled = self.attn_pooler_heads * self.attn_pooler_queries * tokens if self.attentional_pool else 0
        return max(self.width // self.head_width * tokens**2, pooled)


def check_template(template: str, classes: int) -> None:
    """Raise an OptionError where a template has no place for a class, or makes more texts than a reader embeds."""
    parts = template.split("|")
    if any(part.count("{}") != 1 for part in parts):
        raise OptionError(f"template {template!a:.80} needs one {{}}, where the class goes")
    if len(parts) > MAX_TEMPLATES or max(map(len, parts)) > MAX_TEMPLATE or len(parts) * classes > MAX_PROMPTS:
        raise OptionError(
            f"template has {len(parts)} parts, the longest of {max(map(len, parts))} characters: at most "
            f"{MAX_TEMPLATES} of {MAX_TEMPLATE} are read, and {MAX_PROMPTS:,} texts of all classes"
        )


def check_descriptions(descriptions: Sequence[str]) -> None:
    """Raise an OptionError where a class is described by a longer text than a reader embeds."""
    longest = max(descriptions, key=len, default="")
    if len(longest) > MAX_TEMPLATE:
        raise OptionError(f"text {longest!a:.80} of a class has {len(longest):,} characters: {MAX_TEMPLATE} are read")


@dataclass(frozen=True, kw_only=True)
class ProjectorConfig:
    """What is needed, beside the stored tensors and the base model, to make the same labels again."""

    architecture: Literal["open_clip"] = "open_clip"  # a key of BACKBONES, never an import path
    base: str  # one of OWN, `MODEL/TAG`, or `given:NAME` for a base that only the user can provide
    # Of its float tensors: name, shape and float32 bytes, sorted by name. Of both towers for head="text"; of the image
    # tower alone, by their names within it, for "prototypes".
    base_sha256: str
    quick_gelu: bool  # whether layers of these compute with QuickGELU, which open_clip may have in place of GELU
    preprocess: Preprocess
    template: str  # or several, between `|`, whose embeddings are averaged
    descriptions: tuple[str, ...]  # one a class, set into the template
    head: Head = "text"
    encoder_rank: int = bounded(1, inf)
    head_rank: int = bounded(1, inf)
    quantization: Quantization = "fp16"
    precision: Precision = "fp32"
    tower: Tower | None = None  # that of the base, in the section `backbone`; None: the base is not in the file

    def __post_init__(self) -> None:
        if fault := wrong_field(self):
            raise OptionError(fault)
        check_template(self.template, len(self.descriptions))
        check_descriptions(self.descriptions)
        if self.tower is not None and self.tower.image_size != self.preprocess.side:
            raise OptionError(f"tower.image_size is {self.tower.image_size}, preprocess.side {self.preprocess.side}")


def needs_base(projector: Mapping[str, Any]) -> bool:
    """Return whether the labels of a header's projector need a base model that only the user can provide."""
    return projector.get("tower") is None and ":" in projector["base"]
