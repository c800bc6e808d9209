"""What a view may be: crop, flip, tile order and mixing, as one frozen value."""

from dataclasses import dataclass
from typing import Final, Literal

from hellods.record import wrong_field

Mix = Literal["none", "cutmix", "mixup"]  # with a partner drawn over the whole set

MAX_SIDE: Final = 4096  # pixels; of images and of views
MAX_SHUFFLE: Final = 16  # tiles per side


@dataclass(frozen=True, kw_only=True)
class Views:
    """The rule by which views are drawn; its values stand in an archive's header.

    The crop is torchvision's RandomResizedCrop with aspect ratios from 3/4 to 4/3. With `shuffle=f` and
    `scale=(1 / f, 1.0)` the rule is RDED's (Sun et al., arXiv 2312.03526).

    Raises:
        ValueError: a value out of range.
    """

    size: int  # pixels per side of a view, 1 to 4096
    scale: tuple[float, float] = (0.08, 1.0)  # smallest and largest share of the image's area that a crop takes
    flip: bool = True  # mirror left and right in half of the views
    shuffle: int = 1  # strips per side, 1 to 16, whose order is drawn before the crop (RDED's ShufflePatches)
    mix: Mix = "none"

    def __post_init__(self) -> None:
        if fault := wrong_field(self, {"size": (1, MAX_SIDE), "shuffle": (1, MAX_SHUFFLE)}):
            raise ValueError(fault)
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"scale is {low} to {high}, choose 0 < low <= high <= 1")
