"""Memory for pixels: how much there is, batches that are used again, and one memory for several processes."""

import mmap
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from math import prod
from multiprocessing.context import get_spawning_popen
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from hellods.device import CPU

# Where Linux says in which control groups this process is, and how much each may use.
GROUPS: Final = "/proc/self/cgroup"
LIMITS: Final = Path("/sys/fs/cgroup")


def room(device: torch.device) -> int:
    """Return how many bytes of images a process may keep: half of a GPU's free memory, a quarter of the machine's.

    The limit of a container or a batch job counts as the machine's memory. The processes that torchrun starts on a
    machine share a quarter, and so do the workers of a DataLoader that cannot share the images.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free // 2
    memory: int = psutil.virtual_memory().total
    for limit in _limits():
        with suppress(OSError, ValueError):  # no such file, or it says `max`
            memory = min(memory, int(limit.read_text()))
    worker = get_worker_info()
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) * (1 if worker is None else 1 + worker.num_workers)
    return memory // 4 // processes


def _limits() -> Iterator[Path]:
    """Yield the files that limit this process's memory: of its control group, version 2 or 1, and of those around it.

    In a container its group may go by a name that is known outside alone, and the root is the container's own.
    """
    with suppress(OSError):
        for line in Path(GROUPS).read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            group = Path(name.lstrip("/"))
            for around in (group, *group.parents):
                if not controllers:
                    yield LIMITS / around / "memory.max"
                elif "memory" in controllers.split(","):
                    yield LIMITS / "memory" / around / "memory.limit_in_bytes"


def addresses_are_free() -> bool:
    """Return whether this process may have addresses that it does not use, which a batch system may count as memory."""
    try:
        import resource
    except ImportError:  # Windows
        return False
    return resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


class Batches:
    """Memory for batches on the CPU: what nobody looks at any more is used again.

    The system hands out fresh memory page by page, and threads that fill it wait for each other: the 38 MB of 64 images
    at 224 px take four times as long as the same memory once more.
    """

    def __init__(self) -> None:
        self._free: deque[NDArray[np.uint8]] = deque(maxlen=2)  # one that the user has, and the next

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return a tensor of any values; its memory comes back when no tensor is left that shares it."""
        size, memory = prod(shape) * dtype.itemsize, np.empty(0, np.uint8)
        if not size:
            return torch.empty(*shape, dtype=dtype, device=CPU)
        with suppress(IndexError):
            memory = self._free.pop()
        if memory.size < size:
            memory = np.empty(size, np.uint8)  # numpy asks Linux for large pages, torch does not
        lent = memory[:size]
        weakref.finalize(lent, self._free.append, memory).atexit = False
        return torch.from_numpy(lent).view(dtype).view(*shape)


class Shared:
    """Bytes, zero at first, that this process and those that it starts see as one; none is taken before it is used.

    Processes that are not forked get them where Linux has memfd_create, and none elsewhere.

    Attributes:
        bytes: uint8 (size,).

    Raises:
        OSError: the system has no such room.
    """

    @torch.inference_mode(False)  # what is kept is written in any mode
    def __init__(self, size: int, descriptor: int | None = None) -> None:
        self._size = size
        self._descriptor = _descriptor() if descriptor is None else descriptor
        if self._descriptor is not None:
            weakref.finalize(self, os.close, self._descriptor)
            if descriptor is None:
                os.truncate(self._descriptor, size)
        place = mmap.mmap(-1 if self._descriptor is None else self._descriptor, size)
        if hasattr(mmap, "MADV_DONTDUMP"):
            place.madvise(mmap.MADV_DONTDUMP)  # or a core dump would take memory for all of it
        self.bytes = torch.frombuffer(place, dtype=torch.uint8)

    def fileno(self) -> int:
        """Return the descriptor of the memory.

        Raises:
            OSError: it has none.
        """
        if self._descriptor is None:
            raise OSError("this memory has no descriptor")
        return self._descriptor

    def __reduce__(self) -> tuple[Callable[..., "Shared | None"], tuple[Any, ...]]:
        if get_spawning_popen() is None:
            return reserve, (self._size,)
        if self._descriptor is None:
            return _none, ()  # the new process finds out how much it may keep
        from multiprocessing.reduction import DupFd  # which Windows has not

        return _received, (self._size, DupFd(self._descriptor))


def reserve(size: int) -> Shared | None:
    """Return shared memory of `size` bytes; None where that is more than a process may keep."""
    try:
        return Shared(size) if size <= room(CPU) else None
    except (OSError, ValueError, OverflowError):  # the system has a limit of its own
        return None


def _descriptor() -> int | None:
    # Not of /dev/shm, which has 64 MB in a container unless it was given more.
    try:
        return os.memfd_create("hellods")
    except (AttributeError, OSError):
        return None


def _none() -> None:
    return None


def _received(size: int, descriptor: Any) -> Shared:
    return Shared(size, descriptor.detach())
