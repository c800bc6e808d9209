"""HelloLoader: batches of a HelloDataset made whole on one device, without workers."""

import operator
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DistributedSampler

from hellods.data.dataset import HelloDataset
from hellods.device import CPU, rank_and_world_size

T = TypeVar("T")


class HelloLoader:
    """Yields (images, labels) on `device`, both real tensors: what a DataLoader yields after `.to(device)`.

    Images are decoded once and stay on the device as uint8; views are rendered and labeled there, a batch at a time,
    on a GPU one batch ahead of who takes them. Images that the device has no room for stay in the host's memory, and
    those that it has no room for are decoded for each batch, in threads; the logger `hellods` says so once.

    Draws count as those of the data set do, so a DataLoader and a HelloLoader over one data set share its epochs.

    Args:
        dataset: The data set to draw from; a subclass with samples of its own (`__getitem__`) needs a DataLoader.
        batch_size: Images in a batch.
        shuffle: Whether to draw in another random order in each pass, given by the data set's seed; not with `sampler`.
        device: The device that batches are made on.
        drop_last: Whether to leave out a last batch that is not full.
        sampler: An iterable of indices, as for a DataLoader; its own `set_epoch` sets the order alone, the loader's the
            views too. Without one, and in a process group of torch.distributed, each rank draws its share; the group
            may be made after the loader.

    Raises:
        TypeError: not a HelloDataset, or a subclass with samples of its own.
        ValueError: `shuffle` beside `sampler`, a sampler of batches, or a `batch_size` that is none.
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
        if not isinstance(dataset, HelloDataset):
            raise TypeError(
                f"HelloLoader takes a HelloDataset, not {type(dataset).__name__}: for some of its images give the "
                "whole data set, and their indices as sampler="
            )
        if type(dataset).__getitem__ is not HelloDataset.__getitem__:
            raise TypeError(
                f"HelloLoader makes whole batches, without {type(dataset).__name__}.__getitem__: take transform=, or a "
                "DataLoader"
            )
        if shuffle and sampler is not None:
            raise ValueError("shuffle=True and sampler= exclude each other")
        if isinstance(sampler, BatchSampler):
            raise ValueError("sampler= yields single indices: give the batch sampler's own, and its batch_size")
        self.dataset = dataset
        self.device = torch.device(device)
        self._own = _Share(dataset, shuffle)
        self.sampler: Iterable[int] = self._own if sampler is None else sampler
        self.batch_sampler = BatchSampler(self.sampler, batch_size, drop_last)

    @property
    def batch_size(self) -> int:
        """Images a batch."""
        return self.batch_sampler.batch_size

    @property
    def drop_last(self) -> bool:
        """Whether a last batch that is not full is left out."""
        return self.batch_sampler.drop_last

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def set_epoch(self, epoch: int) -> None:
        """Draw the samples and the order of this epoch in the next pass, and in each later one of the epoch after.

        `loader.sampler.set_epoch`, which frameworks call, does the same, unless the sampler was given.
        """
        self._own.set_epoch(epoch)
        self._order(epoch)

    def _order(self, epoch: int) -> None:
        """Let a sampler that was given yield the order of this epoch, if it has one."""
        if self.sampler is not self._own and hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return where this rank stands; a loader that takes it goes on with the next batch.

        A sampler that was given is not in it: it must yield the same indices again.
        """
        this = self._own.turn
        unseen = [index for indices in this.ahead for index in indices]
        epochs = self.dataset._epochs.state_dict(unseen)
        place = {"pass": this.number, "done": this.done, "sets": self._own.sets}
        return {"loader": self._facts(), **place, "epochs": epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another loader, made with the same arguments, returned `state`.

        After the last batch of a pass the next one begins, unless `set_epoch` asks for the same: none of it is left.

        Raises:
            ValueError: the other loader was made with other arguments, or it is no loader's state.
        """
        if not (isinstance(state, dict) and state.keys() == self.state_dict().keys()):
            raise ValueError("this is no state of a HelloLoader: give what state_dict() returned")
        saved, own = state["loader"], self._facts()
        if unlike := [name for name, value in own.items() if saved.get(name) != value]:
            facts = ", ".join(f"{name} {saved.get(name)} instead of {own[name]}" for name in unlike)
            raise ValueError(f"this state is of another loader: {facts}")
        self.dataset._epochs.load_state_dict(state["epochs"])
        self._own.turn, self._own.sets = _Pass(state["pass"], state["done"]), state["sets"]

    def _facts(self) -> dict[str, int]:
        """Return what decides which batch comes where in a pass."""
        return {
            "images": len(self.dataset),
            "seed": self.dataset.seed,
            "batch_size": self.batch_size,
            "drop_last": self.drop_last,
            "shuffle": self._own.shuffle,
            "ranks": rank_and_world_size()[1],
        }

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        if self._own.turn.begun:  # and left early, or it goes on beside this one
            self._own.turn = _Pass(self._own.turn.number + 1)
        this = self._own.turn
        this.begun, first = True, this.done
        if self._own.sets and not this.chosen:
            self._order(this.number)

        def begin(indices: list[int]) -> Callable[[], tuple[Any, Tensor]]:
            this.ahead.append(indices)
            if self._own.sets:  # whatever another loader of the data set has set meanwhile
                self.dataset.set_epoch(this.number)
            return self.dataset._begin(indices, self.device)

        resident, cpu = self.dataset._resident(self.device), self.device.type == "cpu"
        begun = _early(map(begin, islice(self.batch_sampler, this.done, None)), 0 if resident else 1)
        for batch in _early((finish() for finish in begun), 0 if cpu else 1):
            this.ahead.popleft()
            this.done += 1
            yield batch
        if self._own.turn is this:
            self._own.turn = _Pass(this.number + 1)
        if this.done == first > 0 and not this.chosen:  # no batch was left of what was loaded
            yield from self


@dataclass
class _Pass:
    """Where a pass stands."""

    number: int = 0  # which order is drawn in
    done: int = 0  # batches that were yielded, or that it leaves out
    ahead: deque[list[int]] = field(default_factory=deque)  # drawn, not yet yielded
    begun: bool = False
    chosen: bool = False  # by set_epoch


class _Share:
    """What this rank draws, pass by pass, in the process group that there is when one begins.

    Attributes:
        shuffle: whether each pass has another order.
        turn: the pass that began last, or the next.
        sets: whether each pass draws the samples of the epoch that has its number, as it does once one was set.
    """

    def __init__(self, dataset: HelloDataset, shuffle: bool) -> None:
        self._dataset, self.shuffle, self.turn, self.sets = dataset, shuffle, _Pass(), False

    def set_epoch(self, epoch: int) -> None:
        epoch = operator.index(epoch)  # of numpy, say
        self._dataset.set_epoch(epoch)
        self.sets = True
        if self.turn.begun or self.turn.number != epoch:
            self.turn = _Pass(epoch)
        self.turn.chosen = True

    def __len__(self) -> int:
        return len(self._sampler())

    def __iter__(self) -> Iterator[int]:
        with CPU:  # its generator is there, whatever torch's default device
            return iter(self._sampler())

    def _sampler(self) -> "DistributedSampler[Any]":
        dataset, (rank, count) = self._dataset, rank_and_world_size()
        sampler: DistributedSampler[Any] = DistributedSampler(dataset, count, rank, self.shuffle, dataset.seed)
        sampler.set_epoch(self.turn.number)
        return sampler


def _early(items: Iterable[T], number: int) -> Iterator[T]:
    """Yield the items, each when `number` more of them are there."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > number:
            yield waiting.popleft()
    yield from waiting
