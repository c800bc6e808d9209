"""Question: what is asked of every archive. Torch-free."""

from dataclasses import dataclass, field
from typing import Literal

from hellods.errors import OptionError
from hellods.evaluate.arms import ARMS
from hellods.evaluate.presets import Protocol
from hellods.record import wrong_word
from hellods.teachers.scale import MEAN, STD

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of every archive."""

    data: str  # the real images: a folder with train/ and val/ (or test/), or `digits`
    protocol: Protocol = field(default_factory=Protocol)
    arms: tuple[str, ...] = tuple(ARMS)
    seeds: int = 3  # students per arm, with the seeds 0, 1, …
    base: str | None = None  # the base model, where an archive names one that only the user has
    teacher: str | None = None  # `train`, `train:NETWORK`, `FILE.py:FUNCTION`, or a torchvision or timm name
    teacher_weights: str | None = None
    teacher_mean: tuple[float, float, float] = MEAN
    teacher_std: tuple[float, float, float] = STD
    allow_weak_teacher: bool = False
    device: str = "cpu"
    precision: Precision | None = None  # of the students' forward pass; None: bf16 where the device has it in hardware

    def __post_init__(self) -> None:
        if fault := wrong_word(self):
            raise OptionError(fault)
        if self.seeds < 1:
            raise OptionError(f"seeds is {self.seeds}, expected 1 or more")
        if self.teacher is None and self.teacher_weights:
            raise OptionError("`teacher_weights` needs `teacher`: name the network that they are for")
        if self.teacher is None and (self.teacher_mean, self.teacher_std) != (MEAN, STD):
            raise OptionError("`teacher_mean` and `teacher_std` need `teacher`: name the network that expects them")
