"""normalize(): uint8 views -> what a network takes."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from hellods.device import CPU
from hellods.threads import in_threads
from hellods.views.render import CPU_PART


def normalize(views: Tensor, mean: Sequence[float], std: Sequence[float], out: Tensor | None = None) -> Tensor:
    """Return float32 (B, 3, H, W): uint8 views as values in 0..1, less the mean and divided by the deviation.

    They are a product and a sum, (1 / (255 * std)) * view - mean / std, so the bits are the same on every device. They
    are written to `out` where one is given.
    """
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), views.device)
    images = torch.empty(views.shape, dtype=torch.float32, device=views.device) if out is None else out
    if not views.is_cpu:
        return images.copy_(views).mul_(scale).add_(shift)
    seen, floats, steps = views.numpy(), images.numpy(), (scale.numpy(), shift.numpy())

    # One step after the other, while the values are in the cache.
    part = max(1, CPU_PART // views.shape[1:].numel())
    parts = [slice(start, start + part) for start in range(0, len(views), part)]

    def work(places: range) -> None:
        for some in parts[places.start : places.stop]:
            np.copyto(floats[some], seen[some])
            np.multiply(floats[some], steps[0], out=floats[some])
            np.add(floats[some], steps[1], out=floats[some])

    in_threads(work, len(parts))
    return images


@cache
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return what pixels are multiplied by and what is added, float32 (3, 1, 1) on `device`."""
    middle, unit = (torch.tensor(values, dtype=torch.float64, device=CPU)[:, None, None] for values in (mean, std))
    return (1 / (255 * unit)).float().to(device), (-middle / unit).float().to(device)
