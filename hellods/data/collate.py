"""What default_collate asks of a tensor in a worker before it stacks: room in shared memory, which ours need not."""

from typing import Any

import torch
from torch import Tensor

from hellods.device import CPU


class NoStorage:
    """A storage that makes no other one in shared memory."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype

    def _new_shared(self, size: int, *, device: Any = None) -> Any:
        return nothing(self._dtype)._typed_storage()  # type: ignore[no-untyped-call]

    def _is_shared(self) -> bool:
        return False


def nothing(dtype: torch.dtype) -> Tensor:
    """Return a tensor (0,)."""
    return torch.empty(0, dtype=dtype, device=CPU)
