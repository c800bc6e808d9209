"""Label makers: uint8 images to class logits."""

from collections.abc import Callable

from torch import Tensor

LabelMaker = Callable[[Tensor], Tensor]  # uint8 (B, 3, H, W) -> float logits (B, K)
