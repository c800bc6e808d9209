"""Label makers: uint8 images to class logits."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LabelMaker = Callable[["Tensor"], "Tensor"]  # uint8 (B, 3, H, W) -> float logits (B, K)
