"""in_parts(): a network answers as many images at once as suits the processor."""

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

# Pixels that a network answers at once. A CPU is fastest while no activation reaches the 32 MB from which the system
# gives fresh memory each time: a MobileNetV2's largest takes 29 MB for six images of 224 px. On two cores of a Xeon
# it takes 8.2 ms an image in sixes, 8.5 in eights, 9.3 in tens. A Vision Transformer's largest are a tenth of that, and
# more images share a pass over its weights. On a GPU it is what memory allows.
AT_ONCE: Final = {"cpu": 6 * 224**2, "cuda": 1 << 25}
TOKENS_AT_ONCE: Final = AT_ONCE | {"cpu": 32 * 224**2}


def in_parts(answer: Callable[[Tensor], Tensor], images: Tensor, network: nn.Module) -> Tensor:
    """Return `answer(images)`, (B, ...), for images (B, 3, H, W), of few at a time, unless gradients are wanted.

    Args:
        answer: asks the network.
        images: any number.
        network: says how many at a time.
    """
    if torch.is_grad_enabled() or images.device.type not in AT_ONCE:
        return answer(images)
    spatial = sum(isinstance(module, nn.Conv2d) for module in network.modules()) > 1  # else its only one makes tokens
    limit = (AT_ONCE if spatial else TOKENS_AT_ONCE)[images.device.type]
    if torch.is_autocast_enabled(images.device.type):
        limit = max(AT_ONCE.values())  # it casts the weights anew for every part
    count, _, height, width = images.shape
    parts = max(1, math.ceil(count / max(1, limit // (height * width))))
    while True:
        try:
            return torch.cat([answer(part) for part in images.tensor_split(parts)])  # all of one size, or one less
        except torch.OutOfMemoryError:  # of a GPU, which has other things to hold
            if parts >= count:
                raise
            parts = min(2 * parts, count)
