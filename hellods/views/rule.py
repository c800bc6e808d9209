"""What a view may be: crop, flip, tile order and mixing, as one frozen value."""

from dataclasses import MISSING, dataclass
from typing import Final, Literal

from hellods.errors import OptionError
from hellods.knobs import documented, knob, wrong_field

Mix = Literal["none", "cutmix", "mixup"]  # with a partner drawn over the whole set

MAX_SIDE: Final = 4096  # pixels; of images and of views
MAX_SHUFFLE: Final = 16  # tiles per side


@documented
@dataclass(frozen=True, kw_only=True)
class Views:
    """The rule by which views are drawn; its values stand in an archive's header.

    The crop is torchvision's RandomResizedCrop with aspect ratios from 3/4 to 4/3. With `shuffle=f` and
    `scale=(1 / f, 1.0)` the rule is RDED's (Sun et al., arXiv 2312.03526).

    Raises:
        OptionError: a value out of range.
    """

    size: int = knob(MISSING, "Pixels per side of a view.", bounds=(1, MAX_SIDE))
    scale: tuple[float, float] = knob(
        (0.08, 1.0), "Smallest and largest share of the image's area that a crop takes, above 0 to 1."
    )
    flip: bool = knob(True, "Whether half of the views are mirrored, left and right.")
    shuffle: int = knob(
        1,
        "Strips per side, whose order is drawn before the crop: RDED's ShufflePatches. It must divide the sides.",
        bounds=(1, MAX_SHUFFLE),
    )
    mix: Mix = knob("none", "How a view is mixed with one of another image.")

    def __post_init__(self) -> None:
        if fault := wrong_field(self):
            raise OptionError(fault)
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise OptionError(f"scale is {low} to {high}, choose 0 < low <= high <= 1")

    def check(self, height: int, width: int) -> None:
        """Check that images of that height and width can be seen by this rule.

        Raises:
            OptionError: a side is out of range, or cannot be cut into equal strips.
        """
        for length in (height, width):
            if not 1 <= length <= MAX_SIDE:
                raise OptionError(f"image side is {length}, the limit is 1 to {MAX_SIDE}")
            if length % self.shuffle:
                raise OptionError(
                    f"image side {length} is not divisible by shuffle {self.shuffle}, choose another shuffle"
                )
