"""Batches of images on their way from a DataLoader's workers to the process that they work for."""

import copy
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from math import prod
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import ForkingPickler
from typing import Any, Final
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor
from torch.utils.data import get_worker_info
from torch.utils.data._utils.collate import collate_tensor_fn, default_collate_fn_map

from hellods.data.memory import Batches, Shared, addresses_are_free, room
from hellods.device import CPU
from hellods.errors import HelloError

SLOTS: Final = 64  # batches that can be on their way at a time, from all workers
SLOT: Final = 1 << 29  # addresses that one has; the system gives as much memory as is written to

# What a batch that comes out of a worker knows its way by.
HANDOVERS: Final[WeakValueDictionary[int, "Handover"]] = WeakValueDictionary()


class Handover:
    """Shared memory that workers write batches to, and that the process they work for copies them out of.

    It is used again and again. For each batch that is not in it, torch takes new shared memory, which the system hands
    out page by page: writing 64 images of 224 px to that takes six times as long, and more than making them.

    A slot belongs to the worker that claimed it, as long as that lives. Its turn is odd while a batch is on its way in
    it, and even otherwise.

    Raises:
        OSError: the memory has no descriptor.
    """

    def __init__(self, memory: Shared, *, inherited: bool = False) -> None:
        self._memory, self._key = memory, os.fstat(memory.fileno()).st_ino
        self._maker = None if inherited else os.getpid()
        self._turns = memory.bytes[: 8 * SLOTS].numpy().view(np.int64)
        self._owner, self._free = 0, deque[int]()  # of a worker: the slots that are not lent
        self._asked, self._claimed = 0, 0  # for how many it asked, and how many it got
        self._lock, self._batches = threading.Lock(), Batches()
        HANDOVERS[self._key] = self

    def __reduce__(self) -> tuple[Callable[..., "Handover | None"], tuple[Any, ...]]:
        if get_spawning_popen() is None:
            return reserve, ()
        return _inherited, (self._memory,)

    def lend(self, shape: Sequence[int], dtype: torch.dtype) -> "Lent | None":
        """Return a batch for a worker to fill; None where this is none, or its batches cannot go this way."""
        size = prod(shape) * dtype.itemsize
        if get_worker_info() is None or self._maker == os.getpid() or not 0 < size <= SLOT:
            return None
        with self._lock:
            slot = self._take(size)
        if slot is None:
            return None
        place = self._place(slot, size)
        weakref.finalize(place, self._free.append, slot).atexit = False
        lent = torch.from_numpy(place).view(dtype).view(*shape).as_subclass(Lent)
        lent._handover, lent._slot = self, slot
        return lent

    def _take(self, size: int) -> int | None:
        if self._owner != os.getpid():
            self._owner, self._free, self._asked, self._claimed = os.getpid(), deque(), 0, 0
        for _ in range(len(self._free)):
            slot = self._free.pop()  # what was written last may be in the cache
            if self._turns[slot] % 2 == 0:
                return slot
            self._free.appendleft(slot)
        if (self._claimed + 1) * size > room(CPU):  # of which this worker has its share
            return None
        while self._asked < SLOTS:
            slot, self._asked = self._asked, self._asked + 1
            if self._claim(slot):
                self._claimed += 1
                self._turns[slot] += self._turns[slot] % 2  # what a worker sent that is gone, and nobody received
                return slot
        return None

    def _claim(self, slot: int) -> bool:
        import fcntl  # which Windows has not

        # The system takes the lock back when this process ends, and also when it closes any descriptor of the memory:
        # so it is mapped once, for mmap has one of its own.
        try:
            fcntl.lockf(self._memory.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
        except OSError:
            return False
        return True

    def _place(self, slot: int, size: int) -> NDArray[np.uint8]:
        start = SLOT * (1 + slot)  # after the turns
        place: NDArray[np.uint8] = self._memory.bytes[start : start + size].numpy()
        return place

    def send(self, lent: "Lent") -> tuple[Callable[..., Tensor], tuple[Any, ...]] | None:
        """Return what makes the other process receive this batch; None where it must go as any tensor does."""
        place = self._place(lent._slot, lent.nbytes)
        as_lent = lent.data_ptr() == place.ctypes.data and lent.is_contiguous() and not lent.requires_grad
        if not as_lent or self._turns[lent._slot] % 2:  # or on its way already
            return None
        self._turns[lent._slot] += 1
        return _receive, (self._key, lent._slot, int(self._turns[lent._slot]), tuple(lent.shape), lent.dtype)

    def receive(self, slot: int, turn: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return a copy of a batch that was sent, in memory of this process."""
        batch = self._batches.empty(shape, dtype)
        pixels = batch.view(-1).view(torch.uint8).numpy()
        if self._turns[slot] != turn:
            raise HelloError("a batch of images was received after the worker that sent it had ended, or twice")
        try:
            np.copyto(pixels, self._place(slot, pixels.size))
        finally:
            self._turns[slot] += 1
        return batch


class Plain(Tensor):
    """What is a tensor as any other to all that computes with it."""

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.as_subclass(Tensor).__reduce_ex__(protocol)  # type: ignore[no-untyped-call]

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return copy.deepcopy(self.as_subclass(Tensor), memo)


class Lent(Plain):
    """A batch that is in a slot; its rows are in the same memory."""

    _handover: Handover
    _slot: int
    _collated = False  # whether somebody has it: another time it would be the same memory, where torch makes another

    def rows(self) -> list["Row"]:
        """Return its images, which default_collate makes this batch of."""
        rows = [row.as_subclass(Row) for row in self.unbind()]
        for row in rows:
            row._batch = self
        return rows


class Row(Plain):
    """An image of a batch that is in a slot."""

    _batch: Lent


def _collate(rows: Sequence[Tensor], *, collate_fn_map: Any = None) -> Tensor:
    """Return the batch that these rows are, and where they are not one, whole and in order, stack them."""
    batch = rows[0]._batch if isinstance(rows[0], Row) else None
    with torch._C.DisableTorchFunctionSubclass():
        if batch is not None and not batch._collated and _are_rows(rows, batch):
            batch._collated = True
            return batch
    stacked: Tensor = collate_tensor_fn([row.as_subclass(Tensor) for row in rows], collate_fn_map=collate_fn_map)
    return stacked


def _are_rows(tensors: Sequence[Tensor], batch: Tensor) -> bool:
    """Whether these are all rows of a batch in their order, and as they were."""
    start, shape, size = batch.data_ptr(), batch.shape[1:], batch[0].nbytes
    return len(tensors) == len(batch) and all(
        tensor.data_ptr() == start + place * size and tensor.shape == shape and tensor.is_contiguous()
        for place, tensor in enumerate(tensors)
    )


def reserve() -> Handover | None:
    """Return room for batches on their way; None where memory has no descriptor by which a worker can claim it."""
    try:
        return Handover(Shared(SLOT * (1 + SLOTS))) if addresses_are_free() else None
    except (OSError, ValueError, OverflowError):
        return None


def _inherited(memory: Shared | None) -> Handover | None:
    return None if memory is None else Handover(memory, inherited=True)


def _receive(key: int, *sent: Any) -> Tensor:
    handover = HANDOVERS.get(key)
    if handover is None:
        raise HelloError("the HelloDataset of these images is gone from this process: keep it while they are loaded")
    return handover.receive(*sent)


def _reduce(batch: Lent) -> Any:
    return batch._handover.send(batch) or _reduce_plain(batch)


def _reduce_plain(images: Plain) -> Any:
    return reduce_tensor(images.as_subclass(Tensor))  # type: ignore[no-untyped-call]


default_collate_fn_map[Row] = _collate
ForkingPickler.register(Lent, _reduce)
ForkingPickler.register(Row, _reduce_plain)
