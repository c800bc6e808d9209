"""ARMS: what is compared, each as (images, labels) by name. Torch-free."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from hellods.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Whose images, and whose labels: with `truth`, the classes as mixed, the loss is the cross-entropy."""

    images: Literal["archive", "random", "all"]  # random, all: real images
    labels: Literal["hello", "teacher", "truth"]
    bits: int | None = None  # of the teacher's weights, when it is shipped
    stored: int | None = None  # the labels are stored, in so many times the bytes of the archive's label maker
    says: str


ARMS: Final = {
    "hello": Arm(images="archive", labels="hello", says="the archive's images and labels"),
    "teacher": Arm(images="archive", labels="teacher", says="its images, labelled by the teacher as training goes"),
    "hard": Arm(images="archive", labels="truth", says="its images, and their classes alone"),
    "random-hello": Arm(images="random", labels="hello", says="as many random real images, the archive's labels"),
    "random-teacher": Arm(images="random", labels="teacher", says="as many random real images, the teacher's labels"),
    "shipped-int8": Arm(images="archive", labels="teacher", bits=8, says="the teacher shipped with 8 bits a weight"),
    "shipped-int4": Arm(images="archive", labels="teacher", bits=4, says="the teacher shipped with 4 bits a weight"),
    "stored-1x": Arm(
        images="archive", labels="teacher", stored=1, says="the teacher's labels stored, as large as the label maker"
    ),
    "stored-10x": Arm(images="archive", labels="teacher", stored=10, says="the same, ten times as large"),
    "stored-100x": Arm(images="archive", labels="teacher", stored=100, says="the same, a hundred times as large"),
    "full": Arm(images="all", labels="truth", says="all real images, their classes, as many steps"),
}


def choose(names: Sequence[str]) -> dict[str, Arm]:
    """Return the arms of these names, in the order of the table; `random`, `shipped` and `stored` mean all of a kind.

    Raises:
        OptionError: an unknown name, or none.
    """
    if not names:
        raise OptionError(f"no arm is named: choose from {', '.join(ARMS)}")
    chosen = set()
    for name in names:
        found = {arm for arm in ARMS if name in (arm, arm.partition("-")[0])}
        if not found:
            raise OptionError(f"arm {name!a} is unknown: choose from {', '.join(ARMS)}")
        chosen |= found
    return {name: arm for name, arm in ARMS.items() if name in chosen}
