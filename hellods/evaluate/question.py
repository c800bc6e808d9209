"""Question: what is asked of every archive. Torch-free."""

from dataclasses import MISSING, dataclass
from typing import Literal

from hellods.errors import OptionError
from hellods.evaluate.arms import ARMS
from hellods.evaluate.presets import Protocol
from hellods.knobs import documented, knob, wrong_field
from hellods.teachers.scale import MEAN, STD

Precision = Literal["fp32", "bf16"]


@documented
@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of every archive."""

    data: str = knob(MISSING, "Real images: a folder with train/ and val/ (or test/), or `digits`.")
    protocol: Protocol = knob(Protocol(), "How students are trained.")
    arms: tuple[str, ...] = knob(tuple(ARMS), "Arms to compare.")
    seeds: int = knob(3, "Students per arm, each with a seed of its own.", bounds=(1, 10**6))
    base: str | None = knob(None, "Base model of the label makers, where a file names one that only you have.")
    teacher: str | None = knob(
        None, "Teacher: train, train:NETWORK, FILE.py:FUNCTION, or a network of torchvision or timm by name."
    )
    teacher_weights: str | None = knob(None, "The teacher's weights: safetensors, or a PyTorch checkpoint.")
    teacher_mean: tuple[float, float, float] = knob(
        MEAN, "Mean that the teacher expects, per channel, for pixels in 0..1."
    )
    teacher_std: tuple[float, float, float] = knob(STD, "Standard deviation that the teacher expects, likewise.")
    allow_weak_teacher: bool = knob(
        False, "Go on even if the teacher is near chance, or it or the label maker orders classes differently."
    )
    device: str = knob("cpu", "Device to compute on: cpu, cuda, cuda:1, …")
    precision: Precision | None = knob(
        None,
        "Precision of the students' forward passes.",
        unset="bf16 where the device has it in hardware, else fp32",
    )

    def __post_init__(self) -> None:
        if fault := wrong_field(self):
            raise OptionError(fault)
        if self.teacher is None and self.teacher_weights:
            raise OptionError("`teacher_weights` needs `teacher`: name the network that they are for")
        if self.teacher is None and (self.teacher_mean, self.teacher_std) != (MEAN, STD):
            raise OptionError("`teacher_mean` and `teacher_std` need `teacher`: name the network that expects them")
