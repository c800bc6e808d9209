"""HelloLoader: batches of a HelloDataset made whole on one device, without workers."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import Tensor
from torch.utils.data import BatchSampler, DistributedSampler

from hellods.data.dataset import HelloDataset

T = TypeVar("T")


class HelloLoader:
    """Yields (images, labels) on `device`, both real tensors: what a DataLoader yields after `.to(device)`.

    Images are decoded once and stay on the device as uint8; views are rendered and labeled there, a batch at a time,
    on a GPU one batch ahead of who takes them. Images that the device has no room for stay in the host's memory, and
    those that it has no room for are decoded for each batch, in threads; the logger `hellods` says so once.

    Draws count as those of the data set do, so a DataLoader and a HelloLoader over one data set share its epochs.

    Args:
        dataset: what to draw from.
        batch_size: images a batch.
        shuffle: draw in another random order in each pass, given by the data set's seed; not with `sampler`.
        device: where the batches are made.
        drop_last: leave out a last batch that is not full.
        sampler: yields indices, as for a DataLoader. Without one, and in a process group of torch.distributed, each
            rank draws its share.
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
        self.dataset = dataset
        self.device = torch.device(device)
        self._own = _share(dataset, shuffle)
        self.sampler: Iterable[int] = self._own if sampler is None else sampler
        self.batches = BatchSampler(self.sampler, batch_size, drop_last)
        self._pass = 0  # which order is drawn in
        self._done = 0  # batches of this pass that were yielded
        self._skip = 0  # batches that the next pass leaves out
        self._ahead: deque[list[int]] = deque()  # drawn, not yet yielded

    def __len__(self) -> int:
        return len(self.batches)

    def set_epoch(self, epoch: int) -> None:
        """Draw the samples, and the order of the sampler, of this epoch."""
        self.dataset.set_epoch(epoch)
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)
        self._skip = self._skip if epoch == self._pass else 0
        self._pass, self._done = epoch, self._skip

    def state_dict(self) -> dict[str, Any]:
        """Return where this rank stands; a loader that takes it goes on with the next batch.

        A sampler that was given is not in it: it must yield the same indices again.
        """
        unseen = [index for indices in self._ahead for index in indices]
        return {"pass": self._pass, "done": self._done, "epochs": self.dataset.epochs.state_dict(unseen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another loader, made with the same arguments, returned `state`."""
        self._pass, self._skip = state["pass"], state["done"]
        self._done = self._skip
        self.dataset.epochs.load_state_dict(state["epochs"])

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        if self._done > self._skip:  # the pass before was left early
            self._pass += 1
        self._done, self._skip = self._skip, 0
        self._ahead.clear()
        self._own.set_epoch(self._pass)
        resident, cpu = self.dataset.resident(self.device), self.device.type == "cpu"
        begun = _early(map(self._begin, islice(self.batches, self._done, None)), 0 if resident else 1)
        for batch in _early((finish() for finish in begun), 0 if cpu else 1):
            self._ahead.popleft()
            self._done += 1
            yield batch
        self._pass, self._done = self._pass + 1, 0

    def _begin(self, indices: list[int]) -> Callable[[], tuple[Any, Tensor]]:
        self._ahead.append(indices)
        return self.dataset.begin(indices, self.device)


def _share(dataset: HelloDataset, shuffle: bool) -> "DistributedSampler[Any]":
    ranks, rank = 1, 0
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        ranks, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    return DistributedSampler(dataset, ranks, rank, shuffle, dataset.seed)


def _early(items: Iterable[T], number: int) -> Iterator[T]:
    """Yield the items, each when `number` more of them are there."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > number:
            yield waiting.popleft()
    yield from waiting
