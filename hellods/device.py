"""Where torch computes: the device of a name, what is said of it, and how much it is given at once."""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from hellods.errors import RecipeError

# Pixels that a network answers at once. A CPU is fastest while the activations stay in its cache: on an AMD EPYC a
# MobileNetV2 at 224 px takes 16 ms an image in fives and 24 ms in batches of 64. On a GPU it is what memory allows.
AT_ONCE: Final = {"cpu": 1 << 18, "cuda": 1 << 25}


def usable(device: str) -> torch.device:
    """Return the device of that name.

    Raises:
        RecipeError: this machine has none.
    """
    try:
        value = torch.zeros(1, device=device)
        value.item()  # which `meta` cannot
    except (RuntimeError, AssertionError, NotImplementedError) as cause:  # a build of torch without CUDA asserts
        raise RecipeError(f"device {device!r} cannot be used here: {str(cause).splitlines()[0]}") from cause
    return value.device


def where(device: torch.device) -> str:
    """Return what the bytes depend on beside the inputs: the number of threads, or the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def precision(device: torch.device | str) -> torch.dtype:
    """Return what forward passes of a training compute in: bfloat16 on a GPU that has it in hardware, else float32."""
    device = torch.device(device)
    fast = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.bfloat16 if fast else torch.float32


def in_parts(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return `network(images)`, (B, ...), for images (B, 3, H, W), of few at a time, unless gradients are wanted."""
    limit = AT_ONCE.get(images.device.type)
    if limit is None or torch.is_grad_enabled():
        return network(images)
    height, width = images.shape[2:]
    return torch.cat([network(part) for part in torch.split(images, max(1, limit // (height * width)))])
