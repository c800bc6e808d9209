"""HelloLoader: batches of a HelloDataset made whole on one device, without workers."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

from hellods.data.dataset import HelloDataset


class HelloLoader:
    """Yields (images, labels) on `device`, both real tensors: what a DataLoader yields after `.to(device)`.

    Images are decoded once and stay on the device as uint8; views are rendered and labeled there, a batch at a time.
    Draws count as those of the data set do, so a DataLoader and a HelloLoader over one data set share its epochs.

    Args:
        dataset: what to draw from.
        batch_size: images a batch.
        shuffle: draw in random order, from torch's global generator; not with `sampler`.
        device: where the batches are made.
        drop_last: leave out a last batch that is not full.
        sampler: yields indices, as for a DataLoader.
    """

    def __init__(
        self,
        dataset: HelloDataset,
        batch_size: int,
        *,
        shuffle: bool = False,
        device: torch.device | str = "cpu",
        drop_last: bool = False,
        sampler: Iterable[int] | None = None,
    ) -> None:
        if shuffle and sampler is not None:
            raise ValueError("shuffle=True and sampler= exclude each other")
        if sampler is None:
            sampler = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
        self.dataset = dataset
        self.device = torch.device(device)
        self.batches = BatchSampler(sampler, batch_size, drop_last)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        for indices in self.batches:
            yield self.dataset.batch(indices, self.device)
