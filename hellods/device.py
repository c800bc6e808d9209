"""Where torch computes: the device of a name, and what is said of it."""

import torch

from hellods.errors import RecipeError


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
