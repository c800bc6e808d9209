"""Some of a source's images: at random, or spread evenly, to measure an accuracy on."""

from typing import Final

import torch
from torch import Tensor

from hellods.sources.source import Source

SAMPLE: Final = 2000  # images that an accuracy is measured on, in all,
PER_CLASS: Final = 50  # or of each class if that is more: enough to find two swapped ones with a weak teacher


def pick(source: Source, label: int, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` random indices of one class, all different."""
    indices = (source.targets == label).nonzero().flatten()
    return indices[torch.randperm(len(indices), generator=generator)[:count]]


def sample(source: Source, wanted: int) -> Tensor:
    """Return int64 indices of `wanted` images of every class, spread evenly over it, or of all that it has."""
    members = [(source.targets == label).nonzero().flatten() for label in range(len(source.classes))]
    counts = [min(wanted, len(own)) for own in members]
    places = [torch.arange(count) * len(own) // max(1, count) for own, count in zip(members, counts, strict=True)]
    return torch.cat([own[place] for own, place in zip(members, places, strict=True)])


def evaluation_indices(source: Source) -> Tensor:
    """Return int64 indices of what an accuracy is measured on: 2,000 images, or 50 of each class if that is more."""
    return sample(source, max(PER_CLASS, SAMPLE // len(source.classes)))


def accuracy(source: Source, indices: Tensor, hits: Tensor) -> float:
    """Return the share of all images of `source` that a classifier is right on, 0..1, by those that `sample` chose.

    Args:
        source: of which some classes may be far larger than others, while `sample` takes as many of each.
        indices: int64 (B,), what `sample` chose.
        hits: bool (B,), which of them it is right on.
    """
    everything, seen, right = (
        torch.bincount(targets, minlength=len(source.classes))
        for targets in (source.targets, source.targets[indices], source.targets[indices[hits]])
    )
    return ((everything * right.double() / seen.clamp_min(1)).sum() / len(source)).item()
