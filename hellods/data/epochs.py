"""Which epoch a draw belongs to, agreed on by all processes that hold a data set."""

import logging
import operator
import os
from collections.abc import Iterable, Sequence
from typing import Any, Final
from weakref import WeakSet

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from hellods.device import CPU, rank_and_world_size

logger = logging.getLogger("hellods")


ALIVE: "Final[WeakSet[Epochs]]" = WeakSet()  # in this process


class Epochs:
    """Counts how often each index was drawn, until an epoch is set for all; kept in shared memory.

    A process that was started with a data set, and is no worker, counts for itself and its workers, from its first draw
    or the start of its first worker on. Two workers that draw one index at the same moment may get the same number: the
    label then belongs to that number.
    """

    @torch.inference_mode(False)  # counts are written in any mode
    def __init__(self, count: int) -> None:
        self._drawn = torch.zeros(count, dtype=torch.int32, device=CPU)
        self._set = torch.tensor([-1], dtype=torch.int32, device=CPU)
        self._told = torch.zeros(1, dtype=torch.int32, device=CPU)  # whether one of the processes gave the warning
        self._owner = os.getpid()
        self._shared_out = False  # whether this process, which is no worker, took it from another one
        self._ranks = 1  # of those that started this process as a worker: it has no process group
        self._share()

    def set(self, epoch: int) -> None:
        """Let every later draw, in any process, belong to `epoch` (0 to 2^31 - 1)."""
        epoch = operator.index(epoch)
        if not 0 <= epoch < 1 << 31:
            raise ValueError(f"epoch {epoch} is not in 0..2147483647")
        self.own()
        self._set.numpy()[0] = epoch

    def take(self, indices: Sequence[int]) -> Tensor:
        """Return int64 (B,), the epoch of each draw, and count the draws."""
        self.own()
        if self._set[0] >= 0:
            return self._set.long().expand(len(indices))
        several = self._shared_out or max(rank_and_world_size()[1], self._ranks) > 1
        if several and not self._told[0]:
            self._told.numpy()[0] = 1
            logger.warning(
                "each process counts its own draws, so images that go from one process to another may show a view "
                "again: call set_epoch(epoch) before each epoch"
            )
        drawn, epochs = self._drawn.numpy(), []
        for index in indices:
            epochs.append(int(drawn[index]))
            drawn[index] += 1
        return torch.tensor(epochs, dtype=torch.int64, device=CPU)

    def state_dict(self, unseen: Iterable[int] = ()) -> dict[str, Tensor]:
        """Return what `load_state_dict` takes; draws of `unseen` indices are not counted in it."""
        drawn = self._drawn.clone()
        if self._set[0] < 0:
            for index in unseen:
                drawn[index] -= 1
        return {"drawn": drawn, "set": self._set.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on where `state_dict` was called, in all processes."""
        self.own()
        for counts, saved in ((self._drawn, state["drawn"]), (self._set, state["set"])):
            counts.numpy()[:] = saved.cpu()  # in any mode, as `set` and `take` write; a checkpoint may be on a GPU

    def __getstate__(self) -> dict[str, Any]:
        self.own()  # what starts may be a worker
        return vars(self) | {"_ranks": max(rank_and_world_size()[1], self._ranks)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        self._share()  # a plain pickle copies the counts; that of a starting worker brings the same memory

    def own(self) -> None:
        """Leave the counts to the process that they came from, unless this is a worker of it."""
        if os.getpid() != self._owner and get_worker_info() is None:
            with torch.inference_mode(False):
                self._drawn, self._set, self._told = self._drawn.clone(), self._set.clone(), self._told.clone()
            self._owner, self._shared_out = os.getpid(), True
            self._share()

    def _share(self) -> None:
        ALIVE.add(self)
        for counts in (self._drawn, self._set, self._told):
            counts.share_memory_()  # type: ignore[no-untyped-call]


def _own_all() -> None:
    for epochs in list(ALIVE):
        epochs.own()


if hasattr(os, "register_at_fork"):  # a worker that is forked shares what its parent has by then
    os.register_at_fork(before=_own_all)
