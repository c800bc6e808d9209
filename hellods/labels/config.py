"""What an archive says of its projector: plain facts, no torch."""

from dataclasses import dataclass
from typing import Literal

Quantization = Literal["fp16", "int8", "int4"]  # how deltas are stored
Head = Literal["text", "prototypes"]  # where the head starts: at embedded descriptions, or at stored mean features
Precision = Literal["fp32", "bf16", "fp16"]  # of the arithmetic that makes labels


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How a base model wants its images: the side in pixels, then mean and deviation of values in 0..1."""

    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    def __post_init__(self) -> None:
        if not 1 <= self.side <= 4096:
            raise ValueError(f"side {self.side} is not in 1..4096")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError("mean and std need three channels, std above zero")


@dataclass(frozen=True, kw_only=True)
class ProjectorConfig:
    """What is needed, beside the stored tensors and the base model, to make the same labels again."""

    architecture: Literal["open_clip"] = "open_clip"  # a key of BACKBONES, never an import path
    base: str  # `hello-tiny`, `MODEL/TAG`, or `given:NAME` for a base that only the user can provide
    base_sha256: str
    preprocess: Preprocess
    template: str  # or several, between `|`, whose embeddings are averaged
    descriptions: tuple[str, ...]  # one a class, set into the template
    head: Head = "text"
    encoder_rank: int
    head_rank: int
    quantization: Quantization = "fp16"
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        if min(self.encoder_rank, self.head_rank) < 1:
            raise ValueError("ranks must be at least 1")
        if any(part.count("{}") != 1 for part in self.template.split("|")):
            raise ValueError(f"template {self.template!a} needs one {{}} for the class")
