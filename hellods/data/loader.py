"""HelloLoader: batches of a HelloDataset made whole on one device, without workers."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
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
            rank draws its share; the group may be made after the loader.
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
        self._own = _Share(dataset, shuffle)
        self.sampler: Iterable[int] = self._own if sampler is None else sampler
        self.batches = BatchSampler(self.sampler, batch_size, drop_last)
        self._pass = _Pass()  # the one that began last, or the next

    def __len__(self) -> int:
        return len(self.batches)

    def set_epoch(self, epoch: int) -> None:
        """Draw the samples, and the order of the sampler, of this epoch."""
        self.dataset.set_epoch(epoch)
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)
        if self._pass.begun or self._pass.number != epoch:
            self._pass = _Pass(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return where this rank stands; a loader that takes it goes on with the next batch.

        A sampler that was given is not in it: it must yield the same indices again.
        """
        unseen = [index for indices in self._pass.ahead for index in indices]
        epochs = self.dataset.epochs.state_dict(unseen)
        return {"pass": self._pass.number, "done": self._pass.done, "epochs": epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another loader, made with the same arguments, returned `state`."""
        self._pass = _Pass(state["pass"], state["done"])
        self.dataset.epochs.load_state_dict(state["epochs"])

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        if self._pass.begun:  # and left early, or it goes on beside this one
            self._pass = _Pass(self._pass.number + 1)
        this = self._pass
        this.begun = True
        self._own.set_epoch(this.number)

        def begin(indices: list[int]) -> Callable[[], tuple[Any, Tensor]]:
            this.ahead.append(indices)
            return self.dataset.begin(indices, self.device)

        resident, cpu = self.dataset.resident(self.device), self.device.type == "cpu"
        begun = _early(map(begin, islice(self.batches, this.done, None)), 0 if resident else 1)
        for batch in _early((finish() for finish in begun), 0 if cpu else 1):
            this.ahead.popleft()
            this.done += 1
            yield batch
        if self._pass is this:
            self._pass = _Pass(this.number + 1)


@dataclass
class _Pass:
    """Where a pass stands."""

    number: int = 0  # which order is drawn in
    done: int = 0  # batches that were yielded, or that it leaves out
    ahead: deque[list[int]] = field(default_factory=deque)  # drawn, not yet yielded
    begun: bool = False


class _Share:
    """What this rank draws, in the process group that there is when a pass begins."""

    def __init__(self, dataset: HelloDataset, shuffle: bool) -> None:
        self._dataset, self._shuffle, self._epoch = dataset, shuffle, 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._sampler())

    def __iter__(self) -> Iterator[int]:
        return iter(self._sampler())

    def _sampler(self) -> "DistributedSampler[Any]":
        ranks, rank = 1, 0
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            ranks, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        dataset = self._dataset
        sampler: DistributedSampler[Any] = DistributedSampler(dataset, ranks, rank, self._shuffle, dataset.seed)
        sampler.set_epoch(self._epoch)
        return sampler


def _early(items: Iterable[T], number: int) -> Iterator[T]:
    """Yield the items, each when `number` more of them are there."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > number:
            yield waiting.popleft()
    yield from waiting
