"""prototypes(): the mean features of each class's real images, where a head begins that knows no texts."""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from hellods.labels.projector import Projector
from hellods.progress import Progress, silent, track
from hellods.sources.source import Source, squares

PER_CLASS: Final = 100  # real images at most, seen at once


@torch.no_grad()
def prototypes(projector: Projector, source: Source, side: int, progress: Progress = silent) -> Tensor:
    """Return float32 (K, D), normalized: for each class the mean of its images' normalized features.

    The images are the first hundred of the class, as squares of `side` pixels.
    """
    means = []
    for label in track(range(len(source.classes)), len(source.classes), "Prototypes", progress):
        indices = (source.targets == label).nonzero()[:PER_CLASS, 0]
        means.append(projector.features(squares(source, indices, side)).mean(0))
    return F.normalize(torch.stack(means), dim=1)
