"""Batches of images on their way from a DataLoader's workers to the process that they work for."""

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
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

from hellods.data.lazy import Lazy, plain
from hellods.data.memory import Batches, Shared, addresses_are_free, room
from hellods.device import CPU
from hellods.errors import HelloError
from hellods.views.normalize import normalize

SLOTS: Final = 64  # batches that can be on their way at a time, from all workers
SLOT: Final = 1 << 29  # addresses that one has; the system gives as much memory as is written to

Scale = tuple[Sequence[float], Sequence[float]] | None  # mean and deviation of each channel; None: as they are

# What a batch that comes out of a worker knows its way by.
HANDOVERS: Final[WeakValueDictionary[int, "Handover"]] = WeakValueDictionary()


class Handover:
    """Shared memory that workers write views to, and out of which the process they work for normalizes them.

    It is used again and again, and holds a byte where an image has a float32. For each batch that is not in it, torch
    takes new shared memory, which the system hands out page by page: writing 64 images of 224 px to that takes six
    times as long, and more than making them.

    A slot belongs to the worker that claimed it, as long as that lives. Its turn is odd while a batch is on its way in
    it, and even otherwise.

    Raises:
        OSError: the memory has no descriptor.
    """

    def __init__(self, memory: Shared, *, inherited: bool = False) -> None:
        self._memory, self.key = memory, os.fstat(memory.fileno()).st_ino
        self._maker = None if inherited else os.getpid()
        self._turns = memory.bytes[: 8 * SLOTS].numpy().view(np.int64)
        self._owner, self._free = 0, deque[int]()  # of a worker: the slots that are not lent
        self._asked, self._claimed = 0, 0  # for how many it asked, and how many it got
        self._lock, self._batches = threading.Lock(), Batches()
        HANDOVERS[self.key] = self

    def __reduce__(self) -> tuple[Callable[..., "Handover | None"], tuple[Any, ...]]:
        if get_spawning_popen() is None:
            return reserve, ()
        return _inherited, (self._memory,)

    def lend(self, views: Tensor, scale: Scale) -> "list[LazyImages] | None":
        """Return the images of uint8 views, which a worker hands on; None where this is none, or has no room."""
        size = views.numel()
        if get_worker_info() is None or self._maker == os.getpid() or not 0 < size <= SLOT:
            return None
        with self._lock:
            slot = self._take(size)
        if slot is None:
            return None
        place = self._place(slot, views.shape)
        weakref.finalize(place, self._free.append, slot).atexit = False
        np.copyto(place, views.numpy())
        with torch.inference_mode(False):
            return LazyImages.each(Lent(handover=self, slot=slot, views=torch.from_numpy(place), scale=scale))

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

    def _place(self, slot: int, shape: Sequence[int]) -> NDArray[np.uint8]:
        start = SLOT * (1 + slot)  # after the turns
        place: NDArray[np.uint8] = self._memory.bytes[start : start + prod(shape)].numpy().reshape(shape)
        return place

    def send(self, slot: int) -> int | None:
        """Return the turn in which the other process receives what is in a slot; None if it is on its way already."""
        with self._lock:
            if self._turns[slot] % 2:
                return None
            self._turns[slot] += 1
            return int(self._turns[slot])

    def receive(self, slot: int, turn: int, shape: Sequence[int], scale: Scale) -> Tensor:
        """Return the images of views that were sent, in memory of this process."""
        if self._turns[slot] != turn:
            raise HelloError("a batch of images was received after the worker that sent it had ended, or twice")
        try:
            views = torch.from_numpy(self._place(slot, shape))
            return _scaled(views, scale, self._batches.empty(shape, _dtype(scale)))
        finally:
            self._turns[slot] += 1


def _scaled(views: Tensor, scale: Scale, out: Tensor) -> Tensor:
    """Return the images of uint8 views on the CPU, written to `out`: normalized, or as they are."""
    return out.copy_(views) if scale is None else normalize(views, *scale, out)


def _dtype(scale: Scale) -> torch.dtype:
    return torch.uint8 if scale is None else torch.float32


@dataclass(kw_only=True, eq=False)
class Lent:
    """Views in a slot, which is free again when nothing refers to them."""

    handover: Handover
    slot: int
    views: Tensor  # uint8 (B, 3, S, S)
    scale: Scale

    def new_images(self) -> Tensor:
        """Return the images of these views."""
        with torch.inference_mode(False):  # what is kept is used in any mode
            out = torch.empty(self.views.shape, dtype=_dtype(self.scale), device=CPU)
            return _scaled(self.views, self.scale, out)

    @cached_property
    def images(self) -> Tensor:
        """What its images are each a row of: one memory, for torch has one descriptor on its way for each."""
        return self.new_images()


class LazyImages(Lazy):
    """The images of lent views (B, 3, S, S), or one of them (3, S, S), which are scaled where values are needed.

    In a worker that is seldom. The images that `default_collate` finds together, whole and in order, are their batch,
    and it travels as views. `torch.save`, `copy`, `pickle` and all that computes take the values.
    """

    _lent: Lent
    _place: int | None  # of the one that it is

    @classmethod
    def each(cls, lent: Lent) -> "list[LazyImages]":
        """Return every image of lent views."""
        return [cls.of(lent, place) for place in range(len(lent.views))]

    @classmethod
    def of(cls, lent: Lent, place: int | None = None) -> "LazyImages":
        """Return one image of lent views, or the batch."""
        shape = lent.views.shape if place is None else lent.views.shape[1:]
        images = cls._new(shape, _dtype(lent.scale))
        images._lent, images._place = lent, place
        return images

    def _values_on(self, device: torch.device, operation: Callable[..., Any]) -> Tensor:
        if self._made is None:
            lent, place = self._lent, self._place
            self._made = lent.new_images() if place is None else lent.images[place]
        return self._made


def _collate(images: Sequence[LazyImages], *, collate_fn_map: Any = None) -> Tensor:
    """Return the batch that these images are, and where they are not one, whole and in order, stack them."""
    lent, stack = images[0]._lent, (collate_fn_map or {}).get(Tensor, collate_tensor_fn)
    whole = len(images) == len(lent.views) and all(_is_that(image, lent, place) for place, image in enumerate(images))
    if whole and stack is collate_tensor_fn:  # and not what the user has in its place
        return LazyImages.of(lent)
    stacked: Tensor = stack([plain(image, torch.stack) for image in images], collate_fn_map=collate_fn_map)
    return stacked


def _is_that(image: Tensor, lent: Lent, place: int) -> bool:
    """Whether this is the image of that view, and nobody has changed it."""
    return isinstance(image, LazyImages) and image._lent is lent and image._place == place and image._made is None


def _reduce(images: LazyImages) -> Any:
    lent = images._lent
    turn = lent.handover.send(lent.slot) if images._place is None and images._made is None else None
    if turn is None:
        return reduce_tensor(images._values_on(CPU, reduce_tensor))  # type: ignore[no-untyped-call]
    return _receive, (lent.handover.key, lent.slot, turn, tuple(lent.views.shape), lent.scale)


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


default_collate_fn_map[LazyImages] = _collate
ForkingPickler.register(LazyImages, _reduce)
